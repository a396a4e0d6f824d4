"""Find the best cut at given prices.

The head is all sections of the graph up to some point, and a closure of the next one. Most sections have few
closures: their amounts are computed once, and are then compared at any prices. The best closure of a section
with too many of them is a minimum cut of its network.

What a run costs besides its units is paid by every split alike, and by all-head and all-tail on their one
side only. It is left out of the comparison: if that prefers all-head or all-tail, no split is better; and if
it prefers a split, that is the best one, and only these two may still undercut it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, place
from splitc.solve.network import FlowNetwork, best_on_device, least_s, make_network
from splitc.solve.pins import Pins, make_pins
from splitc.solve.section_costs import SectionCosts, section_costs
from splitc.solve.sections import make_sections
from splitc.solve.space import BoolArray, FloatArray, IntArray, Oracle

_MOST_CLOSURES = 2048
_GAP = 1e-9  # the largest allowed relative distance of a cut from the optimum
_TIE = 1e-12  # cuts closer than this are equal


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """The closures of all sections that have few.

    Attributes:
        amounts: (closures, 4).
        on_device: (closures,) how many units are on the device.
        section, row: (closures,) where the closure is.
    """

    sections: Sequence[SectionCosts]
    amounts: FloatArray
    on_device: IntArray
    section: IntArray
    row: IntArray

    def best(self, prices: FloatArray) -> tuple[float, BoolArray] | None:
        """Return the latency and the units on the device of the best cut; of equal ones, with the fewest there."""
        if not len(self.amounts):
            return None
        latencies_s = self.amounts @ prices
        least = latencies_s.min()
        equal = np.flatnonzero(latencies_s <= least * (1.0 + _TIE))
        at = equal[np.argmin(self.on_device[equal])]
        section = self.sections[self.section[at]]
        assert section.section.closures is not None  # that is why it is listed
        return float(least), section.device(section.section.closures[self.row[at]])


class _Flow:
    """The best closure of a section that has too many."""

    def __init__(self, section: SectionCosts) -> None:
        self._section = section
        self._network: FlowNetwork = make_network(section)

    def best(self, prices: FloatArray, below_s: float) -> tuple[float, BoolArray] | None:
        """Return the latency and the units on the device of the best cut, or None if it is not below *below_s*."""
        fixed_s = float(self._section.constant @ prices)
        if fixed_s + least_s(self._network, prices) > below_s:
            return None
        own_s, on_device = best_on_device(self._network, prices)
        closure = on_device if self._section.direction == "device-first" else ~on_device
        return fixed_s + own_s, self._section.device(closure)


def min_cut_oracle(
    costs: Costs,
    limits: Limits,
    direction: Direction = "device-first",
    *,
    most_closures: int = _MOST_CLOSURES,
) -> Oracle:
    """Prepare *costs* once and return an oracle that uses them; budgets in *limits* are ignored.

    Of equally good cuts, the oracle returns the one with the fewest units on the device. A section with more
    than *most_closures* closures is solved as a minimum cut.

    Raises:
        NoFeasibleCut: pins exclude each other.
    """
    pins = make_pins(costs.graph, limits, direction)
    sections = section_costs(costs, pins, direction, make_sections(costs.graph, most_closures))
    listed = _listed([section for section in sections if section.section.closures is not None])
    flows = [_Flow(section) for section in sections if section.section.closures is None]
    fallbacks = ends(costs, pins, direction)
    known: dict[bytes, Cut] = {}

    def oracle(prices: FloatArray) -> Cut:
        on_device = _best(listed, flows, prices)
        key = on_device.tobytes()
        if key not in known:
            known[key] = place(costs, frozenset(np.flatnonzero(on_device).tolist()), direction)
        return better_of(known[key], fallbacks, prices)

    return oracle


def _listed(sections: Sequence[SectionCosts]) -> _Listed:
    amounts, on_device, numbers, rows = [np.empty((0, 4))], [], [], []
    for number, costs in enumerate(sections):
        closures = costs.section.closures
        assert closures is not None  # that is why it is listed
        allowed = np.flatnonzero(costs.is_allowed(closures))
        amounts.append(costs.constant + costs.amounts(closures[allowed]))
        on_device.append(costs.count_on_device(closures[allowed]))
        numbers.append(np.full(len(allowed), number))
        rows.append(allowed)
    joined = (
        np.concatenate(parts) if parts else np.empty(0, np.intp) for parts in (on_device, numbers, rows)
    )
    return _Listed(sections, np.concatenate(amounts), *joined)


def _best(listed: _Listed, flows: Sequence[_Flow], prices: FloatArray) -> BoolArray:
    best = listed.best(prices)
    for flow in flows:
        found = flow.best(prices, np.inf if best is None else best[0] * (1.0 + _TIE))
        if found is not None and (best is None or _is_better(found, best)):
            best = found
    assert best is not None  # pins that exclude each other have been found
    return best[1]


def _is_better(one: tuple[float, BoolArray], other: tuple[float, BoolArray]) -> bool:
    if abs(one[0] - other[0]) <= _TIE * other[0]:
        return bool(one[1].sum() < other[1].sum())
    return one[0] < other[0]


def ends(costs: Costs, pins: Pins, direction: Direction) -> list[Cut]:
    """Return the cut with the fewest possible units on the device, and the one with the most."""
    everything = frozenset(range(len(costs.graph.units)))
    return [place(costs, device, direction) for device in (pins.device, everything - pins.cloud)]


def better_of(cut: Cut, others: Iterable[Cut], prices: FloatArray) -> Cut:
    """Return *cut*, or the fastest of *others* if that is faster at *prices* by more than rounding errors."""
    least_s = (1.0 - _GAP) * latency_s(cut, prices)
    faster = [other for other in others if latency_s(other, prices) < least_s]
    return min(faster, key=lambda other: latency_s(other, prices), default=cut)


def latency_s(cut: Cut, prices: FloatArray) -> float:
    """Latency at prices (device, cloud, uplink, downlink), without the round trip."""
    return float(
        prices[0] * cut.device_s
        + prices[1] * cut.cloud_s
        + prices[2] * cut.uplink_bytes
        + prices[3] * cut.downlink_bytes
    )
