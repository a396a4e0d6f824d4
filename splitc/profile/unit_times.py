"""Get the time of every unit on a target from the best available source.

In order of preference: a profile that the user names, a kept profile of this model on this target, a
measurement if the target is this machine, and a prediction, corrected by the target's calibration if there is one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import fsum
from pathlib import Path
from statistics import median

from splitc.common.cache import Cache
from splitc.common.digests import json_sha256
from splitc.common.errors import ProfileError, TargetError
from splitc.common.ort import RUNTIME_VERSION, usable_cores, used_custom_ops
from splitc.common.records import encode
from splitc.model.analysis import Analysis
from splitc.model.onnx_file import digest
from splitc.model.units import Partition
from splitc.profile.attribution import fixed_s, measured_times
from splitc.profile.document import Measurement, Profile, UnitTimes, measurement_sha256, read_profile
from splitc.profile.measure.job import ProfileJob
from splitc.profile.measure.local import profile_here_once
from splitc.profile.store import KeptProfile, Store
from splitc.profile.targets.calibration import Calibration, CalibrationRun, basis, calibrate, joined
from splitc.profile.targets.description import Target
from splitc.profile.targets.predict import predict, prediction_interval
from splitc.profile.targets.roofline import machine


def unit_times(
    target: Target, recorded: Path | None, option: str, found: Analysis, cache: Cache
) -> UnitTimes:
    """Return the times of every unit on *target*: from a profile, measured here, or predicted.

    Args:
        recorded: a profile to use instead of any other source.
        option: the command line option for such a profile, for messages.

    Raises:
        ProfileError: the profile is of another model, or the measurement failed.
        TargetError: the target is not this machine and has no descriptor.
    """
    store = Store(cache.folder)
    if recorded is not None:
        profile = read_profile(recorded)
        check_model(recorded, profile, found)
        measurement = _suitable(recorded, profile, target, found)
        return _recorded(profile, measurement, target, found, store, option)
    kept, notes = kept_profile(target, found, store)
    if kept is not None:
        times = _recorded(kept.profile, kept.measurement, target, found, store, option)
        return replace(times, here=target.machine == "this", notes=(*times.notes, *notes))
    if target.machine != "this":
        times = predicted_times(target, found.partition, option, store)
        return replace(times, notes=(*times.notes, *notes))
    if not found.feeds:
        raise TargetError(
            f"{found.model.name} is too large to be profiled here; give a recorded profile with {option}"
        )
    libraries = tuple(str(item.path) for item in used_custom_ops())
    threads = (target.threads or usable_cores(),)
    job = ProfileJob(found.model, found.feeds[:1], threads, custom_ops=libraries)
    profile = profile_here_once(job, cache, lambda _: None)
    return measured_times(
        profile, profile.measurements[0], target.name, found.sources, found.partition, here=True
    )


def predicted_times(
    target: Target,
    partition: Partition,
    option: str = "--device-profile",
    store: Store = Store(None),  # noqa: B008 - a frozen value
) -> UnitTimes:
    """Predict the units' times from the descriptor of *target*.

    Args:
        option: the command line option for a recorded profile, for messages.
        store: holds the target's calibration, if there is one.

    Raises:
        ProfileError: the work of a node is unknown, because the size of a tensor that it uses is unknown.
        TargetError: the target has no descriptor or no thread count.
    """
    if partition.unsized:
        raise ProfileError(
            f"the work of node '{partition.unsized[0]}' is unknown, because the size of a tensor that it uses is "
            f"unknown; give a profile recorded on {target.name} with {option}"
        )
    runs, notes = store.runs(target.name)
    calibration = calibrate(target, runs) if runs else None
    seconds = predict(partition.graph, target, calibration)
    assert target.threads is not None, "predict() rejects a target without a thread count"
    return UnitTimes(
        target=target.name,
        source="predicted",
        runtime=target.runtime,
        runtime_version=None,
        provider=target.provider,
        threads=target.threads,
        seconds=seconds,
        fixed_s=None,
        interval=prediction_interval(partition.graph, target, calibration),
        sha256=_made_from(target, calibration),
        calibration_runs=len(runs),
        notes=(*notes, *(calibration.notes if calibration is not None else ())),
    )


def caveats(*sides: tuple[Target, UnitTimes]) -> tuple[str, ...]:
    """Return messages for the user about the times: how they were obtained, and what predictions leave out."""
    said = []
    for target, times in sides:
        if times.source == "predicted" and target.descriptor is not None and target.descriptor.caveat:
            said.append(f"times on {target.name} are predicted: {target.descriptor.caveat}")
        said += times.notes
    return tuple(dict.fromkeys(said))


# --- profiles ---


def accepted_digests(found: Analysis) -> frozenset[str]:
    """Return the digests by which a profile may refer to the model.

    A profiler that is run by hand knows nothing of external data and prints the digest of the .onnx file.
    """
    return frozenset((found.original.sha256, digest([found.original.path]), found.model.sha256))


def check_model(path: Path, profile: Profile, found: Analysis) -> None:
    """Check that *profile*, read from *path*, is of this model.

    Raises:
        ProfileError: it is of another model.
    """
    if profile.model not in accepted_digests(found):
        raise ProfileError(
            f"{path}: is a profile of another model (with digest {profile.model[:12]}..., but {found.original.name} has "
            f"{found.original.sha256[:12]}...); record one of this model with `splitc profile`"
        )


def kept_profile(target: Target, found: Analysis, store: Store) -> tuple[KeptProfile | None, list[str]]:
    """Return the kept profile of the model on *target* that `unit_times` uses, and notes on unused ones.

    A profile with the target's runtime and provider is preferred, then one with times of nodes. The target's
    thread count applies to its own runtime only: a profile of another runtime, such as a browser, may have another.
    """
    kept, notes = store.profiles(target.name, accepted_digests(found))
    this = target.machine == "this"
    if (
        this
    ):  # another version of the runtime has other kernels, and on this machine a new measurement is easy
        kept = [item for item in kept if item.profile.runtime_version == RUNTIME_VERSION]
    threads = target.threads or (usable_cores() if this else None)
    fitting = [
        item
        for item in kept
        if (item.measurement.threads == threads or item.profile.runtime != target.runtime)
        and not _other_dims(item.measurement, found.dims)
    ]
    if not fitting:
        if kept and not this:
            there = _listed([item.measurement for item in kept])
            notes.append(
                f"kept profiles of {found.original.name} on {target.name} were not used: they have {there}, "
                f"but this build needs {_described(threads, found.dims)}"
            )
        return None, notes
    own = (target.runtime, target.provider)
    chosen = min(
        fitting,
        key=lambda item: (
            (item.profile.runtime, item.profile.provider) != own,
            not item.measurement.nodes,
            item.path.name,
        ),
    )
    return chosen, notes


def _suitable(path: Path, profile: Profile, target: Target, found: Analysis) -> Measurement:
    """Return the measurement at the model's sizes; if there are several, the one with the target's thread count."""
    fitting = [item for item in profile.measurements if not _other_dims(item, found.dims)]
    if not fitting:
        dims = profile.measurements[0].dims
        name = _other_dims(profile.measurements[0], found.dims)[0]
        raise ProfileError(
            f"{path}: was recorded with {name}={dims[name]}, but the model is sized for "
            f"{name}={found.dims[name]}; give --dim {name}={dims[name]} or record another profile"
        )
    threads = target.threads or usable_cores()
    chosen = next((item for item in fitting if item.threads == threads), None)
    if chosen is None and len(fitting) > 1:
        raise ProfileError(
            f"{path}: was recorded with {_counted(item.threads for item in fitting)}, but target '{target.name}' uses "
            f"{threads}; record it with --threads {threads}, or change the thread count in the target's .toml file"
        )
    return chosen or fitting[0]


def _other_dims(measurement: Measurement, dims: Mapping[str, int]) -> list[str]:
    """Return the symbolic dimensions whose sizes differ between the measurement and *dims*."""
    return sorted(name for name in measurement.dims.keys() & dims if measurement.dims[name] != dims[name])


def _recorded(
    profile: Profile, measurement: Measurement, target: Target, found: Analysis, store: Store, option: str
) -> UnitTimes:
    notes = []
    if profile.runtime != target.runtime:
        notes.append(
            f"times on {target.name} were measured with {profile.runtime}, not with {target.runtime}"
        )
    if not measurement.nodes:
        times = _scaled(profile, measurement, target, found, store, option)
    else:
        times = measured_times(profile, measurement, target.name, found.sources, found.partition)
        if profile.source == "imported" and not measurement.profiled_whole_s:
            notes.append(
                f"times on {target.name} are imported from a trace: profiling was on, so they are somewhat too long"
            )
    return replace(times, notes=(*times.notes, *notes))


def _scaled(
    profile: Profile, measurement: Measurement, target: Target, found: Analysis, store: Store, option: str
) -> UnitTimes:
    """Return predicted times of units, scaled so that they add up to the known time of the whole model.

    The interval is that of a prediction calibrated with this run, because no part was measured.
    """
    try:
        predicted = predicted_times(target, found.partition, option, store)
    except TargetError as error:
        raise TargetError(
            f"only the time of the whole model on {target.name} is known, and it cannot be divided among units: {error}"
        ) from error
    whole_s, fixed = median(measurement.whole_s), fixed_s(measurement)
    scale = (whole_s - (fixed or 0.0)) / fsum(predicted.seconds)
    graph = found.partition.graph
    work = tuple(unit.work for unit in graph.units)
    run = CalibrationRun(found.original.name, profile.model, measurement.threads, work, None, whole_s)
    # The target may already be calibrated with this run, which must not count twice.
    calibration = calibrate(target, joined(store.runs(target.name)[0], [run]))
    return UnitTimes(
        target=target.name,
        source=profile.source,
        runtime=profile.runtime,
        runtime_version=profile.runtime_version,
        provider=profile.provider,
        threads=measurement.threads,
        seconds=tuple(scale * value for value in predicted.seconds),
        fixed_s=fixed,
        interval=prediction_interval(graph, target, calibration),
        sha256=json_sha256([measurement_sha256(profile, measurement), predicted.sha256]),
        calibration_runs=predicted.calibration_runs,
        notes=(
            *predicted.notes,
            f"only the time of the whole model on {target.name} is known: it was divided as predicted",
        ),
    )


def _described(threads: int | None, dims: Mapping[str, int]) -> str:
    sizes = "".join(f" {name}={size}" for name, size in sorted(dims.items()))
    return f"{_counted([threads] if threads else [])}{sizes}"


def _listed(measurements: Iterable[Measurement]) -> str:
    return ", ".join(sorted({_described(item.threads, item.dims) for item in measurements}))


def _counted(threads: Iterable[int]) -> str:
    known: Sequence[int] = sorted(set(threads))
    return f"{' and '.join(map(str, known)) or 'any number of'} thread{'s' if list(known) != [1] else ''}"


def _made_from(target: Target, calibration: Calibration | None) -> str:
    return json_sha256([basis(machine(target)), target.threads, encode(calibration) if calibration else None])
