"""Describe where a build on this machine would take the times of a target from."""

import math

import numpy as np

from splitc.common.errors import TargetError
from splitc.common.formatting import format_source, plural
from splitc.profile.store import Store
from splitc.profile.targets.calibration import belief
from splitc.profile.targets.coefficients import TERMS
from splitc.profile.targets.description import Target
from splitc.profile.targets.roofline import machine


def times_here(target: Target, store: Store) -> str:
    """Return where the times of *target* would come from, such as "predicted, 0.6x to 1.7x or wider".

    A prediction comes with its interval: measured over predicted time.
    """
    kept = store.kept(target.name)
    other = _without_profile(target, store)
    return f"from {plural(kept, 'kept profile')}, else {other}" if kept else other


def _without_profile(target: Target, store: Store) -> str:
    if target.machine == "this":
        return "measured here"
    if target.descriptor is None:
        return "needs a recorded profile"
    runs, _ = store.runs(target.name)
    if runs:
        return format_source("predicted", len(runs))
    try:
        low, high = least_interval(target)
    except TargetError as error:
        return f"cannot be predicted: {error}"
    return f"predicted, {low:.2g}x to {high:.2g}x or wider"


def least_interval(target: Target) -> tuple[float, float]:
    """Return (low, high) as `prediction_interval` does, for a model whose cost differs least between machines.

    Raises:
        TargetError: the target cannot be predicted.
    """
    on = machine(target)
    errors = on.coefficients.errors
    deviation = belief(on).deviation(np.zeros(len(TERMS)))
    return math.exp(-errors.low.value * deviation), math.exp(errors.high.value * deviation)
