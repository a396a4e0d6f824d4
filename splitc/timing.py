"""From a target to the time of every unit on it: the best that there is, and what that is.

A recorded profile comes first, then a measurement if the target is this machine, then a prediction.
"""

import os
from pathlib import Path

from splitc.analysis import Analysis
from splitc.cache import Cache
from splitc.errors import ProfileError, TargetError
from splitc.onnxfile import digest
from splitc.profiles import Profile, UnitTimes, measure_here, measured_times, predicted_times, read_profile
from splitc.targets import Target


def unit_times(
    target: Target, recorded: Path | None, option: str, found: Analysis, cache: Cache
) -> UnitTimes:
    """Times of every unit on *target*: from the recorded profile, measured here, or predicted.

    Raises:
        ProfileError: the profile is of another model, or measuring failed.
        TargetError: the target is not this machine and has no descriptor.
    """
    if recorded is not None:
        # The program, run by hand, knows nothing of external data: it prints the digest of the file alone.
        accepted = {found.original.sha256, digest([found.original.path]), found.model.sha256}
        profile = read_profile(recorded, found.original, accepted)
        _check_dims(recorded, profile, found)
        return measured_times(profile, target.name, found.model, found.sources, found.partition, here=False)
    if target.machine != "this":
        return predicted_times(target, found.partition, option)
    if not found.feeds:
        raise TargetError(
            f"{found.model.name} is too large to be profiled here; give a recorded profile with {option}"
        )
    profile = measure_here(found.model, found.feeds[0], target.threads or usable_cores(), found.dims, cache)
    return measured_times(profile, target.name, found.model, found.sources, found.partition, here=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def caveats(*sides: tuple[Target, UnitTimes]) -> tuple[str, ...]:
    """What the intervals of predicted times do not cover."""
    return tuple(
        f"times on {target.name} are predicted: {target.descriptor.caveat}"
        for target, times in sides
        if times.source == "predicted" and target.descriptor is not None
    )


def _check_dims(path: Path, profile: Profile, found: Analysis) -> None:
    for name in sorted(profile.dims.keys() & found.dims.keys()):
        if profile.dims[name] != found.dims[name]:
            raise ProfileError(
                f"{path}: was recorded with {name}={profile.dims[name]}, but the model is sized at "
                f"{name}={found.dims[name]}; give --dim {name}={profile.dims[name]} or record another"
            )
