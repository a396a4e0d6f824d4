"""Predict the time of each unit on a machine without measuring there, and the interval of the real time.

`roofline.py` has the formula; `benchmarks/fit_targets.py` fits its coefficients to published measurements, and
docs/prediction.md describes their errors. Always use a prediction together with `prediction_interval`. Even a
few runs on the device make the interval narrower: see `calibration.py`.
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
        TargetError: the target has no descriptor or thread count, or its calibration was made for another
            description.
    """
    on = machine(target)
    return tuple(math.fsum(seconds) for seconds in _seconds(graph, on, belief(on, calibration)))


def prediction_interval(
    graph: Graph, target: Target, calibration: Calibration | None = None
) -> tuple[float, float]:
    """Return (low, high): nine of ten measured times are between these multiples of the predicted time.

    The interval is as wide as the errors on machines held out of the fit: narrower for a machine whose cores
    were in the fit, wider if the time is spent on work whose cost varies much between machines, and widest
    for operators of unknown class.

    Raises:
        TargetError: see `predict`.
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
    """Return the corrected seconds of each term of each unit."""
    per_amount = (np.array(costs(on)) * known.scale()).tolist()
    return [unit_seconds(unit.work, per_amount) for unit in graph.units]
