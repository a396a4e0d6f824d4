"""Geometry of the plots of a simulation's report."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from splitc.common.axis import Axis
from splitc.common.formatting import format_seconds
from splitc.simulate.engine import SimulationOutcome
from splitc.simulate.job import End
from splitc.simulate.links import Array

# In units of the drawing.
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 700.0, 12.0, 232.0
_SHARES = 200  # points of a distribution
_SHOWN = (0.005, 0.995)  # of each distribution: the rest would take up most of the axis
_STEPS = (1.0, 2.0, 5.0, 10.0)
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A round value on an axis, and its position."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """One policy; `number` gives its colour."""

    policy: str
    number: int
    points: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over common axes, from (left, top) to (right, bottom)."""

    title: str
    below: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[PolicyLine, ...]
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM


def latencies(outcomes: Sequence[SimulationOutcome]) -> Plot | None:
    """The share of jobs that were finished after a time; None if no job was served."""
    quantiles = np.linspace(*_SHOWN, _SHARES)
    curves = [
        (number, np.quantile(served, quantiles))
        for number, outcome in enumerate(outcomes)
        if len(served := outcome.latency_s[outcome.end != End.REFUSED])
    ]
    if not curves:
        return None
    low, high = min(values[0] for _, values in curves), max(values[-1] for _, values in curves)
    x = Axis(max(low, 1e-6) / 1.05, high * 1.05, _LEFT, _RIGHT)
    place_y, y = _linear(1.0, lambda share: f"{100 * share:g} %")
    return Plot(
        "Jobs that were ready in time",
        "latency, input ready to result ready",
        tuple(Tick(x.place(value), format_seconds(value)) for value in x.ticks()),
        y,
        tuple(
            _line(outcomes, number, [x.place(value) for value in values], [place_y(q) for q in quantiles])
            for number, values in curves
        ),
    )


def loads(outcomes: Sequence[SimulationOutcome], horizon_s: float) -> Plot:
    """The share of busy workers over time."""
    return _over_time("Load of the cloud", [item.load for item in outcomes], outcomes, horizon_s, _percent)


def prices(outcomes: Sequence[SimulationOutcome], horizon_s: float) -> Plot | None:
    """The price over time; None if it never rose."""
    found = [item.price for item in outcomes]
    if not any(float(values.max(initial=0.0)) > 0 for values in found):
        return None
    levels = [np.log10(1 + values) for values in found]
    title = "Price of a cloud second, in seconds of latency"
    return _over_time(title, levels, outcomes, horizon_s, lambda level: f"{10**level - 1:.3g}")


def _over_time(
    title: str,
    found: Sequence[Array],
    outcomes: Sequence[SimulationOutcome],
    horizon_s: float,
    text: Callable[[float], str],
) -> Plot:
    place_y, y = _linear(max(float(values.max(initial=0.0)) for values in found) or 1.0, text)
    steps = _round_values(horizon_s)
    scale = (_RIGHT - _LEFT) / horizon_s
    lines = []
    for number, values in enumerate(found):
        middles = (np.arange(len(values)) + 0.5) * horizon_s / max(len(values), 1)
        xs = [_LEFT + scale * time for time in middles.tolist()]
        lines.append(_line(outcomes, number, xs, [place_y(value) for value in values.tolist()]))
    ticks = tuple(Tick(_LEFT + scale * value, format_seconds(value)) for value in steps)
    return Plot(title, "time", ticks, y, tuple(lines))


def _line(
    outcomes: Sequence[SimulationOutcome], number: int, xs: Sequence[float], ys: Sequence[float]
) -> PolicyLine:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return PolicyLine(outcomes[number].policy, number, points)


def _linear(
    highest: float, text: Callable[[float], str]
) -> tuple[Callable[[float], float], tuple[Tick, ...]]:
    """A vertical axis from 0 to *highest*, and its round values."""

    def place(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / highest

    return place, tuple(Tick(place(value), text(value)) for value in _round_values(highest))


def _round_values(highest: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(highest / _TICKS))
    step = next(power * item for item in _STEPS if highest / (power * item) <= _TICKS)
    return [step * number for number in range(int(highest / step + 1e-9) + 1)]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
