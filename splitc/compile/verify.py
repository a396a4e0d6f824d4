"""Run every head and tail together and compare with the whole model; time the parts while at it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from onnxruntime import InferenceSession

from splitc.bundle.manifest import CheckEntry
from splitc.common import ort
from splitc.common.errors import ModelError, VerifyError
from splitc.common.values import SAME, Difference, Feeds, Value, difference

# Rounding differs where fusion and memory layout do; errors seen are a hundred times smaller than these.
_TOLERANCES = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
# Where floats are rounded to 8 bits, the last digit of a float decides about whole steps of 1/127.
_QUANTIZED_TOLERANCE = 2e-2
_QUANTIZERS = {"QuantizeLinear", "DynamicQuantizeLinear"}
# Two runs of one model that differ by more than this are not the same computation.
REPEATABLE = 1e-6
_TIMED_S = 0.5
_MIN_RUNS, _MAX_RUNS = 5, 30


@dataclass(frozen=True, slots=True)
class Pair:
    """A cut on disk: its id, the bundle's folder, and the files of its parts (None where there is none)."""

    id: str
    folder: Path
    head: str | None
    tail: str | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Runs of one part on this machine: their median, and 5th and 95th percentile as multiples of it."""

    median_s: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome for one pair: None where it was not run or not timed."""

    check: CheckEntry | None
    head: Timing | None
    tail: Timing | None


@dataclass(frozen=True, slots=True)
class Reference:
    """What the whole model makes of each set of inputs."""

    outputs: tuple[str, ...]
    feeds: tuple[Feeds, ...]
    wanted: tuple[Mapping[str, Value], ...]
    tolerance: float


def reference(model: Path, feeds: Sequence[Feeds], allowed: float, threads: int) -> Reference | None:
    """Run the whole model; None if it gives another result each time, so that nothing can be compared.

    *allowed* is the tolerance of every comparison with it.

    Raises:
        ModelError: the model cannot be run on *feeds*.
    """
    opened = ort.session(model, threads=threads)
    outputs = tuple(output.name for output in opened.get_outputs())
    with ort.blaming_inputs():
        wanted = tuple(ort.run(opened, feed) for feed in feeds)
    again = ort.run(opened, feeds[0])
    if any(difference(again[name], wanted[0][name]).max_rel > REPEATABLE for name in outputs):
        return None
    return Reference(outputs, tuple(feeds), wanted, allowed)


def tolerance(dtypes: Iterable[str | None], operators: Iterable[str] = ()) -> float:
    """Largest error, relative to the scale of an output, that rounding can explain.

    The coarsest of the *dtypes* inside the model decides, and whether *operators* of it round to integers.
    """
    floats = max((_TOLERANCES[name] for name in dtypes if name in _TOLERANCES), default=0.0)
    return max(floats, _QUANTIZED_TOLERANCE) if _QUANTIZERS.intersection(operators) else floats


def verify(pair: Pair, against: Reference, threads: int, *, timed: bool) -> Verified:
    """Compose the pair on every set of inputs of *against* and compare all outputs.

    Raises:
        VerifyError: a part does not load or run, or an output differs; names the cut and the tensor.
    """
    try:
        parts = [ort.session(pair.folder / file, threads=threads) for file in (pair.head, pair.tail) if file]
        worst = SAME
        for feeds, wanted in zip(against.feeds, against.wanted, strict=True):
            values: dict[str, Value] = dict(feeds)
            for part in parts:
                values |= ort.run(part, _inputs(part, values))
            worst = worst | compare(pair.id, values, wanted, against.tolerance)
        timings = _time([(part, _inputs(part, values)) for part in parts]) if timed else (None,) * len(parts)
    except ModelError as error:
        raise VerifyError(f"cut {pair.id} does not work: {error}") from error
    check = CheckEntry(len(against.feeds), worst.max_abs, worst.max_rel, against.tolerance)
    return Verified(check, timings[0] if pair.head else None, timings[-1] if pair.tail else None)


def _inputs(part: InferenceSession, values: Mapping[str, Value]) -> dict[str, Value]:
    return {item.name: values[item.name] for item in part.get_inputs()}


def compare(cut: str, values: Mapping[str, Value], wanted: Mapping[str, Value], allowed: float) -> Difference:
    """The largest difference of any output of the pair called *cut* from what the whole model made.

    Raises:
        VerifyError: an output is missing, or differs by more than is *allowed*; names the cut and the output.
    """
    worst = SAME
    for name, want in wanted.items():
        if name not in values:
            raise VerifyError(f"cut {cut}: neither part makes the output '{name}'")
        found = difference(values[name], want)
        if not found.max_rel <= allowed:
            raise VerifyError(
                f"cut {cut}: output '{name}' differs from the whole model by {found.max_rel:.1e} of its scale, "
                f"allowed is {allowed:.0e}"
            )
        worst = worst | found
    return worst


def _time(parts: Sequence[tuple[InferenceSession, Feeds]]) -> tuple[Timing, ...]:
    """Time 5 to 30 runs of each part, one part after the other as in the whole model.

    A part that runs over and over alone finds in the caches what it would not find there in use.
    """
    samples: list[tuple[float, ...]] = []
    began = time.perf_counter()
    for turn in range(1 + _MAX_RUNS):
        taken = tuple(_run_s(part, feeds) for part, feeds in parts)
        samples += [taken] if turn else []  # the first is slower
        if len(samples) >= _MIN_RUNS and time.perf_counter() - began > _TIMED_S:
            break
    return tuple(_timing(runs) for runs in zip(*samples, strict=True))


def _run_s(part: InferenceSession, feeds: Feeds) -> float:
    start = time.perf_counter()
    ort.run(part, feeds)
    return time.perf_counter() - start


def _timing(runs: Sequence[float]) -> Timing:
    middle = median(runs)
    low, high = np.percentile(runs, [5, 95]) / middle
    return Timing(middle, (float(low), float(high)))
