"""Latency as a scalar product: the box gives prices, a cut gives amounts.

Prices are (device slowdown, cloud slowdown, uplink s/byte, downlink s/byte, round trip s); amounts are
(device_s, cloud_s, uplink_bytes, downlink_bytes, 1 if the cut offloads). When all cuts that offload receive
the same bytes, the downlink only adds to the round trip, and its price is left out.
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

# The best feasible cut at prices (device, cloud, uplink, downlink), the round trip left out.
Oracle = Callable[[FloatArray], Cut]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """The prices that matter for one graph, and their range; the round trip is always the last one.

    Attributes:
        low, high: of each price.
        keeps_downlink: whether the downlink is a price of its own.
    """

    low: FloatArray
    high: FloatArray
    keeps_downlink: bool

    def scaled_low(self) -> FloatArray:
        """Lower bounds when each price is measured in units of its highest value."""
        return np.divide(self.low, self.high, out=np.ones_like(self.low), where=self.high > 0)

    def scaled_amounts(self, cuts: Iterable[Cut]) -> FloatArray:
        """(cuts, prices) in seconds at the highest prices: latency is the product with scaled prices."""
        rows = [(c.device_s, c.cloud_s, c.uplink_bytes, c.downlink_bytes, c.offloads) for c in cuts]
        amounts = np.array(rows, dtype=np.float64).reshape(-1, 5)
        return (amounts if self.keeps_downlink else np.delete(amounts, 3, axis=1)) * self.high

    def oracle_prices(self, scaled: FloatArray) -> FloatArray:
        """Prices for an oracle from scaled prices without the round trip."""
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
    # What a cloud-first cut receives depends on where it is.
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
    """What every device-first cut that offloads anything returns, or None when cuts differ.

    The smallest tails are single units without successors, the largest is everything, and the
    bytes grow with the tail: it is enough to compare these.
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
