"""When an answer of the cloud is late, and when it is given up: one rule for those who run and those who simulate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from splitc.bundle.decide import Decision, choose
from splitc.bundle.manifest import CutEntry
from splitc.runtime.estimate.link import clamp

# An answer is late when the device alone would have finished, but within these multiples of its expected time,
# plus the time that a new connection or a pause may cost.
_LATE_FACTORS, _LATE_S = (1.25, 2.0), 0.1
# After the caller has gone on, a late answer is still awaited until then: it tells how slow the link is.
_GIVE_UP_FACTOR, _GIVE_UP_S = 4.0, 0.5
# For this long after a late or missing answer, the device starts at the same time as the cloud, if it can.
UNSTEADY_S = 60.0
# Meanwhile estimates are behind the link: an answer that is expected to take this many times as long as the device is
# often there before it. (On a recorded cellular link, after a bad spell: up to three times too slow for eight seconds.)
_WORTH_SENDING = 4.0
# Where the device cannot do without the server, it waits as long as a person might.
_ALONE_S = 30.0
_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after sending: until an answer is late, and until it is given up."""

    late_s: float
    give_up_s: float


def patience(decision: Decision, all_head: CutEntry | None) -> Patience:
    """How long to wait for the cloud's part of *decision*; *all_head*: what the device can do without it, if anything."""
    slowdown = decision.conditions.device_slowdown
    device_s = slowdown * decision.cut.device_s
    expected_s = decision.latency_s - device_s
    give_up_s = min(_GIVE_UP_FACTOR * expected_s + _GIVE_UP_S, _LONGEST_S)
    if all_head is None:
        return Patience(max(give_up_s, _ALONE_S), max(give_up_s, _ALONE_S))
    least, most = (factor * expected_s + _LATE_S for factor in _LATE_FACTORS)
    late_s = min(clamp(slowdown * all_head.device_s - device_s, (least, most)), _LONGEST_S)
    return Patience(late_s, max(late_s, give_up_s))


def also_sent(cuts: Sequence[CutEntry], alone: Decision, sla_s: float | None) -> Decision:
    """What a device that begins at the same time as the cloud sends where it would go *alone*, if anything.

    The answer may be there first, and tells how the link is. Where somebody asks for little work in the cloud, with a
    target *sla_s* or a price, nothing is sent that may be in vain.
    """
    whole = [cut for cut in cuts if cut.device is None]
    if alone.cut.cloud is not None or sla_s is not None or alone.conditions.price or not whole:
        return alone
    sent = choose(whole, alone.conditions)
    if sent.latency_s > _WORTH_SENDING * alone.latency_s:
        return alone
    return replace(sent, reason=f"{alone.reason} on the device, which begins, too")
