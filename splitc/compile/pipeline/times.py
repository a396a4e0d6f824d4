"""How long every unit of an unrolled pipeline takes on a target: from times of its models, each timed by itself."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TypeVar

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.kinds import Source
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Share, Unrolled
from splitc.model.analysis import Analysis
from splitc.profile.document import UnitTimes, read_profile
from splitc.profile.targets.description import Target
from splitc.profile.unit_times import accepted_digests, unit_times

# The sources from the best to the worst: a sum is what the worst of its parts is.
_SOURCES: tuple[Source, ...] = ("measured", "imported", "predicted")

Interval = tuple[float, float] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PipelineTimes:
    """Times on one target.

    Attributes:
        models: of the units of every analysis, in their order.
        whole: of the units of the unrolled graph.
    """

    models: tuple[UnitTimes, ...]
    whole: UnitTimes

    def share_s(self, found: PipelineAnalysis, share: Share) -> float:
        """Seconds of a part of a stage: what every call costs besides its units is among them once per call."""
        times = [self.models[number] for number in found.calls[share.stage]]
        if share.units is None:
            return (share.end - share.first) * fsum(map(_whole_s, times))
        return fsum([*(times[0].seconds[unit] for unit in share.units), times[0].fixed_s or 0.0])

    def source(self, found: PipelineAnalysis, parts: Sequence[Share]) -> Source:
        """Where the times of a part that does *parts* come from: the least certain of its models decides."""
        return _worst(self.models[number] for share in parts for number in found.calls[share.stage])

    def part(self, found: PipelineAnalysis, parts: Sequence[Share]) -> tuple[float, Interval]:
        """Seconds of a part that does *parts*, and their interval."""
        seconds = [self.share_s(found, share) for share in parts]
        return fsum(seconds), self._interval(found, parts, seconds)

    def _interval(
        self, found: PipelineAnalysis, parts: Sequence[Share], seconds: Sequence[float]
    ) -> Interval:
        weighted = []
        for share, total_s in zip(parts, seconds, strict=True):
            times = [self.models[number] for number in found.calls[share.stage]]
            whole_s = fsum(map(_whole_s, times))
            weighted += [
                (total_s * _whole_s(item) / whole_s if whole_s else 0.0, item.interval) for item in times
            ]
        return combined_interval(weighted)


def pipeline_times(
    target: Target,
    recorded: Sequence[Path],
    option: str,
    found: PipelineAnalysis,
    unrolled: Unrolled,
    cache: Cache,
) -> PipelineTimes:
    """Times of all units of *unrolled* on *target*; every model is timed as `timing.unit_times` times it.

    Args:
        recorded: profiles, or folders of them, that take precedence for the models that they are of.
        option: what takes such a profile.

    Raises:
        ProfileError: a profile is of none of the models, or measuring failed.
        TargetError: the target is not this machine and has no descriptor.
    """
    profiles = _matched(recorded, option, found)
    models = tuple(
        unit_times(target, profiles.get(number), option, analysis, cache)
        for number, analysis in enumerate(found.analyses)
    )
    if found.pipeline.only is not None:
        return PipelineTimes(models, models[0])
    notes = tuple(dict.fromkeys(note for times in models for note in times.notes))
    if len({times.source for times in models}) > 1:
        notes += (_mixed(target, found, models),)
    spent = _spent(found, models)
    # The runtime and the threads of the model that takes longest stand for all.
    leading = max(zip(spent, models, strict=True), key=lambda pair: pair[0][0])[1]
    whole = replace(
        leading,
        source=_worst(models),
        runtime_version=_common(times.runtime_version for times in models),
        seconds=tuple(_unit_seconds(found, unrolled, models)),
        fixed_s=None,
        interval=combined_interval(spent),
        sha256=_digest([(item.model.sha256, times.sha256) for item, times in _pairs(found, models)]),
        here=all(times.here for times in models),
        calibration_runs=max(times.calibration_runs for times in models),
        notes=notes,
    )
    return PipelineTimes(models, whole)


def combined_interval(parts: Iterable[tuple[float, Interval]]) -> Interval:
    """The interval of a sum, of parts with their seconds; None if that of a part is not known.

    Where one model is slower than stated, so are probably the others: it is the same device. So the ends are those
    of a sum whose parts are all off in the same direction, the widest that there can be.
    """
    parts = list(parts)
    if len({interval for _, interval in parts}) == 1:
        return parts[0][1]
    known = [(seconds, interval) for seconds, interval in parts if seconds > 0]
    bounds = [interval for _, interval in known if interval is not None]
    if not known or len(bounds) < len(known):
        return None
    total = fsum(seconds for seconds, _ in known)
    low, high = (
        fsum(seconds * bound[end] for (seconds, _), bound in zip(known, bounds, strict=True)) / total
        for end in (0, 1)
    )
    return low, high


def _worst(models: Iterable[UnitTimes]) -> Source:
    return max((times.source for times in models), key=_SOURCES.index)


def _unit_seconds(
    found: PipelineAnalysis, unrolled: Unrolled, models: Sequence[UnitTimes]
) -> Iterable[float]:
    """What each unit takes; what a call costs besides its units is spread over them, as it is paid with the first.

    So a stage that is cut inside seems to cost one call less than it does; `PipelineTimes.part` counts both.
    """
    for place in unrolled.places:
        times = [models[number] for number in found.calls[place.stage]]
        if place.unit is None:
            yield fsum(map(_whole_s, times))
            continue
        own, total = times[0].seconds, fsum(times[0].seconds)
        fixed_s = times[0].fixed_s or 0.0
        share = own[place.unit] / total if total else 1 / len(own)
        yield own[place.unit] + fixed_s * share


def _whole_s(times: UnitTimes) -> float:
    return fsum([*times.seconds, times.fixed_s or 0.0])


def _spent(found: PipelineAnalysis, models: Sequence[UnitTimes]) -> list[tuple[float, Interval]]:
    """Of each model, the seconds that it takes in all of its runs, and its interval."""
    spent = [0.0] * len(models)
    for stage, calls in zip(found.pipeline.stages, found.calls, strict=True):
        for number in calls:
            spent[number] += _whole_s(models[number]) * (stage.loop.times if stage.loop is not None else 1)
    return [(seconds, times.interval) for seconds, times in zip(spent, models, strict=True)]


def _mixed(target: Target, found: PipelineAnalysis, models: Sequence[UnitTimes]) -> str:
    by_source = {
        source: [item.model.name for item, times in _pairs(found, models) if times.source == source]
        for source in _SOURCES
    }
    told = "; ".join(
        f"{source}: {', '.join(dict.fromkeys(names))}" for source, names in by_source.items() if names
    )
    return f"times on {target.name} come from several sources: {told}"


def _pairs(found: PipelineAnalysis, models: Sequence[T]) -> Iterable[tuple[Analysis, T]]:
    return zip(found.analyses, models, strict=True)


def _matched(recorded: Sequence[Path], option: str, found: PipelineAnalysis) -> Mapping[int, Path]:
    """Which of the *recorded* profiles each analysis takes."""
    matched: dict[int, Path] = {}
    files = [file for path in recorded for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if found.pipeline.only is not None:
        if len(files) > 1:
            raise ProfileError(
                f"a model has one profile on a machine, but {option} names {len(files)}; name one"
            )
        return dict(enumerate(files))  # `unit_times` checks that it is of this model
    for file in files:
        profile = read_profile(file)
        fitting = [
            number
            for number, analysis in enumerate(found.analyses)
            if profile.model in accepted_digests(analysis)
        ]
        if not fitting:
            raise ProfileError(
                f"{file}: is not a profile of any of the pipeline's models ({profile.model[:12]}...); "
                "record one with `splitc profile`"
            )
        for number in fitting:
            if number in matched:
                raise ProfileError(
                    f"{file}: {matched[number].name} is a profile of the same model; give one of them"
                )
            matched[number] = file
    return matched


def _common(values: Iterable[T]) -> T | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
