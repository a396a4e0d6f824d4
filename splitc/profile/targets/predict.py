"""Predict the time of each unit on a machine that is not at hand, and how far that may be off.

`terms.py` has the formula; `benchmarks/fit_targets.py` fits its coefficients on measured tables, and
docs/prediction.md says how good they are. A prediction is never a measurement: use it together with
`prediction_interval`. Runs on the device, however few, tighten it: `calibrate.py`.
"""

import math

import numpy as np

from splitc.model.graph import Graph
from splitc.profile.targets.calibration import Belief, Calibration, belief
from splitc.profile.targets.coefficients import TERMS
from splitc.profile.targets.description import Target
from splitc.profile.targets.roofline import Machine, costs, machine, unit_seconds


def predict(graph: Graph, target: Target, calibration: Calibration | None = None) -> tuple[float, ...]:
    """Return the predicted seconds of each unit of *graph* on *target*, at the target's thread count.

    Raises:
        TargetError: the target has no descriptor or thread count to predict from, or its calibration
            was made with another description.
    """
    on = machine(target)
    return tuple(sum(seconds) for seconds in _seconds(graph, on, belief(on, calibration)))


def prediction_interval(
    graph: Graph, target: Target, calibration: Calibration | None = None
) -> tuple[float, float]:
    """Return (low, high): in nine of ten cases, the measured time is between these multiples of the predicted.

    It is as wide as predictions were off on machines held out of the fit: less for a machine whose
    cores were in the fit, more where the time goes to work whose cost differs much between machines,
    and most for operators of which only the bytes are known.

    Raises:
        TargetError: as for `predict`.
    """
    on = machine(target)
    known = belief(on, calibration)
    spent = np.array([*_seconds(graph, on, known), np.zeros(len(TERMS))]).sum(axis=0)
    total = float(spent.sum())
    shares = spent / total if total else spent
    deviation = known.deviation(shares)
    errors = on.coefficients.errors
    low, high = (
        (errors.low, errors.high) if calibration is None else (errors.calibrated_low, errors.calibrated_high)
    )
    return math.exp(-low.value * deviation), math.exp(high.value * deviation)


def _seconds(graph: Graph, on: Machine, known: Belief) -> list[tuple[float, ...]]:
    """Return the seconds of each term of each unit, as believed."""
    per_amount = (np.array(costs(on)) * known.scale()).tolist()
    return [unit_seconds(unit.work, per_amount) for unit in graph.units]
