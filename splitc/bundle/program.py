"""Run one part of a cut: its ONNX files in order, once or repeatedly, each with the outputs of earlier runs.

The generator `steps` yields one run after the other and receives its outputs, so its caller decides how to run the
files: one after the other in this process (`run_program`), or together with the runs of other requests.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CallEntry, CutEntry, LoopEntry, PartEntry, StageEntry
from splitc.common.arrays import read_arrays
from splitc.common.errors import BundleError
from splitc.common.values import Array, Value

ReadArray = Callable[[str], Array]
"""Returns the array in a .npy file of the bundle, by the file's name; called once for each loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """One run of an ONNX file that the caller must do.

    Attributes:
        feeds: values by the names of the file's inputs; if a part is one model, there may be more values than inputs.
        outputs: names of the outputs to return; None for all.
    """

    file: str
    feeds: dict[str, Value]
    outputs: tuple[str, ...] | None


Steps = Generator[Call, Mapping[str, Value], dict[str, Value]]
"""Yields calls, receives their outputs by the names in the file, and returns the wanted values."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage, and the values to keep after each of its calls: before the last iteration, and in the last one."""

    entry: StageEntry
    kept: tuple[frozenset[str], ...]
    kept_at_last: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Program:
    """The order of the runs, and the values needed at each step.

    Attributes:
        file: the ONNX file if the part is one model; its inputs and outputs keep their names.
        needs: the values that the program must be given; None if only the file defines them.
        makes: the values that the program returns; None if only the file defines them.
    """

    file: str | None
    stages: tuple[_Stage, ...]
    needs: frozenset[str] | None
    makes: tuple[str, ...] | None


def part_program(cut: CutEntry, part: PartEntry, outputs: Iterable[str]) -> Program:
    """Return the program of *part*, one of the two parts of *cut*; *outputs* are those of the whole model."""
    if part.stages is None:
        return Program(part.file, (), None, None)
    return stages_program(part.stages, _wanted(cut, part, outputs))


def stages_program(stages: Sequence[StageEntry], wanted: Iterable[str]) -> Program:
    """Return the program that runs *stages* in order and returns the values *wanted*.

    The entry of each call must name every input of the file and every output that is used.
    """
    makes = tuple(dict.fromkeys(wanted))
    live = frozenset(makes)
    planned: list[_Stage] = []
    for stage in reversed(stages):
        planned.insert(0, _planned(stage, live))
        live = _needed_before(stage, live)
    return Program(None, tuple(planned), live, makes)


def made_by(part: PartEntry) -> frozenset[str]:
    """Return the names of all values that the stages of *part* make; empty if the part is one model."""
    return _made(call for stage in part.stages or () for call in stage.calls)


def steps(program: Program, values: Mapping[str, Value], array: ReadArray) -> Steps:
    """Run *program* on *values*; see `Steps`. A value is released after its last use.

    Raises:
        BundleError: a value is missing, or an array has too few rows.
    """
    if program.file is not None:
        made = yield Call(program.file, dict(values), None)
        return dict(made)
    wanted = program.makes or ()
    alive = _only(values, (program.needs or frozenset()).union(wanted))
    del values
    for stage in program.stages:
        alive = yield from _stage(stage, alive, array)
    return _only(alive, wanted)


def run_program(
    program: Program,
    values: Mapping[str, Value],
    run: Callable[[Call], Mapping[str, Value]],
    array: ReadArray,
) -> dict[str, Value]:
    """Run *program* on *values*; *run* does each call and returns its outputs by the names in the file.

    Raises:
        BundleError: see `steps`. Errors of *run* pass through.
    """
    running = steps(program, values, array)
    del values
    try:
        call = next(running)
        while True:
            call = running.send(run(call))
    except StopIteration as done:
        made: dict[str, Value] = done.value
        return made


def _stage(stage: _Stage, alive: dict[str, Value], array: ReadArray) -> Steps:
    """Run one stage; return the values that are still needed after it."""
    entry, loop = stage.entry, stage.entry.loop
    if loop is None:
        return (yield from _calls(entry, stage.kept_at_last, alive))
    rows = {value: _rows(array, file, entry, loop) for value, file in loop.each.items()}
    if loop.first == 0:
        begun = {value: _value(alive, begin, entry) for value, begin in loop.carry.items()}
        alive |= begun
        del begun
    for iteration in range(loop.first, loop.end):
        alive |= {value: np.asarray(row[iteration]) for value, row in rows.items()}
        kept = stage.kept if iteration + 1 < loop.end else stage.kept_at_last
        alive = yield from _calls(entry, kept, alive)
    return alive


def _calls(entry: StageEntry, kept: Sequence[frozenset[str]], alive: dict[str, Value]) -> Steps:
    for call, keep in zip(entry.calls, kept, strict=True):
        wanted = tuple(name for name, value in call.outputs.items() if value in keep)
        if not wanted:  # only an iteration in the other part needs the outputs
            continue
        feeds = {name: _value(alive, value, entry) for name, value in call.inputs.items()}
        alive = _only(alive, keep - {call.outputs[name] for name in wanted})
        made = yield Call(call.file, feeds, wanted)
        del feeds
        alive |= {call.outputs[name]: made[name] for name in wanted}
        del made
    return alive


def _value(alive: Mapping[str, Value], name: str, entry: StageEntry) -> Value:
    if name not in alive:
        raise BundleError(
            f"the stage '{entry.name}' reads '{name}', which has no value; compile the bundle again"
        )
    return alive[name]


def _rows(array: ReadArray, file: str, entry: StageEntry, loop: LoopEntry) -> Array:
    rows = array(file)
    if not rows.ndim or len(rows) < loop.end:
        raise BundleError(
            f"'{file}' has too few rows for the {loop.end} iterations of the stage '{entry.name}'; "
            "compile the bundle again"
        )
    return rows


def _only(values: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    return {name: values[name] for name in names if name in values}


def _wanted(cut: CutEntry, part: PartEntry, outputs: Iterable[str]) -> list[str]:
    """Return the values that *part* returns: tensors of the boundary, and model outputs.

    If a cut is inside a loop, both parts make an output that the loop carries; the tail makes its final value.
    """
    made = made_by(part)
    if part is cut.tail:
        return [name for name in outputs if name in made]
    later = made_by(cut.tail) if cut.tail is not None else frozenset()
    crossing = [entry.name for entry in cut.boundary if entry.name in made]
    return [*crossing, *(name for name in outputs if name in made and name not in later)]


# --- which values are needed when ---


def _planned(stage: StageEntry, after: frozenset[str]) -> _Stage:
    """Find the values to keep after each call of *stage*, if *after* is needed after the stage."""
    again = _needed(stage.calls, after) - _rowed(stage)
    return _Stage(stage, _kept(stage.calls, again), _kept(stage.calls, after))


def _needed_before(stage: StageEntry, after: frozenset[str]) -> frozenset[str]:
    """Return the values that *stage* needs at its start, if *after* is needed after it.

    Every iteration needs the same values from the previous iteration.
    """
    needed = _needed(stage.calls, after) - _rowed(stage)
    if stage.loop is not None and stage.loop.first == 0:
        needed = (needed - stage.loop.carry.keys()) | frozenset(stage.loop.carry.values())
    return needed


def _rowed(stage: StageEntry) -> frozenset[str]:
    return frozenset(stage.loop.each if stage.loop is not None else ())


def _kept(calls: Sequence[CallEntry], after: frozenset[str]) -> tuple[frozenset[str], ...]:
    return tuple(_needed(calls[position + 1 :], after) for position in range(len(calls)))


def _needed(calls: Sequence[CallEntry], after: frozenset[str]) -> frozenset[str]:
    """Return the values that must exist before *calls*, if *after* is needed after them."""
    live = after
    for call in reversed(calls):
        live = (live - frozenset(call.outputs.values())) | frozenset(call.inputs.values())
    return live


def _made(calls: Iterable[CallEntry]) -> frozenset[str]:
    return frozenset(value for call in calls for value in call.outputs.values())


def read_array(bundle: Bundle, file: str) -> Array:
    """Read the values of each iteration from *file* of *bundle*.

    Raises:
        BundleError: the file does not contain an array.
    """
    try:
        array = read_arrays(bundle.path(file))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{bundle.path(file)}: does not contain an array; compile the bundle again"
        ) from error
    if isinstance(array, dict):
        raise BundleError(f"{bundle.path(file)}: contains several arrays; compile the bundle again")
    return array
