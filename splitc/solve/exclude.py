"""The best cut that is not left out, exactly.

Any other cut than a given one lacks a unit that the device has in it, or has one on the device that is not there. So
if the best cut is left out, the next best one is the best of those with one more pin: a unit at the edge of the
device's part is in the cloud, or a unit at the edge of the cloud's part is on the device. (A part that lacks a unit
lacks all that depends on it, so the units at the edges are enough.) That is repeated while cuts that are left out win.
The pins of each branch exclude the branches before it, so that no cut is looked at twice.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut
from splitc.solve.mincut import better_of
from splitc.solve.pins import consumers, producers
from splitc.solve.space import FloatArray, Oracle

Prepare = Callable[[Costs, Limits, Direction], Oracle]
"""Returns the oracle for the best cut; raises NoFeasibleCut if there is none."""


def excluding_oracle(prepare: Prepare, costs: Costs, limits: Limits, direction: Direction) -> Oracle:
    """Return an oracle like that of *prepare*, but for the best cut that *limits* do not leave out.

    Raises:
        NoFeasibleCut: there is no such cut.
        TargetError: see *prepare*.
    """
    root = _Branch(prepare, costs, limits, direction, prepare(costs, limits, direction))
    if _best(root, np.ones(4)) is None:
        raise NoFeasibleCut("all cuts that the limits allow are left out")

    def oracle(prices: FloatArray) -> Cut:
        cut = _best(root, prices)
        assert cut is not None, "whether there is one does not depend on prices"
        return cut

    return oracle


@dataclass(slots=True, eq=False)
class _Branch:
    """The cuts with certain pins.

    Attributes:
        oracle: finds the best of them, also if it is left out.
        rest: by the best cut, if it is left out, branches that hold all others.
    """

    prepare: Prepare
    costs: Costs
    limits: Limits
    direction: Direction
    oracle: Oracle
    rest: dict[frozenset[int], list["_Branch"]] = field(default_factory=dict)


def _best(branch: _Branch, prices: FloatArray) -> Cut | None:
    cut = branch.oracle(prices)
    if cut.placement not in branch.limits.left_out:
        return cut
    if cut.device not in branch.rest:
        branch.rest[cut.device] = list(_others(branch, cut))
    found = [_best(other, prices) for other in branch.rest[cut.device]]
    cuts = [other for other in found if other is not None]
    return better_of(cuts[0], cuts[1:], prices) if cuts else None


def _others(branch: _Branch, cut: Cut) -> Iterator[_Branch]:
    """Branches that hold all cuts of *branch* but *cut*, each in one of them."""
    limits = branch.limits
    on_device, in_cloud = _edges(branch.costs.graph, cut.device, branch.direction)
    for unit, is_here in [*((unit, True) for unit in on_device), *((unit, False) for unit in in_cloud)]:
        to_device = replace(limits, pin_device=limits.pin_device | {unit})
        to_cloud = replace(limits, pin_cloud=limits.pin_cloud | {unit})
        elsewhere, limits = (to_cloud, to_device) if is_here else (to_device, to_cloud)
        with suppress(NoFeasibleCut):
            oracle = branch.prepare(branch.costs, elsewhere, branch.direction)
            yield replace(branch, limits=elsewhere, oracle=oracle, rest={})


def _edges(graph: Graph, device: frozenset[int], direction: Direction) -> tuple[list[int], list[int]]:
    """The units that can leave the device alone, and those that can join it alone."""
    cloud = frozenset(range(len(graph.units))) - device
    after, before = (consumers, producers) if direction == "device-first" else (producers, consumers)
    leaving = [unit for unit in sorted(device) if device.isdisjoint(after(graph, unit))]
    joining = [unit for unit in sorted(cloud) if cloud.isdisjoint(before(graph, unit))]
    return leaving, joining
