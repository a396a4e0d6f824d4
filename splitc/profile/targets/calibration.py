"""Correct the predictions for a machine by a few runs on it.

Each machine is off by a factor of its own, and by one for each kind of work. What is believed of their
logarithms before any run is how far they differed between the machines of the fit: a normal distribution
around zero. A run tells log(measured / predicted) = whole + sum of share x term + noise, the shares being
those of the predicted time. So what is believed afterwards is again normal (linear regression with a
Gaussian prior): work that a run informs is rescaled, the rest stays as uncertain as it was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitc.common.digests import json_sha256
from splitc.common.errors import ProfileError, TargetError
from splitc.common.records import encode
from splitc.model.graph import Work
from splitc.profile.targets.coefficients import TERMS, Errors
from splitc.profile.targets.description import Target
from splitc.profile.targets.roofline import Machine, costs, machine, unit_seconds

Array = NDArray[np.float64]

_FAR_OFF = 10.0  # a run so many times faster or slower than predicted is worth a word


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """A model that ran on the device.

    Attributes:
        model: its name, for people.
        work: what each unit has to do.
        seconds: how long each unit took; None if only the whole run was timed.
    """

    model: str
    sha256: str
    threads: int
    work: tuple[tuple[Work, ...], ...]
    seconds: tuple[float, ...] | None
    whole_s: float


@dataclass(frozen=True, slots=True)
class UsedRun:
    """A run that a calibration rests on; `predicted_s` is what was predicted before any."""

    model: str
    sha256: str
    threads: int
    predicted_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What runs on a target have shown of it.

    Attributes:
        basis: digest of the description and coefficients that it corrects.
        log_scale: logarithms of the corrections, of the whole and of each term.
        covariance: how sure they are.
        notes: what a person should know of the runs, a sentence each.
    """

    target: str
    basis: str
    runs: tuple[UsedRun, ...]
    log_scale: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = 1 + len(TERMS)
        if {len(self.log_scale), len(self.covariance), *map(len, self.covariance)} != {size}:
            raise ValueError(f"log_scale and covariance must be of size {size}")


@dataclass(frozen=True, slots=True)
class Belief:
    """Logarithms of the corrections: mean and covariance, of the whole machine and of each term."""

    log_scale: Array
    covariance: Array
    noise: float

    def scale(self) -> Array:
        """Return the correction of each term, in the order of `TERMS`."""
        return np.asarray(np.exp(self.log_scale[0] + self.log_scale[1:]))

    def deviation(self, shares: Array) -> float:
        """Return the standard deviation of log(measured / predicted) of a model with these *shares*."""
        towards = np.concatenate([[1.0], shares])
        return math.sqrt(towards @ self.covariance @ towards + self.noise**2)

    def after(self, shares: Array, log_ratio: float) -> "Belief":
        """Return what is believed after one more observation of log(measured / predicted before any)."""
        towards = np.concatenate([[1.0], shares])
        spread = self.covariance @ towards
        gain = spread / (towards @ spread + self.noise**2)
        return Belief(
            self.log_scale + gain * (log_ratio - towards @ self.log_scale),
            self.covariance - np.outer(gain, spread),
            self.noise,
        )


def belief(on: Machine, calibration: Calibration | None = None) -> Belief:
    """Return what is believed of a machine: from its calibration, or from the machines of the fit.

    Raises:
        TargetError: the calibration was made with another description or other coefficients.
    """
    errors = on.coefficients.errors
    if calibration is None:
        deviations = [_device_deviation(on, errors)]
        deviations += [getattr(on.coefficients.terms, name).spread for name in TERMS]
        return Belief(np.zeros(len(deviations)), np.diag(np.square(deviations)), errors.model.value)
    if calibration.basis != basis(on):
        raise TargetError(
            f"the calibration of '{on.target}' was made with another description of it; "
            f"run `splitc calibrate {on.target}` again"
        )
    return Belief(np.array(calibration.log_scale), np.array(calibration.covariance), errors.model.value)


def basis(on: Machine) -> str:
    """Return the SHA-256 of what a prediction for *on* rests on: its description and coefficients."""
    return json_sha256([encode(on.descriptor), encode(on.coefficients)])


def joined(older: Sequence[CalibrationRun], newer: Sequence[CalibrationRun]) -> tuple[CalibrationRun, ...]:
    """Return the runs of both; a newer one takes the place of an older one of the same model and threads."""
    runs = {(run.sha256, run.threads): run for run in older}
    return tuple((runs | {(run.sha256, run.threads): run for run in newer}).values())


def calibrate(target: Target, runs: Sequence[CalibrationRun]) -> Calibration:
    """Return what *runs* show of *target*.

    Raises:
        ProfileError: no runs, or one without a time above zero.
        TargetError: the target has nothing to predict from.
    """
    if not runs:
        raise ProfileError(
            f"there is no run to calibrate '{target.name}' with; record one with `splitc profile`"
        )
    known = belief(machine(target, runs[0].threads))
    used, notes = [], []
    for run in runs:
        _check(run)
        per_amount = costs(machine(target, run.threads))
        predicted = np.array([unit_seconds(work, per_amount) for work in run.work])
        for shares, log_ratio in _observations(run, predicted):
            known = known.after(shares, log_ratio)
        used.append(UsedRun(run.model, run.sha256, run.threads, float(predicted.sum()), run.whole_s))
        notes += _notes(used[-1], target)
    return Calibration(
        target=target.name,
        basis=basis(machine(target, runs[0].threads)),
        runs=tuple(used),
        log_scale=tuple(map(float, known.log_scale)),
        covariance=tuple(tuple(map(float, row)) for row in known.covariance),
        notes=tuple(notes),
    )


def _observations(run: CalibrationRun, predicted: Array) -> list[tuple[Array, float]]:
    """Return (shares, log ratio) of the run; of its units by what they mostly do, where they were timed."""
    if run.seconds is None:
        groups = [(predicted.sum(axis=0), run.whole_s)]
    else:
        measured, kinds = np.array(run.seconds), predicted.argmax(axis=1)
        groups = [
            (predicted[kinds == kind].sum(axis=0), float(measured[kinds == kind].sum()))
            for kind in sorted(set(kinds.tolist()))
        ]
    return [(part / part.sum(), math.log(took / part.sum())) for part, took in groups if took > 0]


def _check(run: CalibrationRun) -> None:
    times = [run.whole_s, *(run.seconds or ())]
    if not all(math.isfinite(value) and value >= 0 for value in times) or run.whole_s == 0:
        raise ProfileError(f"the run of '{run.model}' has a time that is not above zero; record it again")
    if not run.work:
        raise ProfileError(
            f"the run of '{run.model}' does not say what its units do; record it with `splitc profile`"
        )
    if run.seconds is not None and (len(run.seconds) != len(run.work) or not any(run.seconds)):
        raise ProfileError(f"the run of '{run.model}' has no time for each of its units; record it again")


def _notes(run: UsedRun, target: Target) -> list[str]:
    ratio = run.measured_s / run.predicted_s
    if 1 / _FAR_OFF < ratio < _FAR_OFF:
        return []
    how = f"{ratio:.3g} times slower" if ratio > 1 else f"{1 / ratio:.3g} times faster"
    return [f"'{run.model}' ran {how} than predicted for '{target.name}': was it this device, at rest?"]


def _device_deviation(on: Machine, errors: Errors) -> float:
    core = on.coefficients.core(on.cores[0].core)
    if core is None:
        return errors.unknown_core.value
    return (errors.known_core if core.machines else errors.known_family).value
