"""Calibrate a target with profiles recorded on it, and say what that changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """Seconds of a whole model, and between which multiples of them nine of ten real runs are expected."""

    seconds: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a calibration changes for one of the models that it rests on."""

    model: str
    threads: int
    measured_s: float
    before: Prediction
    after: Prediction


@dataclass(frozen=True, slots=True)
class Rescaled:
    """How many times as long as before a kind of work is expected to take."""

    term: str
    scale: float


def read_runs(path: Path, target: Target) -> tuple[CalibrationRun, ...]:
    """Return the runs that the profile in the file *path* tells of.

    If they are of several numbers of threads, and one is the target's, the others are left out.

    Raises:
        ProfileError: it is no profile, does not say what its units do, or is of another runtime.
    """
    profile = read_profile(path)
    if profile.units is None:
        raise ProfileError(
            f"{path}: does not say what the units of the model do; pass it through `splitc profile MODEL --target "
            f"{target.name} --import {path} -o FILE`"
        )
    if (profile.runtime, profile.provider) != (target.runtime, target.provider):
        raise ProfileError(
            f"{path}: was recorded with {profile.runtime} ({profile.provider}), but target '{target.name}' runs "
            f"{target.runtime} ({target.provider}): the one tells nothing of the other"
        )
    # What the units do is said at the sizes of the first measurement.
    usable = [item for item in profile.measurements if item.dims == profile.measurements[0].dims]
    own = [item for item in usable if item.threads == target.threads]
    return tuple(_run(path, profile, item) for item in own or usable)


def _run(path: Path, profile: Profile, measurement: Measurement) -> CalibrationRun:
    assert profile.units is not None, "read_runs looked"
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
    """What *calibration* changes for the models that it rests on."""
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
    """The kinds of work that are expected to take longer or shorter than before, the largest change first."""
    scales = belief(machine(target), calibration).scale()
    found = [Rescaled(term, float(scale)) for term, scale in zip(TERMS, scales, strict=True)]
    changed = [item for item in found if abs(item.scale - 1) > _WORTH_SAYING]
    return sorted(changed, key=lambda item: -max(item.scale, 1 / item.scale))


def _predicted(run: CalibrationRun, target: Target, calibration: Calibration | None) -> Prediction:
    units = tuple(Unit(str(number), (), (), (), (), work) for number, work in enumerate(run.work))
    graph, at = Graph(units, (), ()), replace(target, threads=run.threads)
    return Prediction(sum(predict(graph, at, calibration)), prediction_interval(graph, at, calibration))
