"""What `splitc simulate` prints."""

from dataclasses import dataclass

from splitc.simulate.report.summary import Summary


@dataclass(frozen=True, slots=True)
class SimulateFacts:
    """The result of each policy for the same jobs."""

    policies: tuple[Summary, ...]
