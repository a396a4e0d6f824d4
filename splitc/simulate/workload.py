"""Jobs, and the state of links and devices when they arrive: drawn once, so that all policies get the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from splitc.bundle.decide import Conditions
from splitc.simulate.fleet import DeviceClass, Fleet, Phase
from splitc.simulate.links import Array, SimulatedLink, quantile
from splitc.simulate.scenario import Scenario

_MEMORY_S = 4.0  # how long good and bad spells of a link last, as in `splitc.testbed.traces`
_LONGEST_OFFSET_S = 1e4  # where in a trace a device begins


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The jobs, one array element each, in order of time.

    Attributes:
        device: numbers over all classes; `owner` gives the class of each job's device.
        slowdown: real over recorded time of the device in this job.
        share: random, 0 to 1, for `splitc.bundle.price.personal`.
    """

    time_s: Array
    device: NDArray[np.int64]
    owner: NDArray[np.int64]
    uplink_bps: Array
    downlink_bps: Array
    rtt_s: Array
    slowdown: Array
    share: Array

    def __len__(self) -> int:
        return len(self.time_s)

    def first(self, count: int) -> "Workload":
        """The first *count* jobs."""
        return Workload(*(getattr(self, item.name)[:count] for item in fields(self)))

    def conditions(self, cloud_slowdown: float) -> list[Conditions]:
        """The true conditions of each job, without queue and price."""
        columns = (self.uplink_bps, self.downlink_bps, self.rtt_s, self.slowdown)
        return [
            Conditions(up, down, rtt, device_slowdown=slowdown, cloud_slowdown=cloud_slowdown)
            for up, down, rtt, slowdown in zip(*(column.tolist() for column in columns), strict=True)
        ]


def draw(scenario: Scenario) -> Workload:
    """All jobs of the fleet's horizon; equal fleets give equal jobs."""
    fleet, begins, parts = scenario.fleet, 0, []
    for number, item in enumerate(fleet.classes):
        source = np.random.default_rng((fleet.seed, number))
        parts.append(_of_class(fleet, item, scenario.links, source, first=begins, number=number))
        begins += item.count
    whole = [np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(Workload)]
    order = np.argsort(whole[0], kind="stable")
    return Workload(*(column[order] for column in whole))


def expected_jobs(fleet: Fleet) -> float:
    """The expected number of jobs."""
    busy_s = phases(fleet.phases, fleet.horizon_s)[1][-1]
    return float(busy_s * math.fsum(item.count * item.rate_per_s for item in fleet.classes))


def _of_class(
    fleet: Fleet,
    item: DeviceClass,
    links: Mapping[str, SimulatedLink],
    source: np.random.Generator,
    *,
    first: int,
    number: int,
) -> Workload:
    times_s = _arrivals(fleet, item, source)
    device = source.integers(item.count, size=len(times_s))
    own_slowdown = quantile(item.slowdown, source.standard_normal(item.count))
    jitter = np.exp(item.jitter * source.standard_normal(len(times_s)))
    states = _link_states(item, links, times_s, device, source)
    return Workload(
        times_s,
        device + first,
        np.full(len(times_s), number),
        *states,
        slowdown=own_slowdown[device] * jitter,
        share=source.random(len(times_s)),
    )


def _arrivals(fleet: Fleet, item: DeviceClass, source: np.random.Generator) -> Array:
    """A Poisson process whose rate has steps: a process of steady rate on a clock that runs *factor* times as fast."""
    ends_s, clock_s = phases(fleet.phases, fleet.horizon_s)
    count = source.poisson(item.count * item.rate_per_s * clock_s[-1])
    times_s: Array = np.interp(np.sort(source.random(count)) * clock_s[-1], clock_s, ends_s)
    return times_s


def phases(phases: Sequence[Phase], horizon_s: float) -> tuple[Array, Array]:
    """Times at which the rate may change, from 0 to the horizon, and the times of that clock."""
    cuts = {0.0, horizon_s} | {time for phase in phases for time in (phase.from_s, phase.to_s)}
    ends_s = np.array(sorted(time for time in cuts if time <= horizon_s))
    factors = [
        next((phase.factor for phase in phases if phase.from_s <= time < phase.to_s), 1.0)
        for time in ends_s[:-1].tolist()
    ]
    return ends_s, np.concatenate([[0.0], np.cumsum(np.diff(ends_s) * factors)])


def _link_states(
    item: DeviceClass,
    links: Mapping[str, SimulatedLink],
    times_s: Array,
    device: NDArray[np.int64],
    source: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Uplink and downlink rates, and round trip, of each job; a device stays on its network."""
    names = list(item.networks)
    shares = np.array([item.networks[name] for name in names])
    network = source.choice(len(names), size=item.count, p=shares / shares.sum())
    offset_s = _LONGEST_OFFSET_S * source.random(item.count)
    moods = _moods(times_s, device, source.standard_normal(len(times_s)))
    up, down, rtt = (np.empty(len(times_s)) for _ in range(3))
    for number, name in enumerate(names):
        there = network[device] == number
        at_s = times_s[there] + offset_s[device[there]]
        link = links[name]
        up[there] = link.uplink.at(moods[there], at_s)
        down[there] = link.downlink.at(moods[there], at_s)
        rtt[there] = quantile(link.rtt_s, -moods[there])
    return up, down, rtt


def _moods(times_s: Array, device: NDArray[np.int64], noise: Array) -> Array:
    """Each device's Ornstein-Uhlenbeck process at the times of its jobs: standard normal, with fading memory."""
    last: dict[int, tuple[float, float]] = {}
    moods = np.empty(len(times_s))
    for index, (now_s, number, new) in enumerate(
        zip(times_s.tolist(), device.tolist(), noise.tolist(), strict=True)
    ):
        before_s, mood = last.get(number, (-math.inf, 0.0))
        kept = math.exp((before_s - now_s) / _MEMORY_S)
        mood = kept * mood + math.sqrt(1 - kept * kept) * new
        last[number] = (now_s, mood)
        moods[index] = mood
    return moods
