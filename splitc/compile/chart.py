"""Geometry of the report's chart: latency of every shipped cut against the uplink rate, both logarithmic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median

from splitc.bundle.decide import Conditions, Decision, decide, latency_s
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.common.axis import Axis
from splitc.compile.verdict import Verdict

# In the drawing's own units. Networks are named in rows above the plot.
_LEFT, _RIGHT, _HEIGHT, _ROW = 76.0, 852.0, 330.0, 19.0
_LABEL_GAP, _LETTER = 17.0, 7.5
_STEPS = 260
# Curves far above the best would squeeze what matters: they leave the plot at this multiple of it.
_HEADROOM = 10.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One cut at every uplink rate; its label may have to stand away from where it ends."""

    cut: CutEntry
    points: str
    end_y: float
    label_y: float


@dataclass(frozen=True, slots=True)
class FastestRun:
    """A stretch of uplink rates, from `start` to `end`, on which one cut is the fastest."""

    cut: CutEntry
    points: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A network: its usual uplink rate, and the latency decided on at its own round trip and downlink."""

    verdict: Verdict
    x: float
    y: float
    row_y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, all conditions but the uplink rate being `conditions`.

    Attributes:
        band: outline of where the fastest cut may really lie, or "" if nothing is predicted.
        outside: networks whose usual uplink rate is not on the axis.
        target_y: where the target latency is, if there is one on the axis.
    """

    conditions: Conditions
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    runs: tuple[FastestRun, ...]
    marks: tuple[Mark, ...]
    outside: tuple[str, ...]
    band: str
    target_y: float | None


def chart(manifest: Manifest, verdicts: Sequence[Verdict]) -> Chart:
    """Lay out the chart over the box's uplink rates; a single rate is widened to a factor of two each way."""
    low, high = manifest.box.uplink_bps
    x = Axis(low, high, _LEFT, _RIGHT) if low < high else Axis(low / 2, high * 2, _LEFT, _RIGHT)
    usual = _usual(manifest, verdicts)
    samples = [replace(usual, uplink_bps=x.low * (x.high / x.low) ** (i / _STEPS)) for i in range(_STEPS + 1)]
    best = [decide(manifest, sample) for sample in samples]
    band = _band(manifest, samples)
    inside = [item for item in verdicts if x.low <= item.decision.conditions.uplink_bps <= x.high]
    rows = _rows([(x.place(item.decision.conditions.uplink_bps), item.network) for item in inside])
    y = _latencies(manifest, best, inside, band, _ROW * (1 + max(rows, default=0)))
    target_s = next((item.sla_s for item in verdicts if item.sla_s is not None), None)
    return Chart(
        conditions=usual,
        x=x,
        y=y,
        curves=_curves(manifest.cuts, samples, x, y),
        runs=_runs(best, x, y),
        marks=tuple(_mark(item, row, x, y) for item, row in zip(inside, rows, strict=True)),
        outside=tuple(item.network for item in verdicts if item not in inside),
        band=_outline(band, samples, x, y),
        target_y=y.place(target_s) if target_s is not None and y.low <= target_s <= y.high else None,
    )


def _usual(manifest: Manifest, verdicts: Sequence[Verdict]) -> Conditions:
    """What the chart holds fixed: the median of the networks, or the middle of the box if there are none."""
    box = manifest.box
    seen = [item.decision.conditions for item in verdicts]
    return Conditions(
        uplink_bps=box.uplink_bps[0],
        downlink_bps=median([item.downlink_bps for item in seen] or [math.sqrt(math.prod(box.downlink_bps))]),
        rtt_s=median([item.rtt_s for item in seen] or [math.sqrt(math.prod(box.rtt_s))]),
    )


def _band(manifest: Manifest, samples: Sequence[Conditions]) -> list[tuple[float, float]]:
    """Best latency if the machines are as fast, and as slow, as their predictions allow."""
    if "predicted" not in (manifest.targets.device.source, manifest.targets.cloud.source):
        return []
    device, cloud = manifest.targets.device.interval, manifest.targets.cloud.interval
    fast, slow = zip(device or (1.0, 1.0), cloud or (1.0, 1.0), strict=True)

    def best(sample: Conditions, slowdowns: tuple[float, float]) -> float:
        scaled = replace(sample, device_slowdown=slowdowns[0], cloud_slowdown=slowdowns[1])
        return decide(manifest, scaled).latency_s

    return [(best(sample, fast), best(sample, slow)) for sample in samples]


def _latencies(
    manifest: Manifest,
    best: Sequence[Decision],
    inside: Sequence[Verdict],
    band: Sequence[tuple[float, float]],
    top: float,
) -> Axis:
    """The axis of latencies: all of the envelope, its band and the networks, and as much else as is useful."""
    shown = [item.latency_s for item in best] + [item.decision.latency_s for item in inside]
    shown += [latency for pair in band for latency in pair]
    slowest = max(latency_s(cut, item.conditions) for cut in manifest.cuts for item in best)
    high = max(*shown, min(slowest, _HEADROOM * max(item.latency_s for item in best)))
    return Axis(min(shown) / 1.3, high * 1.1, top + _HEIGHT, top)


def _curves(cuts: Sequence[CutEntry], samples: Sequence[Conditions], x: Axis, y: Axis) -> tuple[Curve, ...]:
    ends = [max(y.end, y.place(latency_s(cut, samples[-1]))) for cut in cuts]
    labels = _spread(ends, y.end, y.start)
    lines = [_points(x, y, [(s.uplink_bps, latency_s(cut, s)) for s in samples]) for cut in cuts]
    return tuple(Curve(*parts) for parts in zip(cuts, lines, ends, labels, strict=True))


def _runs(best: Sequence[Decision], x: Axis, y: Axis) -> tuple[FastestRun, ...]:
    """The envelope by winning cut; each run reaches to the first sample of the next one."""
    runs = []
    for _, group in groupby(range(len(best)), key=lambda i: best[i].cut.id):
        numbers = list(group)
        cut, over = best[numbers[0]].cut, [item.conditions for item in best[numbers[0] : numbers[-1] + 2]]
        points = _points(x, y, [(s.uplink_bps, latency_s(cut, s)) for s in over])
        runs.append(FastestRun(cut, points, x.place(over[0].uplink_bps), x.place(over[-1].uplink_bps)))
    return tuple(runs)


def _mark(item: Verdict, row: int, x: Axis, y: Axis) -> Mark:
    decision = item.decision
    at = x.place(decision.conditions.uplink_bps)
    return Mark(item, at, y.place(decision.latency_s), y.end - _ROW * row - 7)


def _outline(band: Sequence[tuple[float, float]], samples: Sequence[Conditions], x: Axis, y: Axis) -> str:
    rates = [sample.uplink_bps for sample in samples]
    fast = [(rate, pair[0]) for rate, pair in zip(rates, band, strict=False)]
    slow = [(rate, pair[1]) for rate, pair in zip(rates, band, strict=False)]
    return _points(x, y, [*fast, *reversed(slow)])


def _points(x: Axis, y: Axis, pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x.place(rate):.1f},{y.place(latency):.1f}" for rate, latency in pairs)


def _rows(labels: Sequence[tuple[float, str]]) -> list[int]:
    """The lowest row for each centred label in which it touches no other."""
    taken: list[float] = []
    rows = [0] * len(labels)
    for i in sorted(range(len(labels)), key=lambda i: labels[i]):
        middle, half = labels[i][0], len(labels[i][1]) * _LETTER / 2 + 4
        rows[i] = next((row for row, end in enumerate(taken) if end <= middle - half), len(taken))
        taken[rows[i] : rows[i] + 1] = [middle + half]
    return rows


def _spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Places as near as possible to the wanted ones, in their order, that keep a gap."""
    gap = min(_LABEL_GAP, (high - low) / len(wanted))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = list(wanted)
    for before, after in pairwise(order):
        places[after] = max(places[after], places[before] + gap)
    floor = high
    for i in reversed(order):
        places[i] = min(places[i], floor)
        floor = places[i] - gap
    return places
