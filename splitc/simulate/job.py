"""One job of a simulation, from input ready to result ready, as `splitc.runtime.pair` runs it."""

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Protocol

from splitc.bundle.decide import Conditions, Decision
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.estimate.patience import also_sent, patience
from splitc.runtime.estimate.probing import link_matters
from splitc.simulate.cloud import CloudWork, SimulatedCloud, Worker
from splitc.simulate.devices import Device
from splitc.simulate.events import Act, Events
from splitc.simulate.policies import Policy
from splitc.simulate.probe import Probe
from splitc.simulate.processor import ProcessorRun
from splitc.simulate.tcp import TcpConnection, after_first_s


class End(IntEnum):
    """How a job ended: where its result was made."""

    DEVICE = 0
    SPLIT = 1
    CLOUD = 2
    REFUSED = 3


class World(Protocol):
    """The world of a job."""

    events: Events
    cloud: SimulatedCloud
    policy: Policy
    request_s: float

    def part(self, manifest: Manifest, cut: CutEntry) -> CloudWork:
        """What the cloud runs of *cut*."""
        ...

    def ended(self, job: "SimulatedJob", end: End, now_s: float) -> None:
        """*job* is over."""
        ...


@dataclass(frozen=True, slots=True)
class _Said:
    """What the cloud reports with its answer, and how long the answer is on its way."""

    queue_s: float
    compute_s: float
    price: float
    down_s: float


class SimulatedJob:
    """One job; *truth* is the state of its link and device, *share* its random share of the price."""

    def __init__(
        self, world: World, index: int, device: Device, truth: Conditions, share: float, sla_s: float | None
    ) -> None:
        self.index = index
        self.deadline_s = math.inf
        self.decision: Decision
        self._world, self._device, self._truth = world, device, truth
        self._share, self._sla_s = share, sla_s
        self._is_over = self._is_sent = False
        self._alone: ProcessorRun | None = None  # what the device does instead of the cloud
        self._is_settled = False  # the exchange has ended, or the job does not wait for it
        self._worker: Worker | None = None
        self._connection: TcpConnection
        self._began_s = self._sent_s = self._up_s = 0.0

    def arrive(self, now_s: float) -> None:
        """The input is ready."""
        world, device = self._world, self._device
        truth = self._truth if device.learns else self._whole_truth(now_s)
        believed = device.believed(truth, self._share, now_s)
        decision = world.policy.choose(device.manifest, believed, self._sla_s)
        if world.policy.is_free and not device.server_state.is_steady(now_s):
            decision = also_sent(device.manifest.cuts, decision, self._sla_s)
        self.decision = decision
        self._look(believed, now_s)
        if decision.cut.cloud is None:
            self._run_here(decision.cut, now_s)
        elif not believed.uplink_bps:
            self._go_on_alone(now_s)
        elif decision.cut.is_cloud_first or decision.cut.device is None:
            self._send(now_s)
        else:
            self._run(decision.cut, self._send, now_s)

    def _whole_truth(self, now_s: float) -> Conditions:
        """The conditions with queue and price; a cloud that is down cannot be reached."""
        cloud = self._world.cloud
        price = cloud.price(now_s)
        if math.isinf(price):
            return replace(self._truth, uplink_bps=0.0)
        return replace(self._truth, queue_s=cloud.wait_s(now_s), price=price)

    def _look(self, believed: Conditions, now_s: float) -> None:
        """Let the device send a probe if one is due and could change its choice."""
        device, policy = self._device, self._world.policy
        is_alone = policy.is_free and self.decision.cut.cloud is None
        if device.looks(now_s, idle=is_alone and link_matters(device.manifest, believed)):
            self._probe(now_s)

    def _probe(self, now_s: float) -> None:
        Probe(self._world.events, self._world.cloud, self._device, self._truth, now_s)

    # --- the device ---

    def _go_on_alone(self, now_s: float) -> None:
        """Continue without the cloud; a job without an all-head cut ends here."""
        if self._device.alone is None:
            self._end(End.REFUSED, now_s)
        elif self._alone is None:
            self._run_here(self._device.alone, now_s)

    def _run_here(self, cut: CutEntry, now_s: float) -> None:
        self._alone = self._run(cut, self._done_here, now_s)

    def _done_here(self, now_s: float) -> None:
        self._end(End.DEVICE, now_s)
        if self._is_sent and not self._is_settled:
            self._leave_behind()

    def _run(self, cut: CutEntry, then: Act, now_s: float) -> ProcessorRun:
        took_s = self._truth.device_slowdown * cut.device_s

        def done(then_s: float) -> None:
            self._device.server_state.device_ran(cut.device_s, took_s)
            then(then_s)

        return self._device.processor.run(took_s, done, now_s)

    def _end(self, end: End, now_s: float) -> None:
        if not self._is_over:
            self._is_over = True
            self._world.ended(self, end, now_s)

    # --- the exchange ---

    def _send(self, now_s: float) -> None:
        events, cut, truth = self._world.events, self.decision.cut, self._truth
        waits = patience(self.decision, self._device.alone)
        self._is_sent, self._began_s = True, now_s
        self.deadline_s = now_s + (
            waits.give_up_s if self._device.server_state.is_usable(now_s) else waits.late_s
        )
        kept = self._device.line.take(now_s)
        self._connection = kept or TcpConnection()
        self._sent_s = now_s if kept is not None else now_s + truth.rtt_s
        self._up_s = self._connection.carry_s("up", cut.uplink_bytes, truth, self._sent_s)
        events.at(now_s + waits.late_s, self._late)
        events.at(self._sent_s + self._up_s + self._world.request_s, self._reach)
        if (
            self._world.policy.is_free
            and self._device.alone is not None
            and not self._device.server_state.is_steady(now_s)
        ):
            self._go_on_alone(now_s)

    def _reach(self, now_s: float) -> None:
        events, back_s = self._world.events, self._truth.rtt_s / 2
        worker = self._world.cloud.worker()
        if worker is None:
            events.at(now_s + back_s, self._fail)
            return
        self._worker = worker
        after_s = worker.submit(self, self._world.part(self._device.manifest, self.decision.cut), now_s)
        if after_s is not None:
            price = worker.price.now(now_s)
            events.at(now_s + back_s, lambda then_s: self._refused(after_s, price, then_s))

    def computed(self, queue_s: float, compute_s: float, now_s: float) -> None:
        """The cloud has run its part, and sends the result."""
        assert self._worker is not None, "it reached one"
        price = self._worker.price.now(now_s)
        down_s = self._connection.carry_s("down", self.decision.cut.downlink_bytes, self._truth, now_s)
        said = _Said(queue_s, compute_s, price, down_s)
        self._world.events.at(now_s + down_s, partial(self._answered, said))

    def broke(self, now_s: float) -> None:
        """The connection breaks off."""
        self._world.events.at(now_s + self._truth.rtt_s / 2, self._fail)

    def _answered(self, said: _Said, now_s: float) -> None:
        if self._settle():
            return
        cut, truth = self.decision.cut, self._truth
        self._device.line.keep(self._connection, now_s)
        download_s = after_first_s(said.down_s, cut.downlink_bytes, truth.downlink_bps, truth.rtt_s)
        told = ObservedExchange(
            uplink_bytes=cut.uplink_bytes,
            downlink_bytes=cut.downlink_bytes,
            wait_s=now_s - self._sent_s - download_s,
            download_s=download_s,
            recv_s=after_first_s(self._up_s, cut.uplink_bytes, truth.uplink_bps, truth.rtt_s),
            queue_s=said.queue_s,
            compute_s=said.compute_s,
            cloud_s=cut.cloud_s,
            price=said.price,
        )
        self._device.server_state.answered(told, now_s)
        if self._alone is not None:
            self._device.processor.end(self._alone, now_s)
        end = End.SPLIT if cut.device is not None else End.CLOUD
        if cut.is_cloud_first and not self._is_over:
            self._run(cut, lambda then_s: self._end(end, then_s), now_s)
        else:
            self._end(end, now_s)

    def _refused(self, after_s: float, price: float, now_s: float) -> None:
        if not self._settle():
            self._device.line.keep(self._connection, now_s)
            self._device.server_state.refused(after_s, price, now_s)
            self._go_on_alone(now_s)

    def _fail(self, now_s: float) -> None:
        if not self._settle():
            self._device.failed(now_s)
            self._go_on_alone(now_s)

    def _late(self, now_s: float) -> None:
        if self._is_settled:
            return
        if not self._is_over:
            self._device.server_state.was_late(now_s)
        if self.deadline_s <= now_s:
            self._give_up(now_s)
            return
        self._leave_behind()
        self._world.events.at(self.deadline_s, self._give_up)
        self._go_on_alone(now_s)

    def _leave_behind(self) -> None:
        """Let the exchange go on, because its end is a measurement."""
        self._device.server_state.leave_behind(self)

    def _give_up(self, now_s: float) -> None:
        if not self._settle():
            if self._device.heard_nothing(self.decision.cut, now_s - self._began_s, now_s):
                self._probe(now_s)
            self._go_on_alone(now_s)

    def _settle(self) -> bool:
        """End the exchange; return whether it had ended before."""
        was = self._is_settled
        self._is_settled = True
        self._device.server_state.ended(self)
        return was
