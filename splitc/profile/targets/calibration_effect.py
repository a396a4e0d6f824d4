"""Read calibration runs from profiles of a target, and show what the calibration changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from statistics import median

from splitc.common.errors import ProfileError
from splitc.model.graph import Graph, Unit
from splitc.profile.document import Measurement, Profile, read_profile
from splitc.profile.targets.calibration import Calibration, CalibrationRun, belief
from splitc.profile.targets.coefficients import TERMS
from splitc.profile.targets.description import Target
from splitc.profile.targets.predict import predict, prediction_interval
from splitc.profile.targets.roofline import machine

_WORTH_SAYING = 0.02


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted seconds of a whole model; nine of ten real runs are expected within `interval` times `seconds`."""

    seconds: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a calibration changes for one of the models that it was made from."""

    model: str
    threads: int
    measured_s: float
    before: Prediction
    after: Prediction


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The factor by which a calibration changes the predicted time of a kind of work."""

    term: str
    scale: float


def read_runs(path: Path, target: Target) -> tuple[CalibrationRun, ...]:
    """Return the runs in the profile *path*.

    If the profile has several thread counts and one is the target's, the others are left out.

    Raises:
        ProfileError: it is not a profile, lacks the work of its units, or is of another runtime.
    """
    profile = read_profile(path)
    if profile.units is None:
        raise ProfileError(
            f"{path}: lacks the work of the model's units; add it with `splitc profile MODEL --target "
            f"{target.name} --import {path} -o FILE`"
        )
    if (profile.runtime, profile.provider) != (target.runtime, target.provider):
        raise ProfileError(
            f"{path}: was recorded with {profile.runtime} ({profile.provider}), but target '{target.name}' uses "
            f"{target.runtime} ({target.provider}); record a profile with the runtime and provider of the target"
        )
    # The work of the units is that at the sizes of the first measurement.
    usable = [item for item in profile.measurements if item.dims == profile.measurements[0].dims]
    own = [item for item in usable if item.threads == target.threads]
    return tuple(_run(path, profile, item) for item in own or usable)


def _run(path: Path, profile: Profile, measurement: Measurement) -> CalibrationRun:
    assert profile.units is not None, "read_runs checked this"
    index = profile.measurements.index(measurement)
    seconds = [value for unit in profile.units if (value := unit.seconds[index]) is not None]
    return CalibrationRun(
        model=path.name.removesuffix(".json").removesuffix(".profile"),
        sha256=profile.model,
        threads=measurement.threads,
        work=tuple(unit.work for unit in profile.units),
        seconds=tuple(seconds) if len(seconds) == len(profile.units) else None,
        whole_s=median(measurement.whole_s),
    )


def effects(target: Target, runs: Sequence[CalibrationRun], calibration: Calibration) -> list[Effect]:
    """Return what *calibration* changes for the models of *runs*."""
    return [
        Effect(
            run.model,
            run.threads,
            run.whole_s,
            _predicted(run, target, None),
            _predicted(run, target, calibration),
        )
        for run in runs
    ]


def rescaled(target: Target, calibration: Calibration) -> list[Rescaled]:
    """Return the kinds of work whose predicted time changes notably, the largest change first."""
    scales = belief(machine(target), calibration).scale()
    found = [Rescaled(term, float(scale)) for term, scale in zip(TERMS, scales, strict=True)]
    changed = [item for item in found if abs(item.scale - 1) > _WORTH_SAYING]
    return sorted(changed, key=lambda item: -max(item.scale, 1 / item.scale))


def _predicted(run: CalibrationRun, target: Target, calibration: Calibration | None) -> Prediction:
    units = tuple(Unit(str(number), (), (), (), (), work) for number, work in enumerate(run.work))
    graph, at = Graph(units, (), ()), replace(target, threads=run.threads)
    return Prediction(fsum(predict(graph, at, calibration)), prediction_interval(graph, at, calibration))
