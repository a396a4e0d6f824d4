"""What `splitc inspect PIPELINE` prints."""

from dataclasses import dataclass

from splitc.common.records import Count, Sha256
from splitc.compile.pipeline.places import Place


@dataclass(frozen=True, slots=True)
class StageFacts:
    """A stage.

    Attributes:
        times: how often it is repeated; null for a stage that runs once.
        models: the files that it runs, in turn.
        units: how many units it has, between which it can be cut; null for a stage that is not cut inside.
        takes: the values that it reads of those made before it.
        makes: the values that it makes.
    """

    name: str
    times: Count | None
    models: tuple[str, ...]
    units: Count | None
    weight_bytes: Count
    takes: tuple[str, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """A value that passes from stage to stage, or from one iteration to the next.

    Attributes:
        dtype: null for anything but a tensor of numbers or booleans.
        shape: names are symbolic dimensions.
        made_by: the stage that makes it; null for an input of the pipeline.
        read_by: the stages that read it, and "output" for an output of the pipeline.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str, ...]
    bytes: Count
    made_by: str | None
    read_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """Where a pipeline could be cut.

    Attributes:
        pipeline: the name.
        sha256: of the description and the models.
        inputs, outputs: their names.
        places: where it can be cut, in running order.
        dims: what symbolic dimensions were fixed to.
        notes: what a user should know of how this was found, a sentence each.
    """

    pipeline: str
    sha256: Sha256
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stages: tuple[StageFacts, ...]
    values: tuple[ValueFacts, ...]
    places: tuple[Place, ...]
    dims: dict[str, int]
    notes: tuple[str, ...]
