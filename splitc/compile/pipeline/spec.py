"""A pipeline as its TOML file describes it: stages in order, each one model or a loop over several.

`load.py` reads the models and checks that the description fits them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from splitc.common.errors import ModelError
from splitc.common.parse import parse_toml
from splitc.common.records import RecordError, decode

DESCRIPTION = ".toml"
"""How the names of descriptions end."""

# Names of stages become names of files.
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One run of a model.

    Attributes:
        model: path of the ONNX file, relative to the TOML file.
        inputs: from the model's inputs to the values that they take; one that is not listed takes its namesake.
        outputs: from the model's outputs to the values that they make, likewise.
    """

    model: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A model that runs once, or one or more that run *times* times.

    Attributes:
        model, inputs, outputs: the only step, in place of `step`.
        carry: from values that an iteration hands to the next one to those that they begin as.
        each: from values to arrays whose row i is the value in iteration i: "file.npy", or "file.npz:key".
    """

    name: str
    model: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    carry: dict[str, str] = field(default_factory=dict)
    each: dict[str, str] = field(default_factory=dict)
    step: tuple[StepSpec, ...] = ()

    def __post_init__(self) -> None:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError(*mistakes)

    @property
    def steps(self) -> tuple[StepSpec, ...]:
        """What runs, in order; each time, if it runs repeatedly."""
        return self.step or (StepSpec(self.model or "", self.inputs, self.outputs),)

    def _mistakes(self) -> Iterator[str]:
        if not _NAME.fullmatch(self.name):
            yield f"name {self.name!r} must consist of letters, digits, '_', '-' and '.', and must not begin with '-' or '.'"
        if (self.model is None) == (not self.step):
            yield f"stage '{self.name}' needs either a model or [[stage.step]]"
        elif self.step and (self.inputs or self.outputs):
            yield f"stage '{self.name}' has steps; put inputs and outputs into the steps"
        if self.times is not None and self.times < 1:
            yield f"times must be at least 1, found {self.times}"
        elif self.times is not None and not self.carry:
            yield (
                f"stage '{self.name}' is repeated, but no value passes from one iteration to the next; "
                'add carry = { value = "its first value" }'
            )
        elif self.times is None and (self.carry or self.each):
            yield f"stage '{self.name}' has carry or each, but not times; add times = the number of iterations"
        elif self.times is None and len(self.step) > 1:
            yield f"stage '{self.name}' runs once, but has several steps; make each step a stage of its own"


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """The whole description.

    Attributes:
        outputs: the values that the pipeline returns.
        inputs: the values that it takes; None for all that no stage makes.
    """

    name: str
    outputs: tuple[str, ...]
    stage: tuple[StageSpec, ...]
    inputs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} must consist of letters, digits, '_', '-' and '.', and must not begin with '-' or '.'"
            )
        if not self.stage:
            raise ValueError("there is no [[stage]]")
        if not self.outputs:
            raise ValueError("outputs must name at least one value")
        for what, names in (
            ("stage", [stage.name for stage in self.stage]),
            ("output", self.outputs),
            ("input", self.inputs or ()),
        ):
            twice = next((name for name in names if list(names).count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"there are two {what}s called '{twice}'; rename one")


def read_spec(path: Path) -> PipelineSpec:
    """Read the description in the file *path*, but none of its models.

    Raises:
        ModelError: it cannot be read, is not TOML, or does not describe a pipeline.
    """
    try:
        table = parse_toml(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a TOML file: {error}") from error
    try:
        return decode(PipelineSpec, table, str(path))
    except RecordError as error:
        raise ModelError(f"{error}") from error
