"""Run the jobs of a workload through devices, links and cloud under one policy: a discrete-event simulation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitc.bundle.manifest import CutEntry, Manifest
from splitc.bundle.price import Price
from splitc.simulate.cloud import CloudWork, SimulatedCloud, Worker
from splitc.simulate.devices import Device
from splitc.simulate.events import Events
from splitc.simulate.fleet import Outage
from splitc.simulate.job import End, SimulatedJob
from splitc.simulate.links import Array
from splitc.simulate.policies import Policy, key_of
from splitc.simulate.scenario import Scenario, least_work_s
from splitc.simulate.workload import Workload

SLICES = 120  # of the horizon, for the plots over time
_TOLD_JOBS = 500


@dataclass(frozen=True, slots=True, eq=False)
class SimulationOutcome:
    """The outcome of a policy.

    Attributes:
        latency_s, end, cut: for each job of the workload: seconds (of a refused job, until it was refused), an `End`,
            and the index of the chosen cut in its manifest.
        busy_s: computing time of all machines, including results that no job waited for any more.
        until_s: the end of the last run, or the horizon, if that is later.
        refused: how often the cloud refused a request.
        load, price: over time, in `SLICES` of the horizon: share of busy workers, and the price at the slice's end.
    """

    policy: str
    latency_s: Array
    end: NDArray[np.int8]
    cut: NDArray[np.int16]
    busy_s: float
    until_s: float
    refused: int
    load: Array
    price: Array


def simulate(
    scenario: Scenario, workload: Workload, policy: Policy, told: Callable[[int], None]
) -> SimulationOutcome:
    """Run every job to its end; *told* is called with the number of jobs that have ended since its last call."""
    world = _World(scenario, workload, policy, told)
    world.run()
    return SimulationOutcome(
        policy=policy.name,
        latency_s=world.latency_s,
        end=world.end,
        cut=world.cut,
        busy_s=world.busy_s,
        until_s=world.until_s,
        refused=sum(worker.refused for worker in world.cloud.workers),
        load=world.work_s / (world.slice_s * len(world.cloud.workers)),
        price=np.array(world.prices),
    )


class _World:
    """The state that all jobs of one simulation share."""

    def __init__(
        self, scenario: Scenario, workload: Workload, policy: Policy, told: Callable[[int], None]
    ) -> None:
        fleet, count = scenario.fleet, len(workload)
        self.events, self.policy, self.request_s = Events(), policy, fleet.cloud.request_s
        self.latency_s, self.end = np.full(count, math.nan), np.full(count, -1, np.int8)
        self.cut = np.full(count, -1, np.int16)
        self.busy_s, self.slice_s = 0.0, fleet.horizon_s / SLICES
        self.until_s = fleet.horizon_s
        self.work_s, self.prices = np.zeros(SLICES), list[float]()
        self._scenario, self._workload, self._told = scenario, workload, told
        self._times_s = workload.time_s.tolist()
        self._devices: dict[int, Device] = {}
        self._parts: dict[tuple[str, str, str], CloudWork] = {}
        self._ended = 0
        self.cloud = SimulatedCloud(
            [self._worker() for _ in range(fleet.cloud.machines * fleet.cloud.workers)], seed=fleet.seed
        )

    def run(self) -> None:
        self._schedule_outages()
        for number in range(1, SLICES + 1):
            self.events.at(number * self.slice_s, self._sample)
        self._schedule_jobs()
        self.events.run()
        self._told(self._ended % _TOLD_JOBS)

    def part(self, manifest: Manifest, cut: CutEntry) -> CloudWork:
        key = (*key_of(manifest), cut.id)
        if key not in self._parts:
            alone_s = cut.cloud_s * self._scenario.fleet.cloud.slowdown
            run_s = tuple(alone_s * times for times in self._scenario.curve(manifest, cut))
            self._parts[key] = CloudWork(key, run_s, least_work_s(run_s))
        return self._parts[key]

    def ended(self, job: SimulatedJob, end: End, now_s: float) -> None:
        index = job.index
        self.latency_s[index] = now_s - self._times_s[index]
        self.end[index] = end
        self.cut[index] = self._device(index).manifest.cuts.index(job.decision.cut)
        self._ended += 1
        if self._ended % _TOLD_JOBS == 0:
            self._told(_TOLD_JOBS)

    # --- before it begins ---

    def _worker(self) -> Worker:
        cloud = self._scenario.fleet.cloud
        price = Price(capacity=cloud.utilisation, interval_s=cloud.price_interval_s)
        return Worker(self.events, max_queue=cloud.max_queue, price=price, on_run=self._count)

    def _schedule_jobs(self) -> None:
        """Each job schedules the next one, so that few events are pending at a time."""
        fleet, workload = self._scenario.fleet, self._workload
        truths = workload.conditions(fleet.cloud.slowdown)
        shares, owners = workload.share.tolist(), workload.owner.tolist()
        slas_s = [item.sla_s for item in fleet.classes]

        def begin(index: int, now_s: float) -> None:
            if index + 1 < len(truths):
                self.events.at(self._times_s[index + 1], lambda then_s: begin(index + 1, then_s))
            device = self._device(index)
            SimulatedJob(self, index, device, truths[index], shares[index], slas_s[owners[index]]).arrive(
                now_s
            )

        if truths:
            self.events.at(self._times_s[0], lambda then_s: begin(0, then_s))

    def _device(self, index: int) -> Device:
        number = int(self._workload.device[index])
        if number not in self._devices:
            fleet = self._scenario.fleet
            manifest = self._scenario.manifests[int(self._workload.owner[index])]
            learns = fleet.knowledge == "estimated"
            self._devices[number] = Device(manifest, self.events, learns=learns, seed=number)
        return self._devices[number]

    def _schedule_outages(self) -> None:
        for outage in self._scenario.fleet.cloud.down:
            for worker in self._down(outage):
                self.events.at(outage.from_s, worker.stop)
                self.events.at(outage.to_s, worker.start)

    def _down(self, outage: Outage) -> tuple[Worker, ...]:
        cloud = self._scenario.fleet.cloud
        machines = cloud.machines if outage.machines is None else outage.machines
        return self.cloud.workers[: machines * cloud.workers]

    # --- while it runs ---

    def _count(self, began_s: float, took_s: float) -> None:
        self.busy_s += took_s
        self.until_s = max(self.until_s, began_s + took_s)
        if began_s < self.slice_s * SLICES:
            self.work_s[int(began_s / self.slice_s)] += took_s

    def _sample(self, now_s: float) -> None:
        price = self.cloud.price(now_s)
        self.prices.append(0.0 if math.isinf(price) else price)
