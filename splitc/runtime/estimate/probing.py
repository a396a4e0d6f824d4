"""When a device looks at its link without a request that would tell as much, and with what: one rule for those who run
and those who simulate.
"""

import math
from dataclasses import replace

from splitc.bundle.decide import Conditions, decide
from splitc.bundle.manifest import Manifest
from splitc.runtime.estimate.link import clamp

# While nothing is sent, what is known of the link grows old; if the device has gone alone for long, it may wait for
# news of the link for a share of that time: probes cost the user's data.
_STALE_S, _STALEST_S = 2.0, 20.0
_WAIT_SHARE = 1 / 8

BARE_BYTES = 200
"""About what a request without a body takes: the first of the two that a probe sends, for the round trip."""
UP_BYTES, DOWN_BYTES = 1 << 16, 1 << 14
"""The bytes that the second request sends and receives, for the rates."""


def is_due(*, age_s: float, silent_s: float, idle: bool) -> bool:
    """Whether to look at the link of a server that is well.

    Args:
        age_s: since anything was seen of the link; infinite if nothing ever was.
        silent_s: since the last answer to a request that was not a probe, or since the session began.
        idle: nothing is about to be sent that would tell as much.
    """
    stale_s = clamp(_WAIT_SHARE * silent_s, (_STALE_S, _STALEST_S))
    return math.isinf(age_s) or (idle and age_s > stale_s)


def link_matters(manifest: Manifest, conditions: Conditions) -> bool:
    """Whether the best link of the box, and a cloud for nothing, would change what a device chooses.

    If not, probes would only cost the user's data.
    """
    box = manifest.box
    best = replace(
        conditions,
        uplink_bps=box.uplink_bps[1],
        downlink_bps=box.downlink_bps[1],
        rtt_s=box.rtt_s[0],
        price=0.0,
    )
    return decide(manifest, best).cut.cloud is not None
