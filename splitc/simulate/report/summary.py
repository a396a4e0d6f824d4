"""The results of a policy, in the figures that people compare."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitc.simulate.bounds.offline import Reach, least_busy_s, least_mean_s, most_met
from splitc.simulate.engine import SimulationOutcome
from splitc.simulate.job import End
from splitc.simulate.links import Array
from splitc.simulate.scenario import Scenario
from splitc.simulate.workload import Workload

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of a class, or all.

    Attributes:
        mean_s, p50_s, p95_s, p99_s: latency of those that were not refused; None if all were.
        met: share of the jobs with a target that met it; None if no job has a target.
        device, split, cloud, refused: shares of jobs by where they ended.
    """

    name: str
    jobs: float
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    met: float | None
    device: float
    split: float
    cloud: float
    refused: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for any policy, for the same jobs.

    Attributes:
        busy_s: the least cloud time with which as many jobs meet their targets; None without targets.
        met: the highest possible share; None without targets.
        mean_s: the least mean latency; None if jobs were refused.
    """

    busy_s: float | None
    met: float | None
    mean_s: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy.

    Attributes:
        busy_s: computing time of all machines; `utilisation` is that divided by their total time.
        turned_away: how often the cloud refused a request; most of these jobs ended on the device.
        spread: the highest 95th percentile of a class divided by the lowest; None if a class has none.
        bounds: None if no events were simulated.
    """

    policy: str
    all: Group
    classes: tuple[Group, ...]
    busy_s: float
    utilisation: float
    usd: float | None
    turned_away: float
    spread: float | None
    bounds: Bounds | None


def summarise(scenario: Scenario, workload: Workload, outcome: SimulationOutcome, found: Reach) -> Summary:
    """The figures of one simulation."""
    weights = np.ones(len(workload))
    return summary(
        scenario,
        outcome.policy,
        (outcome.latency_s, outcome.end, workload.owner, weights),
        busy_s=outcome.busy_s,
        until_s=outcome.until_s,
        turned_away=outcome.refused,
        bounds=_bounds(scenario, workload, outcome, found),
    )


def summary(
    scenario: Scenario,
    policy: str,
    jobs: tuple[Array, NDArray[np.int8], NDArray[np.int64], Array],
    *,
    busy_s: float,
    until_s: float,
    turned_away: float,
    bounds: Bounds | None,
) -> Summary:
    """The figures of *jobs*: latency, end, class and weight of each."""
    fleet, cloud = scenario.fleet, scenario.fleet.cloud
    owner = jobs[2]
    slas_s = np.array([math.nan if item.sla_s is None else item.sla_s for item in fleet.classes])[owner]
    classes = tuple(
        _group(item.name, jobs, slas_s, owner == number) for number, item in enumerate(fleet.classes)
    )
    slowest = [group.p95_s for group in classes if group.p95_s is not None]
    capacity_s = until_s * cloud.machines * cloud.workers
    price = cloud.usd_per_hour
    return Summary(
        policy=policy,
        all=_group("all", jobs, slas_s, np.full(len(owner), fill_value=True)),
        classes=classes,
        busy_s=busy_s,
        utilisation=busy_s / capacity_s,
        usd=None if price is None else price * busy_s / cloud.workers / _HOUR_S,
        turned_away=turned_away,
        spread=max(slowest) / min(slowest) if len(slowest) == len(classes) and min(slowest) > 0 else None,
        bounds=bounds,
    )


def percentile(values: Array, weights: Array, share: float) -> float:
    """The least value that at least *share* of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))
    return float(values[order][min(place, len(values) - 1)])


def _group(
    name: str,
    jobs: tuple[Array, NDArray[np.int8], NDArray[np.int64], Array],
    slas_s: Array,
    own: NDArray[np.bool_],
) -> Group:
    latency, end, weight = jobs[0][own], jobs[1][own], jobs[3][own]
    total = float(weight.sum())
    served = end != End.REFUSED
    with_target = ~np.isnan(slas_s[own])
    in_time = served & with_target & (latency <= slas_s[own])
    some = bool(weight[served].sum() > 0)
    shares = [float(weight[end == kind].sum()) / total if total else 0.0 for kind in End]
    values = latency[served], weight[served]
    return Group(
        name=name,
        jobs=total,
        mean_s=float(np.average(values[0], weights=values[1])) if some else None,
        p50_s=percentile(*values, 0.5) if some else None,
        p95_s=percentile(*values, 0.95) if some else None,
        p99_s=percentile(*values, 0.99) if some else None,
        met=float(weight[in_time].sum() / weight[with_target].sum()) if np.any(with_target) else None,
        device=shares[End.DEVICE],
        split=shares[End.SPLIT],
        cloud=shares[End.CLOUD],
        refused=shares[End.REFUSED],
    )


def _bounds(scenario: Scenario, workload: Workload, outcome: SimulationOutcome, found: Reach) -> Bounds:
    slas_s = np.array([math.nan if item.sla_s is None else item.sla_s for item in scenario.fleet.classes])
    own_s = slas_s[workload.owner]
    targets = int(np.count_nonzero(~np.isnan(own_s)))
    met = int(np.count_nonzero((outcome.end != End.REFUSED) & (outcome.latency_s <= own_s)))
    refused = bool(np.any(outcome.end == End.REFUSED))
    until_s = float((workload.time_s + outcome.latency_s).max(initial=scenario.fleet.horizon_s))
    return Bounds(
        busy_s=least_busy_s(scenario, workload, found, met) if targets else None,
        met=most_met(scenario, workload, found) / targets if targets else None,
        mean_s=least_mean_s(scenario, found, until_s) if len(workload) and not refused else None,
    )
