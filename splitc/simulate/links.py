"""The rates of a device's link at a moment: from the percentiles of a network, or from a recording."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splitc.profile.targets.description import load_network
from splitc.profile.targets.quantity import Spread
from splitc.simulate.fleet import Fleet, Percentiles
from splitc.testbed.spec import LinkTrace
from splitc.testbed.traces import read_trace

Array = NDArray[np.float64]

_OUTER = 1.6448536269514722  # standard deviations from the median to the 5th and 95th percentile
_LOOK_BYTES = 1 << 18  # about what a boundary takes
_PAYLOAD_BYTES = 1448  # of a packet of 1,500
_UP = ".up"


class Rates(Protocol):
    """One direction of a link."""

    def at(self, moods: Array, times_s: Array) -> Array:
        """Bits per second, one for each pair; *moods* are standard normal: zero is typical, high is good."""
        ...


@dataclass(frozen=True, slots=True)
class Wandering:
    """A distribution that is log-normal on each side of the median, through the percentiles."""

    percentiles: Percentiles

    def at(self, moods: Array, times_s: Array) -> Array:  # noqa: ARG002 - the same at all times
        """The value at each mood."""
        return quantile(self.percentiles, moods)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedRate:
    """The rate at which a trace, repeated endlessly, delivers the next 256 KiB."""

    trace: LinkTrace

    def at(self, moods: Array, times_s: Array) -> Array:  # noqa: ARG002 - whatever the mood
        """The rate from each moment on."""
        ends_ms = np.asarray(self.trace.opportunities_ms, np.float64)
        count, length_ms = len(ends_ms), ends_ms[-1]
        packets = math.ceil(_LOOK_BYTES / _PAYLOAD_BYTES)
        begun_ms = 1000 * times_s % length_ms
        last = np.searchsorted(ends_ms, begun_ms, side="right") + packets - 1
        taken_ms = ends_ms[last % count] + last // count * length_ms - begun_ms
        rates_bps: Array = 8000 * packets * _PAYLOAD_BYTES / np.maximum(taken_ms, 1.0)
        return rates_bps


@dataclass(frozen=True, slots=True)
class SimulatedLink:
    """Both directions, and the round trip, which is short while rates are high."""

    uplink: Rates
    downlink: Rates
    rtt_s: Percentiles


def quantile(percentiles: Percentiles, moods: Array) -> Array:
    """The value that lies *moods* standard deviations from the median."""
    low, high = percentiles.low, percentiles.high
    below = math.log(percentiles.typical / low) / _OUTER if low is not None else 0.0
    above = math.log(high / percentiles.typical) / _OUTER if high is not None else 0.0
    return percentiles.typical * np.exp(moods * np.where(moods < 0, below, above))


def load_links(fleet: Fleet, trace: Path | None = None) -> dict[str, SimulatedLink]:
    """Every link that the classes of *fleet* name; with *trace*, all have its rates and keep their round trips.

    Args:
        trace: the uplink's; if its name ends with .up and there is a file with .down, that is the downlink's.

    Raises:
        TargetError: there is no such network.
        TestBedError: a trace cannot be read.
    """
    named = dict.fromkeys(name for item in fleet.classes for name in item.networks)
    links = {name: _link(fleet, name) for name in named}
    if trace is None:
        return links
    beside = trace.with_suffix(".down")
    uplink = _recorded(trace)
    downlink = _recorded(beside) if trace.suffix == _UP and beside.exists() else uplink
    return {name: SimulatedLink(uplink, downlink, link.rtt_s) for name, link in links.items()}


def _link(fleet: Fleet, name: str) -> SimulatedLink:
    if name in fleet.traces:
        entry = fleet.traces[name]
        return SimulatedLink(_recorded(Path(entry.uplink)), _recorded(Path(entry.downlink)), entry.rtt_s)
    network = load_network(name)
    return SimulatedLink(
        Wandering(_percentiles(network.uplink_bps)),
        Wandering(_percentiles(network.downlink_bps)),
        _percentiles(network.rtt_s),
    )


def _percentiles(spread: Spread) -> Percentiles:
    return Percentiles(spread.typical, spread.low, spread.high)


def _recorded(path: Path) -> RecordedRate:
    return RecordedRate(read_trace(path))
