"""Run every cut of a pipeline, head program then tail program, by the interpreter that apps and servers use."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxruntime import InferenceSession

from splitc.bundle.manifest import (
    BoundaryEntry,
    CheckEntry,
    CutEntry,
    PartEntry,
    TensorEntry,
    part_files,
)
from splitc.bundle.program import Call, Program, ReadArray, part_program, run_program, stages_program
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError, VerifyError
from splitc.common.ort import usable_cores
from splitc.common.values import SAME, Feeds, Value, difference
from splitc.compile.verify import REPEATABLE, compare
from splitc.compile.whole import Files, Whole, shortened
from splitc.model.analysis import Progress

Values = Mapping[str, Value]


def results(whole: Whole, feeds: Sequence[Feeds]) -> list[Values] | None:
    """What *whole*, its loops shortened, makes of each of *feeds*; None if that is something else each time.

    Raises:
        ModelError: a model cannot be run on what it is given.
        BundleError: an array is not what it should be.
    """
    program = stages_program(shortened(whole.stages, whole.times()), whole.outputs)
    runner = _Runner({}, whole.files.path, set())
    with ort.blaming_inputs():
        first, *others = (run_program(program, values, runner, whole.files.array) for values in feeds)
    # In the same sessions: a new one may begin its random numbers anew.
    again = run_program(program, feeds[0], runner, whole.files.array)
    if any(difference(again[name], first[name]).max_rel > REPEATABLE for name in first):
        return None
    return [first, *others]


def compare_cuts(
    cuts: Sequence[CutEntry],
    files: Files,
    whole: Whole,
    feeds: Sequence[Feeds],
    wanted: Sequence[Values],
    allowed: float,
    progress: Progress,
) -> tuple[CheckEntry, ...]:
    """Run every one of *cuts* on *feeds*, and compare with what *whole* made of them, which is *wanted*.

    Args:
        files: those that the cuts name.
        allowed: the tolerance of every comparison.

    Raises:
        VerifyError: a cut does not work, or does not compute what the whole pipeline does.
    """
    uses = Counter(file for cut in cuts for file in _files(cut))
    shared = {file for file, count in uses.items() if count > 1}
    runner = _Runner({}, files.path, shared)
    checks = []
    for number, cut in enumerate(cuts, start=1):
        progress(f"Verifying cut {cut.id}, {number} of {len(cuts)}")
        composed = _Composed(cut, whole, files.array)
        worst = SAME
        try:
            for values, want in zip(feeds, wanted, strict=True):
                worst = worst | compare(cut.id, composed.run(values, runner), want, allowed)
        except (ModelError, BundleError) as error:
            raise VerifyError(f"cut {cut.id} does not work: {error}") from error
        runner.forget(_files(cut) - shared)
        checks.append(CheckEntry(len(feeds), worst.max_abs, worst.max_rel, allowed))
    return tuple(checks)


class _Composed:
    """The two parts of a cut, loops shortened; each gets only what the cut says that it gets."""

    def __init__(self, cut: CutEntry, whole: Whole, array: ReadArray) -> None:
        self._cut = cut
        self._array = array
        times = whole.times()
        short = replace(cut, head=_short(cut.head, times), tail=_short(cut.tail, times))
        self._head = _program(short, short.head, whole.outputs)
        self._tail = _program(short, short.tail, whole.outputs)

    def run(self, feeds: Feeds, runner: "_Runner") -> Values:
        """All that the two parts make of *feeds*."""
        cut, values = self._cut, dict(feeds)
        if self._head is not None:
            given = self._only(feeds, cut.sent) if cut.is_cloud_first else feeds
            values |= run_program(self._head, given, runner, self._array)
        if self._tail is not None:
            local = dict(feeds) if cut.is_cloud_first else {}
            given = {**local, **self._only(values, cut.boundary)}
            values |= run_program(self._tail, given, runner, self._array)
        return values

    def _only(self, values: Values, entries: Iterable[TensorEntry | BoundaryEntry]) -> Values:
        missing = next((entry.name for entry in entries if entry.name not in values), None)
        if missing is not None:
            raise VerifyError(f"cut {self._cut.id}: nothing makes '{missing}', which it says crosses")
        return {entry.name: values[entry.name] for entry in entries}


@dataclass(slots=True)
class _Runner:
    """Sessions that stay open, and what files that several cuts share made of the same inputs.

    A hand-over one iteration later runs the same models on the same values: that is not done again.
    """

    sessions: dict[str, InferenceSession]
    path: Callable[[str], Path]
    shared: set[str]
    made: dict[tuple[str, str], dict[str, Value]] = field(default_factory=dict)

    def __call__(self, call: Call) -> dict[str, Value]:
        if call.file not in self.shared:
            return self._run(call)
        key = (call.file, _digest(call))
        if key not in self.made:
            self.made[key] = self._run(call)
        return self.made[key]

    def forget(self, files: Iterable[str]) -> None:
        for file in files:
            self.sessions.pop(file, None)

    def _run(self, call: Call) -> dict[str, Value]:
        if call.file not in self.sessions:
            self.sessions[call.file] = ort.session(self.path(call.file), threads=usable_cores())
        return ort.run(self.sessions[call.file], call.feeds, call.outputs)


def _digest(call: Call) -> str:
    sha = hashlib.sha256(repr(call.outputs).encode())
    for name, value in sorted(call.feeds.items()):
        sha.update(f"{name} {value.dtype} {value.shape} ".encode())
        sha.update(value.tobytes() if value.dtype.kind != "O" else repr(value.tolist()).encode())
    return sha.hexdigest()


def _program(cut: CutEntry, part: PartEntry | None, outputs: Iterable[str]) -> Program | None:
    return part_program(cut, part, outputs) if part is not None else None


def _short(part: PartEntry | None, times: Mapping[str, int]) -> PartEntry | None:
    if part is None or part.stages is None:
        return part
    return replace(part, stages=shortened(part.stages, times))


def _files(cut: CutEntry) -> set[str]:
    return {file for part in (cut.head, cut.tail) if part is not None for file in part_files(part)}
