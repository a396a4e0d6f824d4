"""Links of a test bed, as the descriptions of networks tell."""

from splitc.bundle.decide import Conditions
from splitc.profile.targets.description import load_network
from splitc.testbed.spec import LinkSpec, Rate

_LEAST_QUEUE_BYTES = 1_000_000


def typical(name: str) -> Conditions:
    """What is usual on the network *name*."""
    network = load_network(name)
    return Conditions(network.uplink_bps.typical, network.downlink_bps.typical, network.rtt_s.typical)


def start(conditions: Conditions) -> list[float]:
    """The same for a device program."""
    return [conditions.uplink_bps, conditions.downlink_bps, conditions.rtt_s]


def link(conditions: Conditions) -> LinkSpec:
    """A link like that, whose queues hold what is under way in a round trip."""
    fastest_bps = max(conditions.uplink_bps, conditions.downlink_bps)
    return LinkSpec(
        Rate(conditions.uplink_bps),
        Rate(conditions.downlink_bps),
        rtt_s=conditions.rtt_s,
        queue_bytes=max(_LEAST_QUEUE_BYTES, round(fastest_bps / 8 * conditions.rtt_s)),
    )
