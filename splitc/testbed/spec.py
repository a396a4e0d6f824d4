"""The description of an emulated link: rates or a recorded trace, a delay, a queue."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from splitc.common.errors import TestBedError

MTU_BYTES = 1500  # also what one delivery opportunity of a recorded trace carries
_SEGMENT_BYTES = 1448  # TCP's payload in it: 20 bytes of IP, 20 of TCP, 12 of timestamps


@dataclass(frozen=True, slots=True)
class Rate:
    """A steady rate, in bits per second of TCP payload, as speed tests and manifests state it.

    The line itself is 3.6 % faster, because of the headers of full packets.
    """

    bps: float

    def __post_init__(self) -> None:
        if not (0 < self.bps < math.inf):
            raise TestBedError(
                f"the rate of a link must be above zero and finite, not {self.bps:g} bit/s; "
                "for a dead link use black_hole() or cut()"
            )

    @property
    def line_bps(self) -> float:
        """Bits per second of IP packets, headers included."""
        return self.bps * MTU_BYTES / _SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class LinkTrace:
    """A recorded link: at each of these milliseconds one IP packet of 1,500 bytes can leave.

    The last one is also the length of the trace, which then repeats.
    """

    opportunities_ms: tuple[int, ...]

    def __post_init__(self) -> None:
        times = self.opportunities_ms
        if not times or times[-1] < 1:
            raise TestBedError("a trace needs at least one delivery opportunity after its first millisecond")
        if times[0] < 0 or any(later < earlier for earlier, later in pairwise(times)):
            raise TestBedError("the delivery opportunities of a trace must be in order, from 0 on")

    @property
    def length_s(self) -> float:
        """The time until it repeats."""
        return self.opportunities_ms[-1] / 1000

    @property
    def bps(self) -> float:
        """The mean rate, in bits per second of TCP payload."""
        return len(self.opportunities_ms) * _SEGMENT_BYTES * 8 / self.length_s


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Both directions of a link between a device and a cloud.

    Attributes:
        rtt_s: round trip of an empty packet; each direction takes half of it.
        queue_bytes: size of each direction's queue of IP packets; a packet that finds it full is dropped.
        loss: share of packets that are lost, at random but reproducibly.
    """

    uplink: Rate | LinkTrace
    downlink: Rate | LinkTrace
    rtt_s: float
    queue_bytes: int
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.rtt_s < math.inf):
            raise TestBedError(
                f"the round trip of a link must be finite and not below zero, not {self.rtt_s:g} s"
            )
        if self.queue_bytes < MTU_BYTES:
            raise TestBedError(
                f"the queue of a link must hold a packet of {MTU_BYTES} bytes, not {self.queue_bytes} bytes"
            )
        if not (0 <= self.loss <= 1):
            raise TestBedError(f"the loss of a link must lie between 0 and 1, not at {self.loss:g}")


def to_json(spec: LinkSpec) -> str:
    """*spec* on one line."""
    return json.dumps(
        {
            "uplink": _plain(spec.uplink),
            "downlink": _plain(spec.downlink),
            "rtt_s": spec.rtt_s,
            "queue_bytes": spec.queue_bytes,
            "loss": spec.loss,
        }
    )


def from_json(text: str) -> LinkSpec:
    """The inverse of `to_json`."""
    value = json.loads(text)
    return LinkSpec(**{**value, "uplink": _pace(value["uplink"]), "downlink": _pace(value["downlink"])})


def _plain(pace: Rate | LinkTrace) -> float | tuple[int, ...]:
    return pace.bps if isinstance(pace, Rate) else pace.opportunities_ms


def _pace(value: Any) -> Rate | LinkTrace:
    return LinkTrace(tuple(value)) if isinstance(value, list) else Rate(value)
