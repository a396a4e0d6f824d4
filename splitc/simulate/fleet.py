"""The description of what is simulated: `fleet.toml` (see docs/scheduling.md)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Literal

from splitc.common.errors import TargetError
from splitc.common.records import RecordError, decode
from splitc.profile.targets.description import read_description
from splitc.profile.targets.quantity import not_positive, refuse


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A quantity that varies: its median, 5th and 95th percentile. Without a percentile it does not vary on that side."""

    typical: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        values = [value for value in (self.low, self.typical, self.high) if value is not None]
        order = None if values == sorted(values) else "low, typical and high must be in ascending order"
        refuse(*(not_positive("low, typical and high", value) for value in values[:1]), order)


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """A recorded link: files in the mahimahi format, relative to the fleet's; they do not contain the round trip."""

    uplink: str
    downlink: str
    rtt_s: Percentiles


@dataclass(frozen=True, slots=True)
class Phase:
    """A period in which jobs arrive *factor* times as often."""

    from_s: float
    to_s: float
    factor: float

    def __post_init__(self) -> None:
        negative = None if self.factor >= 0 else f"factor must not be below zero, found {self.factor:g}"
        refuse(_no_time(self.from_s, self.to_s), negative)


@dataclass(frozen=True, slots=True)
class Outage:
    """A period in which *machines* of the cloud are down; all of them if None."""

    from_s: float
    to_s: float
    machines: int | None = None

    def __post_init__(self) -> None:
        few = not_positive("machines", self.machines) if self.machines is not None else None
        refuse(_no_time(self.from_s, self.to_s), few)


@dataclass(frozen=True, slots=True)
class CloudEntry:
    """The machines that serve.

    Attributes:
        workers: servers on each machine; each computes one batch at a time and has a queue of its own.
        max_queue: how many requests may wait for one worker.
        max_batch: how many requests may run as one.
        batch: the time of a batch divided by the time of one request, by batch size: [[8, 4.5], [16, 8.0]], linear in
            between; or "measured": as measured on this machine for each bundle. Without it, requests run one by one.
        slowdown: real over recorded time.
        request_s: time of a request besides link, queue and run: HTTP and the copying of tensors, on both sides.
        utilisation: the share of time that machines should be busy, which the price aims at.
        usd_per_hour: cost of one machine.
    """

    machines: int
    workers: int = 1
    max_queue: int = 64
    max_batch: int = 1
    batch: Literal["measured"] | tuple[tuple[int, float], ...] | None = None
    slowdown: float = 1.0
    request_s: float = 0.0
    utilisation: float = 0.85
    price_interval_s: float = 1.0
    usd_per_hour: float | None = None
    down: tuple[Outage, ...] = ()

    def __post_init__(self) -> None:
        names = ("machines", "workers", "max_queue", "max_batch", "slowdown", "price_interval_s")
        share = None if 0 < self.utilisation < 1 else "utilisation must be above 0 and below 1"
        lacking = "max_batch above 1 needs batch, which says what a batch costs"
        refuse(
            *(not_positive(name, getattr(self, name)) for name in names),
            share,
            None if self.request_s >= 0 else f"request_s must not be below zero, found {self.request_s:g}",
            lacking if self.max_batch > 1 and self.batch is None else None,
            _not_a_curve(self.batch) if isinstance(self.batch, tuple) else None,
            "the times in down must not overlap" if _overlap(self.down) else None,
            next(map(self._too_many, self.down), None),
        )

    def _too_many(self, outage: Outage) -> str | None:
        if outage.machines is None or outage.machines <= self.machines:
            return None
        return f"down says that {outage.machines} machines are, but there are {self.machines}"


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices that are alike.

    Attributes:
        count: how many there are.
        rate_per_s: jobs per second of one device; they arrive independently of each other.
        networks: the share of devices on each: the name of a network, its .toml file, or one of the fleet's traces.
        device: the target that the bundle was compiled for; the name of the class if left out.
        model: which model; needed if bundles of several models were given.
        sla_s: latency to meet.
        slowdown: real over recorded time; each device keeps its own.
        jitter: standard deviation of the logarithm of a run's time on one device.
    """

    name: str
    count: int
    rate_per_s: float
    networks: dict[str, float]
    device: str | None = None
    model: str | None = None
    sla_s: float | None = None
    slowdown: Percentiles = field(default_factory=lambda: Percentiles(1.0))
    jitter: float = 0.0

    def __post_init__(self) -> None:
        shares = list(self.networks.values())
        total = None if fsum(shares) > 0 and min(shares) >= 0 else "the shares of networks must be above zero"
        jitter = None if self.jitter >= 0 else f"jitter must not be below zero, found {self.jitter:g}"
        sla = not_positive("sla_s", self.sla_s) if self.sla_s is not None else None
        refuse(
            not_positive("count", self.count),
            not_positive("rate_per_s", self.rate_per_s),
            total if shares else "networks must name at least one",
            sla,
            jitter,
        )

    @property
    def target(self) -> str:
        """The device that its bundle is for."""
        return self.name if self.device is None else self.device


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices, their cloud, and the simulated time.

    Attributes:
        knowledge: "estimated": devices learn link, queue and price from answers, as `splitc.Session` does; "true": they
            know them.
        seed: equal seeds give equal jobs, links and results.
    """

    horizon_s: float
    cloud: CloudEntry
    classes: tuple[DeviceClass, ...]
    knowledge: Literal["estimated", "true"] = "estimated"
    seed: int = 0
    phases: tuple[Phase, ...] = ()
    traces: dict[str, TraceEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [item.name for item in self.classes]
        twice = next((name for name in names if names.count(name) > 1), None)
        refuse(
            not_positive("horizon_s", self.horizon_s),
            None if names else "there must be at least one class of devices",
            f"two classes are called '{twice}'" if twice is not None else None,
            "phases must not overlap" if _overlap(self.phases) else None,
        )


def read_fleet(path: Path) -> Fleet:
    """Read a fleet; paths of traces and networks in it become absolute.

    Raises:
        TargetError: the file cannot be read, or is wrong.
    """
    try:
        fleet = decode(Fleet, read_description(path, "fleet"), path.name)
    except RecordError as error:
        raise TargetError(str(error)) from error
    folder = path.absolute().parent
    traces = {
        name: replace(item, uplink=str(folder / item.uplink), downlink=str(folder / item.downlink))
        for name, item in fleet.traces.items()
    }
    return replace(fleet, traces=traces, classes=tuple(_rooted(item, folder) for item in fleet.classes))


def _rooted(item: DeviceClass, folder: Path) -> DeviceClass:
    networks = {
        str(folder / name) if name.endswith(".toml") else name: share for name, share in item.networks.items()
    }
    return replace(item, networks=networks)


def _no_time(from_s: float, to_s: float) -> str | None:
    return None if 0 <= from_s < to_s else f"from_s ({from_s:g}) must lie before to_s ({to_s:g}), from 0 on"


def _overlap(times: Sequence[Phase] | Sequence[Outage]) -> bool:
    ordered = sorted((item.from_s, item.to_s) for item in times)
    return any(earlier[1] > later[0] for earlier, later in pairwise(ordered))


def _not_a_curve(points: Sequence[tuple[int, float]]) -> str | None:
    """Check that larger batches take longer, but less per request than one request alone."""
    whole = ((1, 1.0), *points)
    for (size, times), (larger, longer) in pairwise(whole):
        if not (size < larger and times <= longer <= larger):
            return f"batch must rise in sizes and times, from above [1, 1.0], and cost at most its size; see [{larger}, {longer:g}]"
    return None
