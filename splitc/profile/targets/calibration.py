"""Correct the predictions for a machine with a few runs on it.

The time on a machine differs from the prediction by one factor for the whole machine and one factor for each
kind of work. Before any run, the logarithms of these factors have a normal distribution around zero, as wide
as the factors differed between the machines of the fit. A run gives the observation
log(measured / predicted) = whole + sum of share x term + noise, where the shares are those of the predicted
time. The distribution after the run is again normal (linear regression with a Gaussian prior): kinds of work
that the run contains are rescaled, and the others stay as uncertain as before.
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

_FAR_OFF = 10.0  # a run this many times faster or slower than predicted gets a note


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """A model that ran on the device.

    Attributes:
        model: its name, for messages.
        sha256: of the model.
        work: the work of each unit.
        seconds: the time of each unit; None if only the whole run was timed.
    """

    model: str
    sha256: str
    threads: int
    work: tuple[tuple[Work, ...], ...]
    seconds: tuple[float, ...] | None
    whole_s: float


@dataclass(frozen=True, slots=True)
class UsedRun:
    """A run that a calibration was made from; `predicted_s` is the prediction without calibration."""

    model: str
    sha256: str
    threads: int
    predicted_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrections of the predictions for a target, computed from runs on it.

    Attributes:
        basis: digest of the description and coefficients that it corrects.
        log_scale: logarithms of the correction factors: of the whole machine, then of each term.
        covariance: of `log_scale`.
        notes: messages for the user about the runs, one sentence each.
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
    """Normal distribution of the logarithms of the correction factors: of the whole machine, then of each term.

    Attributes:
        log_scale: the mean.
        noise: standard deviation of log(measured / predicted) of one run around its expected value.
    """

    log_scale: Array
    covariance: Array
    noise: float

    def scale(self) -> Array:
        """Return the correction factor of each term, in the order of `TERMS`."""
        return np.asarray(np.exp(self.log_scale[0] + self.log_scale[1:]))

    def deviation(self, shares: Array) -> float:
        """Return the standard deviation of log(measured / predicted) for a model.

        Args:
            shares: the share of each term in its predicted time, in the order of `TERMS`.
        """
        towards = np.concatenate([[1.0], shares])
        return math.sqrt(towards @ self.covariance @ towards + self.noise**2)

    def after(self, shares: Array, log_ratio: float) -> "Belief":
        """Return the distribution after one more run.

        Args:
            shares: the share of each term in the predicted time.
            log_ratio: log(measured / predicted without calibration).
        """
        towards = np.concatenate([[1.0], shares])
        spread = self.covariance @ towards
        gain = spread / (towards @ spread + self.noise**2)
        return Belief(
            self.log_scale + gain * (log_ratio - towards @ self.log_scale),
            self.covariance - np.outer(gain, spread),
            self.noise,
        )


def belief(on: Machine, calibration: Calibration | None = None) -> Belief:
    """Return the distribution of a machine's correction factors: from its calibration, else from the fit.

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
            f"the calibration of '{on.target}' was made for another description of this target; "
            f"run `splitc calibrate {on.target}` again"
        )
    return Belief(np.array(calibration.log_scale), np.array(calibration.covariance), errors.model.value)


def basis(on: Machine) -> str:
    """Return the SHA-256 of the description and coefficients that predictions for *on* are made from."""
    return json_sha256([encode(on.descriptor), encode(on.coefficients)])


def joined(older: Sequence[CalibrationRun], newer: Sequence[CalibrationRun]) -> tuple[CalibrationRun, ...]:
    """Return the runs of both; a newer run replaces an older one of the same model and thread count."""
    runs = {(run.sha256, run.threads): run for run in older}
    return tuple((runs | {(run.sha256, run.threads): run for run in newer}).values())


def calibrate(target: Target, runs: Sequence[CalibrationRun]) -> Calibration:
    """Return the calibration of *target* from *runs*.

    Raises:
        ProfileError: there are no runs, or one has no times, work or positive total.
        TargetError: the target has no descriptor or no thread count.
    """
    if not runs:
        raise ProfileError(
            f"there are no runs to calibrate '{target.name}' with; record one with `splitc profile`"
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
    """Return pairs of shares and log ratio: one for each kind of unit if units were timed, else one for the run.

    The kind of a unit is the term with the largest predicted time.
    """
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
        raise ProfileError(f"the run of '{run.model}' has times that are not positive; record it again")
    if not run.work:
        raise ProfileError(
            f"the run of '{run.model}' lacks the work of its units; record it with `splitc profile`"
        )
    if run.seconds is not None and (len(run.seconds) != len(run.work) or not any(run.seconds)):
        raise ProfileError(f"the run of '{run.model}' lacks times of some units; record it again")


def _notes(run: UsedRun, target: Target) -> list[str]:
    ratio = run.measured_s / run.predicted_s
    if 1 / _FAR_OFF < ratio < _FAR_OFF:
        return []
    how = f"{ratio:.3g} times slower" if ratio > 1 else f"{1 / ratio:.3g} times faster"
    start = f"'{run.model}' ran {how} than predicted for '{target.name}'"
    return [f"{start}; check that it ran on this device, and that the device was otherwise idle"]


def _device_deviation(on: Machine, errors: Errors) -> float:
    core = on.coefficients.core(on.cores[0].core)
    if core is None:
        return errors.unknown_core.value
    return (errors.known_core if core.machines else errors.known_family).value
