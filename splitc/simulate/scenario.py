"""A fleet with everything that it names: a manifest for each class, links, costs of batches."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum
from pathlib import Path

import numpy as np

from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, Manifest, PartEntry
from splitc.common.errors import BundleError
from splitc.server.tails.prepare import BatchTimes, Settings, batch_times
from splitc.simulate.fleet import CloudEntry, DeviceClass, Fleet
from splitc.simulate.links import SimulatedLink
from splitc.simulate.policies import Case, key_of

_HOUR_S, _MOMENTS = 3600.0, 401  # over which a recorded link's typical rate is taken

Curve = tuple[float, ...]
"""Times of batches of 1, 2, ... requests over that of one; as long as the largest batch."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The inputs of a simulation.

    Attributes:
        manifests: one for each class of the fleet.
        links: by the names that the classes use.
        curves: costs of batches, by the SHA-256 of a model, the device and the cut; other requests run one by one.
    """

    fleet: Fleet
    manifests: tuple[Manifest, ...]
    links: Mapping[str, SimulatedLink]
    curves: Mapping[tuple[str, str, str], Curve]

    def curve(self, manifest: Manifest, cut: CutEntry) -> Curve:
        """The costs of batches of a cut in the cloud."""
        return self.curves.get(_key(manifest, cut), (1.0,))


def least_work_s(run_s: Sequence[float]) -> float:
    """The least cost of a request, from the times of batches of 1, 2, ... requests."""
    return min(time_s / size for size, time_s in enumerate(run_s, 1))


def usual_cases(scenario: Scenario) -> tuple[Case, ...]:
    """The typical conditions in each class: its most common network, and a device of median speed."""
    return tuple(map(partial(_usual, scenario), scenario.fleet.classes, scenario.manifests))


def match(fleet: Fleet, bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """The bundle of each class, by its device and model.

    Raises:
        BundleError: a class has none, or several.
    """
    return tuple(_bundle_of(item, bundles) for item in fleet.classes)


def described_curves(cloud: CloudEntry, bundles: Sequence[Bundle]) -> dict[tuple[str, str, str], Curve]:
    """The fleet's curve of batch costs, for every cut."""
    points = cloud.batch if isinstance(cloud.batch, tuple) else ()
    curve = _curve(points, cloud.max_batch)
    return {_key(bundle.manifest, cut): curve for bundle in bundles for cut in bundle.manifest.cuts}


def measured_curves(
    cloud: CloudEntry, bundles: Sequence[Bundle], threads: int, cache_folder: Path, say: Callable[[str], None]
) -> dict[tuple[str, str, str], Curve]:
    """The batch costs that `splitc serve` measures on this machine; cuts that it cannot batch run one by one.

    Raises:
        ModelError: ONNX Runtime refuses a part.
        OSError: the cache folder cannot be written.
    """
    curves = {}
    for bundle in bundles:
        measured = batch_times(bundle, cache_folder, Settings(threads, cloud.max_batch), say)
        for cut in bundle.manifest.cuts:
            points = _relative(cut.cloud, measured) if cut.cloud is not None else ()
            if points:
                curves[_key(bundle.manifest, cut)] = _curve(points, cloud.max_batch)
    return curves


def _relative(part: PartEntry, measured: Mapping[str, BatchTimes]) -> tuple[tuple[int, float], ...]:
    """The costs of batches of a part, divided by that of one request: for all files, as often as it runs them."""
    runs = Counter[str]()
    for stage in part.program:
        for call in stage.calls:
            runs[call.file] += stage.loop.end - stage.loop.first if stage.loop is not None else 1
    if not runs.keys() <= measured.keys():
        return ()
    times = {file: dict(measured[file]) for file in runs}
    sizes = sorted(set.intersection(*(set(known) for known in times.values())) - {1})
    alone_s = fsum(count * times[file][1] for file, count in runs.items())
    return tuple(
        (size, fsum(count * times[file][size] for file, count in runs.items()) / alone_s) for size in sizes
    )


def _curve(points: Sequence[tuple[int, float]], largest: int) -> Curve:
    """Interpolate linearly; measured points may say that two requests cost less than one, or more than two."""
    sizes, times = zip((1, 1.0), *points, strict=True)
    numbers = np.arange(1, min(largest, sizes[-1]) + 1)
    between = np.minimum(np.interp(numbers, sizes, times), numbers)
    return tuple(float(value) for value in np.maximum.accumulate(between))


def _usual(scenario: Scenario, item: DeviceClass, manifest: Manifest) -> Case:
    link = scenario.links[max(item.networks, key=lambda name: item.networks[name])]
    usual, moments_s = np.zeros(_MOMENTS), np.linspace(0.0, _HOUR_S, _MOMENTS)
    up, down = (float(np.median(way.at(usual, moments_s))) for way in (link.uplink, link.downlink))
    conditions = Conditions(
        up,
        down,
        link.rtt_s.typical,
        device_slowdown=item.slowdown.typical,
        cloud_slowdown=scenario.fleet.cloud.slowdown,
    )
    return Case(manifest, conditions, item.count * item.rate_per_s)


def _key(manifest: Manifest, cut: CutEntry) -> tuple[str, str, str]:
    return (*key_of(manifest), cut.id)


def _bundle_of(item: DeviceClass, bundles: Sequence[Bundle]) -> Bundle:
    fitting = [
        bundle
        for bundle in bundles
        if bundle.manifest.targets.device.name == item.target
        and item.model in (None, bundle.manifest.model.name)
    ]
    model = f" of {item.model}" if item.model is not None else ""
    if not fitting:
        known = ", ".join(sorted({bundle.manifest.targets.device.name for bundle in bundles}))
        raise BundleError(
            f"the class '{item.name}' needs a bundle{model} for '{item.target}', but those given are for {known}; "
            f"compile one with `splitc compile MODEL --device {item.target}`, or set its key 'device'"
        )
    if len(fitting) > 1:
        models = ", ".join(sorted(bundle.manifest.model.name for bundle in fitting))
        raise BundleError(
            f"several bundles{model} for '{item.target}' were given ({models}); set the key 'model' of the class "
            f"'{item.name}'"
        )
    return fitting[0]
