"""Which cut to run under given conditions (DESIGN sections 6 and 8): pure arithmetic, no I/O."""

import math
from dataclasses import dataclass

from splitc.bundle import CutEntry, Manifest
from splitc.errors import NoFeasibleCut


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the scheduler knows when it decides.

    Attributes:
        head_slowdown, tail_slowdown: real over recorded time of each side.
        uplink_bps, downlink_bps: zero where there is no link at the moment.
        queue_s: time a request waits in the cloud before its tail starts.
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    queue_s: float = 0.0
    head_slowdown: float = 1.0
    tail_slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen cut, its predicted latency under `conditions`, and why it was chosen."""

    cut: CutEntry
    latency_s: float
    conditions: Conditions
    reason: str


def latency_s(cut: CutEntry, conditions: Conditions) -> float:
    """Seconds from input ready to result ready (DESIGN section 6)."""
    total = conditions.head_slowdown * cut.head.latency_s if cut.head is not None else 0.0
    if cut.tail is None:
        return total
    return (
        total
        + conditions.rtt_s
        + conditions.queue_s
        + _transfer_s(cut.uplink_bytes, conditions.uplink_bps)
        + conditions.tail_slowdown * cut.tail.latency_s
        + _transfer_s(cut.downlink_bytes, conditions.downlink_bps)
    )


def decide(manifest: Manifest, conditions: Conditions, sla_s: float | None = None) -> Decision:
    """Choose the fastest cut; under a target latency the one with the least cloud work that meets it.

    Ties go to the smaller payload, then to the smaller head.

    Raises:
        NoFeasibleCut: the manifest holds no cut.
    """
    ranked = sorted(
        ((latency_s(cut, conditions), cut) for cut in manifest.cuts),
        key=lambda pair: (pair[0], *_size(pair[1])),
    )
    if not ranked:
        raise NoFeasibleCut("the bundle holds no cut; compile it again")
    latency, cut = ranked[0]
    if sla_s is None:
        return Decision(cut, latency, conditions, "lowest latency")
    meeting = [pair for pair in ranked if pair[0] <= sla_s]
    if not meeting:
        return Decision(cut, latency, conditions, "no cut meets the target; lowest latency")
    latency, cut = min(meeting, key=lambda pair: (_tail_s(pair[1]), pair[0], *_size(pair[1])))
    return Decision(cut, latency, conditions, "least cloud work within the target")


def _transfer_s(size_bytes: int, rate_bps: float) -> float:
    """Never over a dead link, even for nothing: the request itself has to arrive."""
    return 8 * size_bytes / rate_bps if rate_bps > 0 else math.inf


def _tail_s(cut: CutEntry) -> float:
    return cut.tail.latency_s if cut.tail is not None else 0.0


def _size(cut: CutEntry) -> tuple[int, int]:
    return (cut.uplink_bytes, cut.head.weight_bytes if cut.head is not None else 0)
