"""The steady state of a policy for a fleet of any size, computed without events.

Assumptions:

- Every phase of the arrivals is in steady state, independent of the other phases. A machine that is down for a part of
  a phase is missing, for the whole phase, in that proportion.
- Jobs are a fluid. Each class on each network is represented by 128 points, spread evenly (scrambled Sobol) over link
  states, slowdowns, jitters, and the personal factors of the price (`personal`). Devices know the true conditions, and
  their processors are idle when a job arrives. Every transfer begins with TCP's initial window.
- Workers are loaded evenly, and all waiting requests fit into one batch. With L = arriving work per worker and second,
  requests run n at a time, where n requests arrive while n run: n = max(1, L x curve(n)). Some requests find a free
  worker; the others wait for the mean wait (see `queueing.waiting`), at most for one batch where batches are possible.
  Devices know which of the two applies.
- If more work arrives than full batches can do, the queue is full, and the rest is refused.
- The price is the lowest at which the requested work fits into the utilisation that is asked for: the equilibrium of
  `splitc.bundle.price`.

Both are found by bisection: for each price, the load that is consistent with the devices' choices at that load's wait;
then the price. If all devices would change their choice at once, a share of them makes each choice.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from splitc.bundle.decide import Conditions, latency_s
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.bundle.price import HIGHEST_PRICE, personal
from splitc.simulate.bounds.offline import room_s
from splitc.simulate.bounds.queueing import GONE, IDLE, Load, load_of
from splitc.simulate.fleet import CloudEntry, DeviceClass, Fleet
from splitc.simulate.job import End
from splitc.simulate.links import quantile
from splitc.simulate.policies import Policy
from splitc.simulate.report.summary import Summary, summary
from splitc.simulate.scenario import Curve, Scenario, least_work_s
from splitc.simulate.tcp import lone_s
from splitc.simulate.workload import phases

_POINTS_LOG2 = 7
_STEPS = 12  # of each bisection
_LATER_S = 3600.0  # the part of a recorded link that is considered


@dataclass(frozen=True, slots=True)
class _Point:
    """Jobs that are alike: their rate without surges, and *device_per_s*, the rate of each device."""

    owner: int
    manifest: Manifest
    sla_s: float | None
    truth: Conditions
    share: float
    per_s: float
    device_per_s: float


@dataclass(frozen=True, slots=True)
class _Choice:
    """Latency and load of a part of a point, including its waits."""

    point: _Point
    cut: CutEntry
    latency_s: float
    per_s: float


def phase_count(fleet: Fleet) -> int:
    """The number of phases that `plan` reports."""
    return len(phases(fleet.phases, fleet.horizon_s)[0]) - 1


def plan(scenario: Scenario, policy: Policy, told: Callable[[int], None]) -> Summary:
    """The same figures as `summarise`, as means; *told* is called after each phase."""
    fleet = scenario.fleet
    points = _points(scenario)
    ends_s, clock_s = phases(fleet.phases, fleet.horizon_s)
    rows = list[tuple[float, int, int, float]]()
    busy_s = turned_away = 0.0
    for (from_s, to_s), (began, over) in zip(
        pairwise(ends_s.tolist()), pairwise(clock_s.tolist()), strict=True
    ):
        factor = (over - began) / (to_s - from_s)
        workers = _workers(fleet.cloud, from_s, to_s)
        settled = _Equilibrium(scenario, policy, points, factor, workers).settle()
        for weight, load, choices in settled:
            jobs = weight * factor * (to_s - from_s)
            busy_s += weight * load.busy * workers * (to_s - from_s)
            for choice in choices:
                rows += _ends(choice, load, choice.per_s * jobs)
                if choice.cut.cloud is not None:
                    turned_away += (1 - load.accepted) * choice.per_s * jobs
        told(1)
    latency, end, owner, weights = (np.array(column) for column in zip(*rows, strict=True))
    jobs_of = (latency, end.astype(np.int8), owner.astype(np.int64), weights)
    return summary(
        scenario,
        policy.name,
        jobs_of,
        busy_s=busy_s,
        until_s=fleet.horizon_s,
        turned_away=turned_away,
        bounds=None,
    )


class _Equilibrium:
    """One phase."""

    def __init__(
        self, scenario: Scenario, policy: Policy, points: Sequence[_Point], factor: float, workers: float
    ) -> None:
        self._scenario, self._policy, self._points = scenario, policy, points
        self._factor, self._workers = factor, workers
        self._cloud = scenario.fleet.cloud
        self._curve = _common_curve(scenario)

    def settle(self) -> list[tuple[float, Load, list[_Choice]]]:
        """The choices of the devices, as parts whose weights add up to 1."""
        if not self._workers:
            return [(1.0, GONE, self._choose(0.0, GONE))]
        if self._asked(self._at(0.0)) <= self._cloud.utilisation:
            return self._at(0.0)
        low, high = 0.0, math.log1p(HIGHEST_PRICE)
        dearest = self._at(HIGHEST_PRICE)
        if self._asked(dearest) > self._cloud.utilisation:  # at any price
            return dearest
        for _ in range(_STEPS):
            middle = (low + high) / 2
            fits = self._asked(self._at(math.expm1(middle))) <= self._cloud.utilisation
            low, high = (low, middle) if fits else (middle, high)
        return self._at(math.expm1(high))

    def _at(self, price: float) -> list[tuple[float, Load, list[_Choice]]]:
        """The choices of the devices at a price: the load that they cause is the load that they see."""
        idle = self._choose(price, IDLE)
        run_s, low, high = self._run_s(idle), 0.0, self._work(idle)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            more = self._work(self._choose(price, self._load(middle, run_s))) > middle
            low, high = (middle, high) if more else (low, middle)
        eager, wary = (self._choose(price, self._load(work, run_s)) for work in (low, high))
        most, least = self._work(eager), self._work(wary)
        share = min(max((high - least) / (most - least), 0.0), 1.0) if most > least else 1.0
        load = self._load(share * most + (1 - share) * least, run_s)
        return [(share, load, eager), (1 - share, load, wary)]

    def _choose(self, price: float, load: Load) -> list[_Choice]:
        """The latency of each point, with a free worker and without one."""
        choices = [self._choice(point, price, 0.0, load, 1 - load.waits) for point in self._points]
        choices += [self._choice(point, price, load.queue_s, load, load.waits) for point in self._points]
        return [choice for choice in choices if choice.per_s]

    def _choice(self, point: _Point, price: float, queue_s: float, load: Load, share: float) -> _Choice:
        seen = replace(
            point.truth,
            cloud_slowdown=point.truth.cloud_slowdown * load.longer,
            price=personal(price, point.share),
        )
        gone = math.isinf(queue_s)
        seen = replace(seen, uplink_bps=0.0) if gone else replace(seen, queue_s=queue_s)
        decision = self._policy.choose(point.manifest, seen, point.sla_s)
        cut = decision.cut
        more_s = lone_s(cut, seen, self._factor * point.device_per_s)
        more_s += self._cloud.request_s if cut.cloud is not None else 0.0
        return _Choice(point, cut, decision.latency_s + more_s, point.per_s * share)

    def _work(self, choices: Sequence[_Choice]) -> float:
        """Seconds of work per second and worker, if each request runs alone."""
        slowdown = self._cloud.slowdown
        return self._factor * slowdown * math.fsum(c.per_s * c.cut.cloud_s for c in choices) / self._workers

    def _run_s(self, choices: Sequence[_Choice]) -> float:
        """The mean time of a request that runs alone."""
        jobs = self._factor * math.fsum(c.per_s for c in choices if c.cut.cloud is not None)
        return self._work(choices) * self._workers / jobs if jobs else 0.0

    def _load(self, work: float, run_s: float) -> Load:
        return load_of(work, run_s, curve=self._curve, workers=self._workers, max_queue=self._cloud.max_queue)

    def _asked(self, settled: Sequence[tuple[float, Load, list[_Choice]]]) -> float:
        """The work in the best batches, as the price counts it."""
        least = least_work_s(self._curve)
        return math.fsum(weight * self._work(choices) * least for weight, _, choices in settled)


def _ends(choice: _Choice, load: Load, jobs: float) -> list[tuple[float, int, int, float]]:
    """Latency, end, class and weight of the jobs of a point: accepted ones, and refused ones."""
    point, cut = choice.point, choice.cut
    alone = next((item for item in point.manifest.cuts if item.kind == "all-head"), None)
    here_s = latency_s(alone, point.truth) if alone is not None else math.nan
    here = End.DEVICE if alone is not None else End.REFUSED
    if cut.cloud is None:
        return [(choice.latency_s, End.DEVICE, point.owner, jobs)]
    if math.isinf(load.queue_s):
        return [(here_s, here, point.owner, jobs)]
    there = End.SPLIT if cut.device is not None else End.CLOUD
    rows = [(choice.latency_s, int(there), point.owner, jobs * load.accepted)]
    if load.accepted < 1:
        tried_s = latency_s(cut, replace(point.truth, cloud_slowdown=0.0))
        tried_s += lone_s(cut, point.truth, point.device_per_s)
        rows.append((tried_s + here_s, int(here), point.owner, jobs * (1 - load.accepted)))
    return rows


def _workers(cloud: CloudEntry, from_s: float, to_s: float) -> float:
    """The mean number of workers that are up between two times."""
    return room_s(cloud, from_s, to_s) / (to_s - from_s)


def _points(scenario: Scenario) -> list[_Point]:
    points = []
    for owner, item in enumerate(scenario.fleet.classes):
        total = math.fsum(item.networks.values())
        for name, share in item.networks.items():
            if share:
                rate_per_s = item.count * item.rate_per_s * share / total
                points += _of_network(scenario, owner, item, name, rate_per_s)
    return points


def _of_network(
    scenario: Scenario, owner: int, item: DeviceClass, name: str, rate_per_s: float
) -> list[_Point]:
    from scipy.stats import norm, qmc  # noqa: PLC0415 - half a second, for which a simulation by events need not wait

    link = scenario.links[name]
    spread = qmc.Sobol(4, scramble=True, rng=np.random.default_rng(0)).random_base2(_POINTS_LOG2)
    moods, slow, jitter = norm.ppf(spread[:, :3].T)
    times_s = _LATER_S * spread[:, 0]
    columns = (
        link.uplink.at(moods, times_s),
        link.downlink.at(moods, times_s),
        quantile(link.rtt_s, -moods),
        quantile(item.slowdown, slow) * np.exp(item.jitter * jitter),
        spread[:, 3],
    )
    return [
        _Point(
            owner,
            scenario.manifests[owner],
            item.sla_s,
            Conditions(up, down, rtt, device_slowdown=slowdown, cloud_slowdown=scenario.fleet.cloud.slowdown),
            share,
            rate_per_s / len(spread),
            item.rate_per_s,
        )
        for up, down, rtt, slowdown, share in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _common_curve(scenario: Scenario) -> Curve:
    """The mean batch cost of all cuts, up to the smallest of their largest batch sizes."""
    curves = [scenario.curve(m, cut) for m in scenario.manifests for cut in m.cuts if cut.cloud is not None]
    return tuple(math.fsum(times) / len(times) for times in zip(*curves, strict=False)) or (1.0,)
