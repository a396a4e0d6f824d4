"""The stages of a pipeline with their models; a model alone is a pipeline of one stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from splitc.common.values import Array
from splitc.model.model import Model


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One run of a model.

    Attributes:
        inputs: from all of the model's inputs to values.
        outputs: from all of the model's outputs to values.
    """

    model: Model
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loop:
    """How a stage is repeated; row i of an array in `each` is the value in iteration i."""

    times: int
    carry: Mapping[str, str]
    each: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Stage:
    """Calls that run in order, once or in every iteration of a loop."""

    name: str
    calls: tuple[ModelCall, ...]
    loop: Loop | None

    def made(self) -> frozenset[str]:
        """The values that it makes."""
        return frozenset(value for call in self.calls for value in call.outputs.values())


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages that fit together.

    Attributes:
        inputs: the values that are given, in the order in which they are read, or as listed.
        sha256: of the description, and of everything that it names.
        models: each model once, in the order in which they first run.
    """

    path: Path
    name: str
    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sha256: str
    models: tuple[Model, ...]

    @property
    def only(self) -> ModelCall | None:
        """The run of the only model, if there is nothing else: then it is cut inside wherever the model can be."""
        first = self.stages[0]
        return first.calls[0] if len(self.stages) == 1 and first.loop is None else None

    @property
    def noun(self) -> str:
        """What people call it."""
        return "pipeline" if self.only is None else "model"
