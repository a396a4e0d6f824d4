"""What `splitc sample` and `splitc pack` print."""

from dataclasses import dataclass

from splitc.common.records import Count


@dataclass(frozen=True, slots=True)
class WrittenFacts:
    """What was written.

    Attributes:
        path: the file or folder; for a pipeline, its description.
        bytes: its size; for a pipeline, including the models. Files that share their content count once.
    """

    path: str
    bytes: Count
