"""The best cut of a bundle on usual networks, and how it compares with all-head and all-tail."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from splitc.bundle.decide import Conditions, Decision, decide, latency_s
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.profile.targets.description import Network

_FAR_OFF = 100.0  # no prediction is wrong by more: beyond this there is nothing to warn about


Range = tuple[float, float]
"""Lowest and highest latency in seconds, at the ends of the intervals of head and tail."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one network at its typical rates.

    Attributes:
        all_head_s, all_tail_s: the two unsplit choices; None where the bundle lacks one.
        range_s, all_head_range_s, all_tail_range_s: of the chosen cut and of these two; None if no
            interval is known for their times.
        holds_to: how many times slower than its predicted times the device may be before another cut is
            faster; None if nothing is predicted, if it never happens, or if a target latency decides.
    """

    network: str
    decision: Decision
    all_head_s: float | None
    all_tail_s: float | None
    range_s: Range | None
    all_head_range_s: Range | None
    all_tail_range_s: Range | None
    sla_s: float | None
    holds_to: float | None = None

    def sentence(self) -> str:
        """The decision in plain words, and how wrong a prediction may be before it changes."""
        if self.holds_to is None or self.holds_to > _FAR_OFF:
            return self._decision()
        return f"{self._decision()}, unless the device is over {self.holds_to:.3g}x slower than predicted"

    def _decision(self) -> str:
        cut, latency = self.decision.cut, self.decision.latency_s
        missed = self.sla_s is not None and latency > self.sla_s
        prefix = f"on {self.network} " + ("nothing meets the target; " if missed else "")
        if cut.kind == "all-head":
            return prefix + "the whole model is best kept on the device"
        if cut.kind == "all-tail":
            return prefix + "the whole model is best run in the cloud"
        others = [value for value in (self.all_head_s, self.all_tail_s) if value is not None]
        if others and min(others) > latency:
            gain = min(others) / latency
            return prefix + f"cut {cut.id} is {gain:.2f}x as fast as the better of device and cloud alone"
        if self.sla_s is not None and not missed:
            return prefix + f"cut {cut.id} does the least cloud work within the target"
        return prefix + f"cut {cut.id} is the fastest of those that the limits leave"


def typical(network: Network) -> Conditions:
    """The typical conditions on *network*, with an empty queue in the cloud."""
    return Conditions(network.uplink_bps.typical, network.downlink_bps.typical, network.rtt_s.typical)


def judge(manifest: Manifest, networks: Sequence[Network], sla_s: float | None = None) -> tuple[Verdict, ...]:
    """Decide for every network."""
    return tuple(_judge(manifest, network, sla_s) for network in networks)


def _judge(manifest: Manifest, network: Network, sla_s: float | None) -> Verdict:
    conditions = typical(network)
    decision = decide(manifest, conditions, sla_s)
    alone = {cut.kind: latency_s(cut, conditions) for cut in manifest.cuts if cut.kind != "split"}
    ranges = {cut.kind: _range(cut, alone[cut.kind]) for cut in manifest.cuts if cut.kind != "split"}
    return Verdict(
        network=network.name,
        decision=decision,
        all_head_s=alone.get("all-head"),
        all_tail_s=alone.get("all-tail"),
        range_s=_range(decision.cut, decision.latency_s),
        all_head_range_s=ranges.get("all-head"),
        all_tail_range_s=ranges.get("all-tail"),
        sla_s=sla_s,
        holds_to=_holds_to(manifest, decision) if sla_s is None else None,
    )


def _holds_to(manifest: Manifest, decision: Decision) -> float | None:
    """The smallest device slowdown at which a cut with less work on the device is faster; latency is linear in it."""
    if decision.cut.device is None or manifest.targets.device.source != "predicted":
        return None
    crossings = []
    for cut in manifest.cuts:
        spared_s = decision.cut.device_s - cut.device_s
        if spared_s > 0:
            behind_s = latency_s(cut, decision.conditions) - decision.latency_s
            crossings.append(decision.conditions.device_slowdown + behind_s / spared_s)
    return min(crossings, default=None)


def _range(cut: CutEntry, latency: float) -> Range | None:
    known = [
        (part.interval, part.latency_s)
        for part in (cut.head, cut.tail)
        if part is not None and part.interval is not None
    ]
    if not known:
        return None
    low, high = (fsum((bounds[end] - 1) * seconds for bounds, seconds in known) for end in (0, 1))
    return latency + low, latency + high
