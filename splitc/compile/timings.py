"""How long the parts of cuts take on this machine: what is measured takes the place of sums over units.

Timings stay with the profiles that they belong to, so that the next build from the same profiles gets the same bytes.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from statistics import median

import numpy as np
from onnxruntime import InferenceSession

from splitc.bundle.manifest import CutEntry, PartEntry
from splitc.bundle.program import Call
from splitc.common import ort
from splitc.common.cache import Cache
from splitc.common.records import RecordError, decode, encode
from splitc.common.values import Feeds
from splitc.compile.pipeline.times import combined_interval
from splitc.compile.verification.verify import Runner

_TIMED_S = 0.5
_MIN_RUNS, _MAX_RUNS = 5, 30
# After this time two runs are enough: networks of gigabytes take seconds each.
_LONG_S = 20.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Runs on this machine: their median, and 5th and 95th percentile as multiples of it."""

    median_s: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PartTimings:
    """How long the parts of a cut took here; None for one that there is not, or that is another machine's."""

    head: Timing | None
    tail: Timing | None


@dataclass(slots=True)
class PartTimer:
    """Times the parts of cuts, each file once: several cuts may run the same.

    Attributes:
        is_device_here, is_cloud_here: whether this is the machine.
    """

    cache: Cache
    runner: Runner
    is_device_here: bool
    is_cloud_here: bool
    known: dict[str, Timing] = field(default_factory=dict)

    def timed(self, cut: CutEntry, calls: Sequence[Call], key: tuple[object, ...]) -> CutEntry:
        """*cut* with the times of those of its parts that run here, measured once for each *key*.

        Args:
            calls: one of each of its files.
        """
        try:
            timings = decode(PartTimings, self.cache.get("timings", key), "cache")
        except RecordError:
            timings = self._measured(cut, calls)
            self.cache.put("timings", key, encode(timings))
        return replace(cut, head=_with(cut.head, timings.head), tail=_with(cut.tail, timings.tail))

    def _measured(self, cut: CutEntry, calls: Sequence[Call]) -> PartTimings:
        files = set[str]()
        head = cut.head if (self.is_cloud_here if cut.is_cloud_first else self.is_device_here) else None
        tail = cut.tail if (self.is_device_here if cut.is_cloud_first else self.is_cloud_here) else None
        for part in (head, tail):
            files |= set(_runs(part)) if part is not None else set()
        if files - self.known.keys():
            # All of the cut's calls, also those of other machines: see `_time`.
            self.known |= _time([call for call in calls if call.file not in self.known], self.runner)
        return PartTimings(
            self._total(head) if head is not None else None, self._total(tail) if tail is not None else None
        )

    def _total(self, part: PartEntry) -> Timing:
        runs = _runs(part)
        parts = [(runs[file] * self.known[file].median_s, self.known[file].interval) for file in runs]
        interval = combined_interval(parts)
        assert interval is not None, "every file has one"
        return Timing(fsum(seconds for seconds, _ in parts), interval)


def _with(part: PartEntry | None, timing: Timing | None) -> PartEntry | None:
    if part is None or timing is None:
        return part
    return replace(part, latency_s=timing.median_s, interval=timing.interval)


def _runs(part: PartEntry) -> Mapping[str, int]:
    """How often *part* runs each of its ONNX files."""
    runs: dict[str, int] = {}
    for stage in part.program:
        times = stage.loop.end - stage.loop.first if stage.loop is not None else 1
        for call in stage.calls:
            runs[call.file] = runs.get(call.file, 0) + times
    return runs


def _time(calls: Sequence[Call], runner: Runner) -> dict[str, Timing]:
    """Time 5 to 30 runs of each of *calls* (fewer if they take long), one after the other as in the whole model.

    A file that runs over and over alone finds in the caches what it would not find there in use.
    """
    ready = [(*runner.ready(call), call.outputs) for call in calls]
    samples: list[tuple[float, ...]] = []
    began = time.perf_counter()
    for turn in range(1 + _MAX_RUNS):
        taken = tuple(_run_s(*item) for item in ready)
        samples += [taken] if turn else []  # the first is slower
        spent_s = time.perf_counter() - began
        if len(samples) >= (_MIN_RUNS if spent_s < _LONG_S else 2) and spent_s > _TIMED_S:
            break
    return {call.file: _timing(runs) for call, runs in zip(calls, zip(*samples, strict=True), strict=True)}


def _run_s(session: InferenceSession, feeds: Feeds, outputs: tuple[str, ...] | None) -> float:
    start = time.perf_counter()
    ort.run(session, feeds, outputs)
    return time.perf_counter() - start


def _timing(runs: Sequence[float]) -> Timing:
    middle = median(runs)
    low, high = np.percentile(runs, [5, 95]) / middle
    return Timing(middle, (float(low), float(high)))
