"""Express latency as a scalar product of prices, which depend on the conditions, and amounts of a cut.

Prices are (device slowdown, cloud slowdown, uplink s/byte, downlink s/byte, round trip s); amounts are
(device_s, cloud_s, uplink_bytes, downlink_bytes, 1 if the cut offloads). If all cuts that offload receive
the same number of bytes, the downlink time is added to the round trip, and the downlink has no own price.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Box
from splitc.solve.cuts import Cut

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer[Any]]

# Returns the best feasible cut at prices (device, cloud, uplink, downlink), ignoring the round trip.
Oracle = Callable[[FloatArray], Cut]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """The prices that matter for one graph, and their range; the round trip is always the last one.

    Attributes:
        low, high: the lowest and the highest value of each price.
        keeps_downlink: whether the downlink has a price of its own.
    """

    low: FloatArray
    high: FloatArray
    keeps_downlink: bool

    def scaled_low(self) -> FloatArray:
        """Return the lowest value of each price divided by its highest value."""
        return np.divide(self.low, self.high, out=np.ones_like(self.low), where=self.high > 0)

    def scaled_amounts(self, cuts: Iterable[Cut]) -> FloatArray:
        """Return, for each cut (row) and price (column), the seconds at the highest price.

        The product with scaled prices is the latency.
        """
        rows = [(c.device_s, c.cloud_s, c.uplink_bytes, c.downlink_bytes, c.offloads) for c in cuts]
        amounts = np.array(rows, dtype=np.float64).reshape(-1, 5)
        return (amounts if self.keeps_downlink else np.delete(amounts, 3, axis=1)) * self.high

    def oracle_prices(self, scaled: FloatArray) -> FloatArray:
        """Convert scaled prices, without the round trip, to the prices that an oracle takes."""
        prices: FloatArray = scaled * self.high[:-1]
        return prices if self.keeps_downlink else np.append(prices, 0.0)


def make_space(graph: Graph, box: Box, directions: Sequence[Direction] = ("device-first",)) -> Space:
    """Find the prices that matter for cuts of *graph* in *directions*, and their range in *box*.

    Raises:
        ValueError: a range is empty or not positive.
    """
    pairs = [
        box.device_slowdown,
        box.cloud_slowdown,
        _s_per_byte(box.uplink_bps),
        _s_per_byte(box.downlink_bps),
        box.rtt_s,
    ]
    low, high = np.array(pairs, dtype=np.float64).T
    if not (np.all(low <= high) and np.all(low[:4] > 0) and low[4] >= 0 and np.all(np.isfinite(high))):
        raise ValueError(f"each range of the box must be (lowest, highest), finite and above zero: {box}")
    # The bytes that the device receives differ between cloud-first cuts.
    returned = _constant_downlink_bytes(graph) if "cloud-first" not in directions else None
    if returned is None:
        return Space(low, high, keeps_downlink=True)
    low[4] += low[3] * returned
    high[4] += high[3] * returned
    return Space(np.delete(low, 3), np.delete(high, 3), keeps_downlink=False)


def _s_per_byte(bps: tuple[float, float]) -> tuple[float, float]:
    if not bps[0] > 0 < bps[1]:
        raise ValueError(f"a link rate must be above zero bit/s: {bps}")
    return 8.0 / bps[1], 8.0 / bps[0]


def _constant_downlink_bytes(graph: Graph) -> int | None:
    """Return the bytes that every device-first cut with a tail returns, or None if they differ between cuts.

    A larger tail returns at least as many bytes. The smallest tails are single units without successors, and
    the largest tail is the whole graph, so comparing these is enough.
    """
    total = 0
    sinks = set(range(len(graph.units)))
    returned = [0] * len(graph.units)
    for tensor in graph.tensors:
        if tensor.producer is None:
            continue
        if tensor.consumers:
            sinks.discard(tensor.producer)
        if tensor.is_output:
            returned[tensor.producer] += tensor.nbytes or 0
            total += tensor.nbytes or 0
    return total if all(returned[unit] == total for unit in sinks) else None
