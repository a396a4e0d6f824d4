"""What the cuts of a pipeline are compared with: all of it, loops shortened as they are in the cuts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CallEntry, LoopEntry, StageEntry
from splitc.bundle.program import Array, ReadArray, read_array
from splitc.compile.pipeline.stages import Pipeline

# Enough for a hand-over inside, with more than one iteration on either side.
_ITERATIONS = 3


@dataclass(frozen=True, slots=True)
class Files:
    """Where the ONNX file lies that a stage names, and what reads an array that a loop names."""

    path: Callable[[str], Path]
    array: ReadArray


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a pipeline.

    Attributes:
        stages: with all iterations.
        outputs: what it returns.
    """

    stages: tuple[StageEntry, ...]
    outputs: tuple[str, ...]
    files: Files

    def times(self) -> dict[str, int]:
        """How often each stage is repeated that is."""
        return {stage.name: stage.loop.end for stage in self.stages if stage.loop is not None}

    def notes(self) -> tuple[str, ...]:
        """What is left out when cuts are compared with it, a sentence each."""
        return tuple(
            f"cuts were verified with {_ITERATIONS} of the {times} iterations of stage '{stage}', "
            "a hand-over inside the loop being kept inside"
            for stage, times in self.times().items()
            if times > _ITERATIONS
        )


def whole_as_given(pipeline: Pipeline) -> Whole:
    """The models and arrays of *pipeline* as they were given; files are called by the digests of models."""
    paths = {model.sha256: model.path for model in pipeline.models}
    stages: list[StageEntry] = []
    arrays: dict[str, Array] = {}
    for stage in pipeline.stages:
        loop = None
        if stage.loop is not None:
            each = {value: f"{stage.name}:{value}" for value in stage.loop.each}
            arrays |= {file: stage.loop.each[value] for value, file in each.items()}
            loop = LoopEntry(0, stage.loop.times, dict(stage.loop.carry), each)
        calls = (CallEntry(call.model.sha256, dict(call.inputs), dict(call.outputs)) for call in stage.calls)
        stages.append(StageEntry(stage.name, tuple(calls), loop))
    return Whole(tuple(stages), pipeline.outputs, Files(paths.__getitem__, arrays.__getitem__))


def whole_in_bundle(bundle: Bundle, stages: tuple[StageEntry, ...]) -> Whole:
    """What *stages*, those of the only part of a cut of *bundle*, compute."""
    outputs = tuple(entry.name for entry in bundle.manifest.model.outputs)
    return Whole(stages, outputs, files_of(bundle))


def files_of(bundle: Bundle) -> Files:
    """Those of a finished bundle."""
    return Files(bundle.path, lambda file: read_array(bundle, file))


def files_in(folder: Path) -> Files:
    """Those of a bundle that is being written."""
    return Files(
        lambda file: folder / file, lambda file: np.asarray(np.load(folder / file, allow_pickle=False))
    )


def handover(iteration: int, times: int) -> int:
    """Where a hand-over before *iteration* of *times* is in a loop that is shortened: inside, if it is inside."""
    if times <= _ITERATIONS:
        return iteration
    if iteration in (0, times):
        return min(iteration, _ITERATIONS)
    return min(max(round(iteration * _ITERATIONS / times), 1), _ITERATIONS - 1)


def shortened(stages: Iterable[StageEntry], times: Mapping[str, int]) -> tuple[StageEntry, ...]:
    """*stages* with every loop of more than a few *times*, given by the name of its stage, made shorter."""

    def short(stage: StageEntry) -> StageEntry:
        if stage.loop is None:
            return stage
        first, end = (handover(at, times.get(stage.name, 0)) for at in (stage.loop.first, stage.loop.end))
        return replace(stage, loop=replace(stage.loop, first=first, end=end))

    return tuple(map(short, stages))
