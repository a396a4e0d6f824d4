"""What cuts are compared with: all of a model or pipeline, loops shortened as they are in the cuts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CallEntry, CutEntry, LoopEntry, PartEntry, StageEntry
from splitc.bundle.program import Program, ReadArray, part_program, read_array, stages_program
from splitc.common.values import Array
from splitc.compile.pipeline.stages import Pipeline
from splitc.model.model import load
from splitc.model.randomness import random_outputs

# Enough for a hand-over inside, with more than one iteration on either side.
_ITERATIONS = 3


@dataclass(frozen=True, slots=True)
class Files:
    """Finds the ONNX files that stages name, and reads the arrays that loops name."""

    path: Callable[[str], Path]
    array: ReadArray


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a model or pipeline.

    Attributes:
        program: what is run, loops shortened.
        outputs: what it returns.
        times: how often each stage is repeated that is.
        models: its ONNX files.
        random: the outputs that depend on random operators; these are not compared.
    """

    program: Program
    outputs: tuple[str, ...]
    times: Mapping[str, int]
    models: tuple[Path, ...]
    files: Files
    random: frozenset[str]

    def notes(self) -> tuple[str, ...]:
        """What a comparison with it leaves out, a sentence each."""
        left_out = tuple(
            f"output '{name}' was not compared: it depends on a random operator"
            for name in self.outputs
            if name in self.random
        )
        return left_out + tuple(
            f"cuts were verified with {_ITERATIONS} of the {times} iterations of stage '{stage}', "
            "a hand-over inside the loop stays inside"
            for stage, times in self.times.items()
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
    times = _times(stages)
    program = stages_program(shortened(stages, times), pipeline.outputs)
    files = Files(paths.__getitem__, arrays.__getitem__)
    random = {model.sha256: random_outputs(model) for model in pipeline.models}
    return Whole(
        program, pipeline.outputs, times, tuple(paths.values()), files, random_values(stages, random)
    )


def whole_in_bundle(bundle: Bundle, cut: CutEntry, part: PartEntry) -> Whole:
    """What *part*, the only one of *cut* of *bundle*, computes."""
    outputs = tuple(entry.name for entry in bundle.manifest.model.outputs)
    times = _times(part.stages or ())
    models = {call.file: bundle.path(call.file) for stage in part.program for call in stage.calls}
    program = short_program(cut, part, outputs, times)
    random = {file: random_outputs(load(path)) for file, path in models.items()}
    return Whole(
        program, outputs, times, tuple(models.values()), files_of(bundle), random_values(part.program, random)
    )


def random_values(stages: Iterable[StageEntry], random_of: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The values of *stages* that depend on random operators.

    Args:
        random_of: the outputs of each file that do so by themselves.
    """
    found: set[str] = set()
    for stage in stages:
        before = -1
        while before < len(found):  # what a loop carries may become random in a later iteration
            before = len(found)
            if stage.loop is not None:
                found |= {value for value, begin in stage.loop.carry.items() if begin in found}
            for call in stage.calls:
                every = not found.isdisjoint(call.inputs.values())
                random = random_of[call.file]
                names = call.outputs or {name: name for name in random}  # a file alone keeps its names
                found |= {value for name, value in names.items() if every or name in random}
    return frozenset(found)


def short_program(
    cut: CutEntry, part: PartEntry, outputs: Iterable[str], times: Mapping[str, int]
) -> Program:
    """The program of *part*, one of the two parts of *cut*, loops shortened as in the whole; see `Whole`."""

    def short(other: PartEntry | None) -> PartEntry | None:
        if other is None or other.stages is None:
            return other
        return replace(other, stages=shortened(other.stages, times))

    both = replace(cut, head=short(cut.head), tail=short(cut.tail))
    own = both.head if part is cut.head else both.tail
    assert own is not None, "the part is one of the two"
    return part_program(both, own, outputs)


def _times(stages: Iterable[StageEntry]) -> dict[str, int]:
    return {stage.name: stage.loop.end for stage in stages if stage.loop is not None}


def files_of(bundle: Bundle) -> Files:
    """The files of a finished bundle."""
    return Files(bundle.path, lambda file: read_array(bundle, file))


def files_in(folder: Path) -> Files:
    """The files of a bundle that is being written."""
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
