"""Lower bounds for any policy, by linear programming over the whole horizon.

Both bounds assume that every job, link and device is known in advance, and that no request waits. Their only limit is
the computing time of the machines that are up; each request costs its share of the best batch.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from splitc.bundle.decide import latency_s
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.simulate.fleet import CloudEntry
from splitc.simulate.links import Array
from splitc.simulate.scenario import Scenario, least_work_s
from splitc.simulate.workload import Workload

_WINDOWS = 30  # windows of the horizon: the work must fit into each
_TARGETS = 10.0  # the least ratio of a window to the longest target
_HALVINGS = 60
_HIGHEST_PRICE = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The outcome of each job if it were alone.

    Attributes:
        latency_s: (jobs, cuts); infinite where a bundle has fewer cuts.
        work_s: the same for cloud work.
        met: whether that meets the job's target; false for a job without a target.
    """

    latency_s: Array
    work_s: Array
    met: np.ndarray[Any, np.dtype[np.bool_]]


def reach(scenario: Scenario, workload: Workload) -> Reach:
    """Every job with every cut, on an idle cloud."""
    most = max(len(manifest.cuts) for manifest in scenario.manifests)
    latency = np.full((len(workload), most), math.inf)
    work = np.zeros_like(latency)
    truths = workload.conditions(scenario.fleet.cloud.slowdown)
    slas_s = np.array([math.nan if item.sla_s is None else item.sla_s for item in scenario.fleet.classes])
    for number, manifest in enumerate(scenario.manifests):
        own = np.flatnonzero(workload.owner == number)
        for place, cut in enumerate(manifest.cuts):
            latency[own, place] = [latency_s(cut, truths[index]) for index in own.tolist()]
            work[own, place] = _work_s(scenario, manifest, cut)
    return Reach(latency, work, latency <= slas_s[workload.owner][:, None])


def least_busy_s(scenario: Scenario, workload: Workload, found: Reach, met: int) -> float:
    """The least cloud time with which *met* jobs can meet their targets.

    Jobs of one class and window that the same cuts serve in time form a group. The variables are how many jobs of each
    group take which cut in time; the rest take the cut with the least work. Work for jobs in time falls into their
    window, or after it within the longest target.
    """
    rows = _Rows(scenario, workload, found)
    if not rows.costs:  # no cut is in time for any job
        return rows.rest_s
    done = linprog(
        rows.costs,
        A_ub=rows.matrix(),
        b_ub=[*rows.sizes, *rows.room_s, -met],
        bounds=(0, None),
        method="highs",
    )
    return float(done.fun) + rows.rest_s


def most_met(scenario: Scenario, workload: Workload, found: Reach) -> int:
    """The largest number of jobs that could meet their targets together."""
    rows = _Rows(scenario, workload, found)
    if not rows.costs:
        return 0
    limits = rows.matrix().tocsr()[:-1]
    done = linprog(
        -np.ones(len(rows.costs)),
        A_ub=limits,
        b_ub=[*rows.sizes, *rows.room_s],
        bounds=(0, None),
        method="highs",
    )
    return math.floor(1e-6 - float(done.fun))


def least_mean_s(scenario: Scenario, found: Reach, until_s: float) -> float:
    """The least mean latency, given what the cloud can compute until *until_s*.

    The dual of the linear program has one variable, the price of a cloud second, and is concave in it: each job takes
    the cut with the least latency + price x work (Kelly et al., 1998). Its highest value is the program's lowest.
    """
    room = room_s(scenario.fleet.cloud, 0.0, until_s)

    def at(price: float) -> tuple[float, float]:
        """The dual's value, and its slope."""
        asked = found.latency_s + price * found.work_s
        best = np.argmin(asked, axis=1)[:, None]
        over_s = float(np.take_along_axis(found.work_s, best, axis=1).sum()) - room
        return float(np.take_along_axis(asked, best, axis=1).sum()) - price * room, over_s

    low, high = 0.0, _HIGHEST_PRICE
    for _ in range(_HALVINGS):
        middle = (low + high) / 2 if low or high < 1 else math.sqrt(high)
        low, high = (middle, high) if at(middle)[1] > 0 else (low, middle)
    # The value at any price is a bound, so the bound holds even if the best price lies between.
    return max(at(price)[0] for price in (0.0, low, high)) / len(found.latency_s)


class _Rows:
    """The linear program, with a column for each cut that serves a group in time."""

    def __init__(self, scenario: Scenario, workload: Workload, found: Reach) -> None:
        fleet = scenario.fleet
        longest_s = max((item.sla_s for item in fleet.classes if item.sla_s is not None), default=0.0)
        window_s = max(fleet.horizon_s / _WINDOWS, _TARGETS * longest_s)
        windows = (workload.time_s / window_s).astype(int)
        groups = defaultdict[tuple[int, int, bytes], list[int]](list)
        for index, key in enumerate(
            zip(windows.tolist(), workload.owner.tolist(), map(bytes, found.met), strict=True)
        ):
            groups[key].append(index)
        count = int(windows.max(initial=0)) + 1
        self.room_s = [
            room_s(fleet.cloud, number * window_s, (number + 1) * window_s + longest_s)
            for number in range(count)
        ]
        self.sizes, self.costs, self.rest_s = list[float](), list[float](), 0.0
        self._entries = list[tuple[int, int, float]]()
        self._columns = 0
        for (window, _, _), jobs in groups.items():
            self._add(window, jobs, found)
        self._windows = count

    def matrix(self) -> coo_array:
        """Rows: jobs of each group, work of each window, and (negative) the jobs in time."""
        groups, places = len(self.sizes), len(self.sizes) + self._windows
        entries = [*self._flattened(groups), *((places, column, -1.0) for column in range(self._columns))]
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        return coo_array((values, (rows, columns)), shape=(places + 1, self._columns))

    def _flattened(self, groups: int) -> Iterator[tuple[int, int, float]]:
        for column, (group, window, work_s) in enumerate(self._entries):
            yield group, column, 1.0
            yield groups + window, column, work_s

    def _add(self, window: int, jobs: list[int], found: Reach) -> None:
        met, work_s = found.met[jobs[0]], found.work_s[jobs[0]]
        possible = np.isfinite(found.latency_s[jobs[0]])
        least_s = float(work_s[possible].min())
        self.rest_s += least_s * len(jobs)
        for place in np.flatnonzero(met).tolist():
            self._entries.append((len(self.sizes), window, float(work_s[place])))
            self.costs.append(float(work_s[place]) - least_s)
            self._columns += 1
        self.sizes.append(len(jobs))


def _work_s(scenario: Scenario, manifest: Manifest, cut: CutEntry) -> float:
    alone_s = scenario.fleet.cloud.slowdown * cut.cloud_s
    return least_work_s([alone_s * times for times in scenario.curve(manifest, cut)])


def room_s(cloud: CloudEntry, from_s: float, to_s: float) -> float:
    """The computing time of all machines between two times."""
    total_s = cloud.machines * (to_s - from_s)
    for outage in cloud.down:
        machines = cloud.machines if outage.machines is None else outage.machines
        total_s -= machines * max(min(to_s, outage.to_s) - max(from_s, outage.from_s), 0.0)
    return total_s * cloud.workers
