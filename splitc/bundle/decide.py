"""Which cut to run under given conditions: arithmetic only, no I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from splitc.bundle.manifest import BoxEntry, CutEntry, Manifest
from splitc.common.errors import NoFeasibleCut

# In a simulated fleet on mobile links, 86 % of the jobs met their target with this, 83 % without (docs/scheduling.md).
_AIM = 0.8


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the scheduler knows when it decides.

    Attributes:
        device_slowdown, cloud_slowdown: actual time divided by recorded time of each side.
        uplink_bps, downlink_bps: zero if there is no link at the moment.
        queue_s: time a request waits in the cloud before its part of the work starts.
        price: the price of one second of cloud time, in seconds of latency (see `splitc.bundle.price`).
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    queue_s: float = 0.0
    device_slowdown: float = 1.0
    cloud_slowdown: float = 1.0
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen cut, its predicted latency under `conditions`, and why it was chosen."""

    cut: CutEntry
    latency_s: float
    conditions: Conditions
    reason: str


def latency_s(cut: CutEntry, conditions: Conditions) -> float:
    """Return the seconds from input ready to result ready: head, uplink, tail, downlink, RTT and queue."""
    total = conditions.device_slowdown * cut.device_s
    if cut.cloud is None:
        return total
    return (
        total
        + conditions.rtt_s
        + conditions.queue_s
        + _transfer_s(cut.uplink_bytes, conditions.uplink_bps)
        + conditions.cloud_slowdown * cut.cloud_s
        + _transfer_s(cut.downlink_bytes, conditions.downlink_bps)
    )


def decide(manifest: Manifest, conditions: Conditions, sla_s: float | None = None) -> Decision:
    """Choose the cut with the least latency + price x cloud time; under a target latency, the least cloud time.

    Under a target, only cuts that meet it count; if none does, the target is ignored. Of equally good cuts, the one
    with the smaller payload is chosen, then the one with fewer weights on the device.

    Raises:
        NoFeasibleCut: the manifest holds no cut.
    """
    return choose(manifest.cuts, conditions, sla_s)


def choose(cuts: Sequence[CutEntry], conditions: Conditions, sla_s: float | None = None) -> Decision:
    """Choose as `decide` does, but only from *cuts*."""
    if not cuts:
        raise NoFeasibleCut("the bundle holds no cut; compile it again")
    found = [(latency_s(cut, conditions), cut) for cut in cuts]
    if sla_s is not None:
        meeting = [pair for pair in found if pair[0] <= sla_s]
        if meeting:
            latency, cut = min(meeting, key=lambda pair: (pair[1].cloud_s, pair[0], *_size(pair[1])))
            return Decision(cut, latency, conditions, "least cloud work within the target")
    price = conditions.price
    latency, cut = min(found, key=lambda pair: (pair[0] + price * pair[1].cloud_s, *_size(pair[1])))
    reason = "lowest latency and price of the cloud" if price else "lowest latency"
    return Decision(
        cut, latency, conditions, reason if sla_s is None else f"no cut meets the target; {reason}"
    )


def aim(cuts: Sequence[CutEntry], conditions: Conditions, sla_s: float | None = None) -> Decision:
    """Choose as `choose` does for 80 % of the target; if no cut meets that, for the whole target.

    A link estimate is a median: of the requests predicted to take exactly the target latency, half take longer.
    """
    if sla_s is not None:
        found = choose(cuts, conditions, _AIM * sla_s)
        if found.latency_s <= _AIM * sla_s:
            return found
    return choose(cuts, conditions, sla_s)


def _transfer_s(size_bytes: int, rate_bps: float) -> float:
    """Return infinity for a dead link, even for zero bytes, because the request itself cannot arrive."""
    return 8 * size_bytes / rate_bps if rate_bps > 0 else math.inf


def _size(cut: CutEntry) -> tuple[int, int]:
    return (cut.uplink_bytes, cut.device.weight_bytes if cut.device is not None else 0)


def middle_of(box: BoxEntry) -> Conditions:
    """Return default conditions: the geometric middle of the link in *box*, and no slowdown on either side."""
    return Conditions(
        uplink_bps=math.sqrt(math.prod(box.uplink_bps)),
        downlink_bps=math.sqrt(math.prod(box.downlink_bps)),
        rtt_s=math.sqrt(math.prod(box.rtt_s)),
    )
