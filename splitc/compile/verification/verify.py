"""Run every cut, head then tail, by the interpreter that apps and servers use, and compare it with the whole."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxruntime import InferenceSession

from splitc.bundle.manifest import BoundaryEntry, CheckEntry, CutEntry, PartEntry, TensorEntry, part_files
from splitc.bundle.program import Call, Program, ReadArray, run_program
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError, VerifyError
from splitc.common.values import SAME, Difference, Feeds, Value, difference
from splitc.compile.verification.judgement import Allowed, Evidence, Judged, in_words, judge
from splitc.compile.verification.whole import Files, Whole, short_program
from splitc.model.analysis import Progress

# Rounding differs where fusion and memory layout do; errors seen are a hundred times smaller than these.
_TOLERANCES = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
# Where floats are rounded to 8 bits, the last digit of a float decides about whole steps of 1/127.
_QUANTIZED_TOLERANCE = 2e-2
_QUANTIZERS = {"QuantizeLinear", "DynamicQuantizeLinear"}
# Two runs of one model that differ by more than this are not the same computation.
_REPEATABLE = 1e-6

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the whole makes of each set of inputs, how far a cut may be off, and what explains that one is further off."""

    whole: Whole
    feeds: tuple[Feeds, ...]
    wanted: tuple[Values, ...]
    allowed: Allowed
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class VerifiedCut:
    """A cut that agrees with the whole.

    Attributes:
        calls: the first call of each of its files, with which they can be timed.
        unusual: the outputs that differ by more than the types explain, by name.
    """

    cut: CutEntry
    check: CheckEntry
    calls: tuple[Call, ...]
    unusual: Mapping[str, Judged]


@dataclass(frozen=True, slots=True)
class WrongCut:
    """A cut that does not agree with the whole, and why, in a clause."""

    cut: CutEntry
    why: str


def tolerance(dtypes: Iterable[str | None], operators: Iterable[str] = ()) -> float:
    """Largest error, relative to the scale of an output, that rounding can explain.

    The coarsest of the *dtypes* inside the model decides, and whether *operators* of it round to integers.
    """
    floats = max((_TOLERANCES[name] for name in dtypes if name in _TOLERANCES), default=0.0)
    return max(floats, _QUANTIZED_TOLERANCE) if _QUANTIZERS.intersection(operators) else floats


def reference(whole: Whole, feeds: Sequence[Feeds], allowed: Allowed, threads: int) -> Reference | None:
    """Run *whole* on each of *feeds*; None if it gives another result each time, so nothing can be compared.

    Outputs that depend on random operators are left out.

    Args:
        allowed: by every comparison with it.

    Raises:
        ModelError: a model cannot be run on what it is given.
        BundleError: an array is not what it should be.
    """
    runner = Runner(whole.files.path, threads)
    with ort.blaming_inputs():
        wanted = tuple(run_program(whole.program, values, runner, whole.files.array) for values in feeds)
    if whole.random.issuperset(whole.outputs):
        return None
    wanted = tuple(
        {name: value for name, value in made.items() if name not in whole.random} for made in wanted
    )
    # Operators of other makers may be random, too. In the same sessions: a new one may begin its numbers anew.
    again = run_program(whole.program, feeds[0], runner, whole.files.array)
    if any(difference(again[name], value).max_rel > _REPEATABLE for name, value in wanted[0].items()):
        return None

    def plain() -> tuple[Values, ...]:
        runner = Runner(whole.files.path, threads, level=ort.UNCHANGED)
        return tuple(run_program(whole.program, values, runner, whole.files.array) for values in feeds)

    return Reference(whole, tuple(feeds), wanted, allowed, Evidence(whole, wanted, plain))


def verify_cuts(
    cuts: Sequence[CutEntry], files: Files, against: Reference, runner: "Runner", progress: Progress
) -> Iterator[VerifiedCut]:
    """Do the same as `tried_cuts`, up to the first cut that is wrong.

    Raises:
        VerifyError: a cut does not work, or does not compute what the whole does; names the cut and the output.
    """
    for found in tried_cuts(cuts, files, against, runner, progress):
        if isinstance(found, WrongCut):
            raise VerifyError(f"cut {found.cut.id}: {found.why}")
        yield found


def tried_cuts(
    cuts: Sequence[CutEntry], files: Files, against: Reference, runner: "Runner", progress: Progress
) -> Iterator[VerifiedCut | WrongCut]:
    """Run one of *cuts* after the other on every set of inputs of *against*, and compare all outputs.

    Args:
        files: those that the cuts name.
        runner: runs them; the sessions of a cut stay open until the next one is asked for.
    """
    uses = Counter(file for cut in cuts for file in _files(cut))
    runner.shared.update(file for file, count in uses.items() if count > 1)
    for number, cut in enumerate(cuts, start=1):
        progress(f"Verifying cut {cut.id}, {number} of {len(cuts)}")
        try:
            yield _tried(cut, files, against, runner)
        except (ModelError, BundleError) as error:
            yield WrongCut(cut, f"it does not work: {error}")
        runner.forget(_files(cut) - runner.shared)


def _tried(cut: CutEntry, files: Files, against: Reference, runner: "Runner") -> VerifiedCut | WrongCut:
    """Run and judge one cut.

    Raises:
        ModelError: a file cannot be opened or run.
        BundleError: a value or an array is not what it should be.
    """
    composed = _Composed(cut, against.whole, files.array)
    calls: dict[str, Call] = {}

    def run(call: Call) -> Values:
        calls.setdefault(call.file, call)
        return runner(call)

    found = dict.fromkeys(against.wanted[0], SAME)
    for values, want in zip(against.feeds, against.wanted, strict=True):
        made = composed.run(values, run)
        missing = next((name for name in want if name not in made), None)
        if missing is not None:
            return WrongCut(cut, f"neither part makes the output '{missing}'")
        found = {name: found[name] | difference(made[name], value) for name, value in want.items()}
    judged = {name: judge(name, item, against.allowed, against.evidence) for name, item in found.items()}
    wrong = next((name for name, item in judged.items() if not item.is_right), None)
    if wrong is not None:
        return WrongCut(cut, f"output '{wrong}' {in_words(judged[wrong])}")
    unusual = {name: item for name, item in judged.items() if not item.is_usual}
    return VerifiedCut(cut, _check(against, judged.values()), tuple(calls.values()), unusual)


def _check(against: Reference, judged: Iterable[Judged]) -> CheckEntry:
    """The largest differences, and the largest that were allowed."""
    worst, allowed = SAME, against.allowed.relative
    for item in judged:
        steps = item.found.max_abs if math.isfinite(item.found.max_abs) else 0.0
        worst = worst | Difference(steps, item.found.max_rel if item.relative is not None else 0.0)
        allowed = max(allowed, item.relative or 0.0)
    return CheckEntry(len(against.feeds), worst.max_abs, worst.max_rel, allowed)


@dataclass(slots=True)
class Runner:
    """Sessions that stay open, and what files that several cuts share made of the same inputs.

    A hand-over one iteration later runs the same models on the same values: that is not done again.

    Attributes:
        path: where a file lies.
        threads: of each session; 0 for as many as there are cores.
        level: how far ONNX Runtime may rewrite the files.
        shared: the files whose results are kept.
    """

    path: Callable[[str], Path]
    threads: int
    level: ort.Level = ort.FASTEST
    shared: set[str] = field(default_factory=set)
    sessions: dict[str, InferenceSession] = field(default_factory=dict)
    made: dict[tuple[str, str], dict[str, Value]] = field(default_factory=dict)

    def __call__(self, call: Call) -> dict[str, Value]:
        """Run *call*, or return what it made before."""
        if call.file not in self.shared:
            return self.run(call)
        key = (call.file, _digest(call))
        if key not in self.made:
            self.made[key] = self.run(call)
        return self.made[key]

    def run(self, call: Call) -> dict[str, Value]:
        """Run *call*.

        Raises:
            ModelError: the file cannot be opened, or not run on these values.
        """
        session, feeds = self.ready(call)
        return ort.run(session, feeds, call.outputs)

    def ready(self, call: Call) -> tuple[InferenceSession, Feeds]:
        """The session of the file of *call*, and those of its values that the file takes."""
        if call.file not in self.sessions:
            self.sessions[call.file] = ort.session(
                self.path(call.file), threads=self.threads, level=self.level
            )
        session = self.sessions[call.file]
        names = [item.name for item in session.get_inputs()]
        return session, {name: call.feeds[name] for name in names if name in call.feeds}

    def forget(self, files: Iterable[str]) -> None:
        """Close the sessions of *files*."""
        for file in files:
            self.sessions.pop(file, None)


class _Composed:
    """The two parts of a cut, loops shortened; each gets only what the cut says that it gets."""

    def __init__(self, cut: CutEntry, whole: Whole, array: ReadArray) -> None:
        self._cut = cut
        self._array = array
        self._head = _program(cut, cut.head, whole)
        self._tail = _program(cut, cut.tail, whole)

    def run(self, feeds: Feeds, run: Callable[[Call], Values]) -> Values:
        """All that the two parts make of *feeds*, and *feeds*."""
        cut, values = self._cut, dict(feeds)
        if self._head is not None:
            given = self._only(feeds, cut.sent) if cut.is_cloud_first else feeds
            values |= run_program(self._head, given, run, self._array)
        if self._tail is not None:
            local = dict(feeds) if cut.is_cloud_first else {}
            given = {**local, **self._only(values, cut.boundary)}
            values |= run_program(self._tail, given, run, self._array)
        return values

    def _only(self, values: Values, entries: Iterable[TensorEntry | BoundaryEntry]) -> Values:
        missing = next((entry.name for entry in entries if entry.name not in values), None)
        if missing is not None:
            raise BundleError(f"nothing makes '{missing}', which it says crosses")
        return {entry.name: values[entry.name] for entry in entries}


def _program(cut: CutEntry, part: PartEntry | None, whole: Whole) -> Program | None:
    return short_program(cut, part, whole.outputs, whole.times) if part is not None else None


def _digest(call: Call) -> str:
    return values_digest(call.feeds, repr(call.outputs))


def values_digest(feeds: Feeds, more: str = "") -> str:
    """A digest of the values *feeds* with their names, and of *more*."""
    sha = hashlib.sha256(more.encode())
    for name, value in sorted(feeds.items()):
        sha.update(f"{name} {value.dtype} {value.shape} ".encode())
        sha.update(value.tobytes() if value.dtype.kind != "O" else repr(value.tolist()).encode())
    return sha.hexdigest()


def _files(cut: CutEntry) -> set[str]:
    return {file for part in (cut.head, cut.tail) if part is not None for file in part_files(part)}
