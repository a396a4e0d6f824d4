"""What a part of a cut computes: runs of ONNX files, once or repeatedly, each on values that others made.

`steps` asks for one run after the other and is sent what it made, so that whoever runs the files decides how:
one after the other in this process (`run_program`), or together with those of other requests.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CallEntry, CutEntry, LoopEntry, PartEntry, StageEntry
from splitc.common.errors import BundleError
from splitc.common.values import Array, Value

ReadArray = Callable[[str], Array]
"""From the name of a .npy file of the bundle to what it holds; called once for each loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """One run of an ONNX file, for somebody to do.

    Attributes:
        feeds: by the file's inputs; where a part is one model, there may be more than it takes.
        outputs: the file's outputs that are wanted; None for all.
    """

    file: str
    feeds: dict[str, Value]
    outputs: tuple[str, ...] | None


Steps = Generator[Call, Mapping[str, Value], dict[str, Value]]
"""Yields calls, is sent their outputs by the file's names, and returns the values that are wanted."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage, and what must be kept after each of its calls: in all iterations but the last, and in that."""

    entry: StageEntry
    kept: tuple[frozenset[str], ...]
    kept_at_last: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Program:
    """What is run in which order, and which values are needed when.

    Attributes:
        file: of a part that is one model; it takes and makes values of its own names.
        needs: the values that it must be given; None where the file alone knows.
        makes: the values that are wanted of it; None where the file alone knows.
    """

    file: str | None
    stages: tuple[_Stage, ...]
    needs: frozenset[str] | None
    makes: tuple[str, ...] | None


def part_program(cut: CutEntry, part: PartEntry, outputs: Iterable[str]) -> Program:
    """The program of *part*, one of the two parts of *cut*; *outputs* are those of the whole model."""
    if part.stages is None:
        return Program(part.file, (), None, None)
    return stages_program(part.stages, _wanted(cut, part, outputs))


def stages_program(stages: Sequence[StageEntry], wanted: Iterable[str]) -> Program:
    """The program that runs *stages* in turn, and makes the values *wanted*.

    Every input and output of a file that counts must be named in its entry.
    """
    makes = tuple(dict.fromkeys(wanted))
    live = frozenset(makes)
    planned: list[_Stage] = []
    for stage in reversed(stages):
        planned.insert(0, _planned(stage, live))
        live = _needed_before(stage, live)
    return Program(None, tuple(planned), live, makes)


def made_by(part: PartEntry) -> frozenset[str]:
    """Every value that the stages of *part* make; nothing is known of a part that is one model."""
    return _made(call for stage in part.stages or () for call in stage.calls)


def steps(program: Program, values: Mapping[str, Value], array: ReadArray) -> Steps:
    """Run *program* on *values*: see `Steps`. A value is let go as soon as nothing will read it.

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
    """Run *program* on *values*, each call by *run*, which returns its outputs by the file's names.

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
    """Run one stage; returns what is alive after it."""
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
        if not wanted:  # what it makes, only an iteration of the other part needs
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
            f"the stage '{entry.name}' reads '{name}', which nothing gives it; compile the bundle again"
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
    """What *part* makes for others: the boundary, and outputs.

    An output that a loop carries is made by both parts of a cut inside that loop: the tail's is the final one.
    """
    made = made_by(part)
    if part is cut.tail:
        return [name for name in outputs if name in made]
    later = made_by(cut.tail) if cut.tail is not None else frozenset()
    crossing = [entry.name for entry in cut.boundary if entry.name in made]
    return [*crossing, *(name for name in outputs if name in made and name not in later)]


# --- which values are needed when ---


def _planned(stage: StageEntry, after: frozenset[str]) -> _Stage:
    """What to keep after each call of *stage*, if *after* is needed after it."""
    again = _needed(stage.calls, after) - _rowed(stage)
    return _Stage(stage, _kept(stage.calls, again), _kept(stage.calls, after))


def _needed_before(stage: StageEntry, after: frozenset[str]) -> frozenset[str]:
    """What *stage* must find, if *after* is needed after it; any iteration needs the same of the one before."""
    needed = _needed(stage.calls, after) - _rowed(stage)
    if stage.loop is not None and stage.loop.first == 0:
        needed = (needed - stage.loop.carry.keys()) | frozenset(stage.loop.carry.values())
    return needed


def _rowed(stage: StageEntry) -> frozenset[str]:
    return frozenset(stage.loop.each if stage.loop is not None else ())


def _kept(calls: Sequence[CallEntry], after: frozenset[str]) -> tuple[frozenset[str], ...]:
    return tuple(_needed(calls[position + 1 :], after) for position in range(len(calls)))


def _needed(calls: Sequence[CallEntry], after: frozenset[str]) -> frozenset[str]:
    """The values that *calls*, and whoever needs *after*, take from before."""
    live = after
    for call in reversed(calls):
        live = (live - frozenset(call.outputs.values())) | frozenset(call.inputs.values())
    return live


def _made(calls: Iterable[CallEntry]) -> frozenset[str]:
    return frozenset(value for call in calls for value in call.outputs.values())


def read_array(bundle: Bundle, file: str) -> Array:
    """Read the values of each iteration from *file* of *bundle*.

    Raises:
        BundleError: it holds no array.
    """
    try:
        array: Array = np.load(bundle.path(file), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{bundle.path(file)}: holds no array; compile the bundle again") from error
    return array
