"""The amounts of every closure of a section: what the cut with this closure as its head costs.

Amounts are (device_s, cloud_s, uplink_bytes, downlink_bytes), without the fixed seconds of a run. They are
sums of a constant for the section, because all units before it are in the head and all units after it in the
tail, and of a part that differs between its closures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitc.common.kinds import Direction
from splitc.model.graph import Tensor
from splitc.solve.costs import Costs
from splitc.solve.pins import Pins
from splitc.solve.sections import Section
from splitc.solve.space import BoolArray, FloatArray, IntArray

_UP, _DOWN = 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class SectionCosts:
    """What one section adds to the amounts of a cut.

    Attributes:
        constant: (4,) amounts of the units and tensors outside.
        crossing: the tensors whose crossing differs between closures of the section.
        needed, barred: units of the section, counted from its first, that must be in the head, or in the tail.
    """

    costs: Costs
    direction: Direction
    section: Section
    constant: FloatArray
    crossing: tuple[Tensor, ...]
    needed: IntArray
    barred: IntArray

    def amounts(self, closures: BoolArray) -> FloatArray:
        """Return the amounts (closures, 4) without the constant."""
        own = slice(self.section.first, self.section.end)
        on_device = closures if self.direction == "device-first" else ~closures
        amounts = np.zeros((len(closures), 4))
        amounts[:, 0] = on_device @ np.array(self.costs.device_s[own])
        amounts[:, 1] = ~on_device @ np.array(self.costs.cloud_s[own])
        columns = np.ascontiguousarray(closures.T)
        for tensor in self.crossing:
            for price, crosses in self._crosses(tensor, columns):
                amounts[crosses, price] += tensor.nbytes or 0
        return amounts

    def device(self, closure: BoolArray) -> BoolArray:
        """Return the units of the whole graph that are on the device if *closure* ends the head."""
        head = np.zeros(len(self.costs.device_s), dtype=bool)
        head[: self.section.first] = True
        head[self.section.first : self.section.end] = closure
        return head if self.direction == "device-first" else ~head

    def count_on_device(self, closures: BoolArray) -> IntArray:
        """Return how many units of the whole graph are on the device, for each of *closures*."""
        heads: IntArray = self.section.first + closures.sum(axis=1)
        return heads if self.direction == "device-first" else len(self.costs.device_s) - heads

    def is_allowed(self, closures: BoolArray) -> BoolArray:
        """Return which of *closures* keep the pins."""
        barred = closures[:, self.barred].any(axis=1)
        return np.asarray(closures[:, self.needed].all(axis=1) & ~barred)

    def ends(self) -> BoolArray:
        """Return the smallest and the largest closure that keep the pins."""
        ends = np.zeros((2, self.section.end - self.section.first), dtype=bool)
        ends[1] = True
        ends[:, self.needed] = True
        ends[:, self.barred] = False
        return ends

    def _crosses(self, tensor: Tensor, columns: BoolArray) -> list[tuple[int, BoolArray]]:
        """Return for which closures *tensor* goes up, and comes down; *columns* is (units, closures)."""
        first, end = self.section.first, self.section.end
        own = [reader - first for reader in tensor.consumers if first <= reader < end]
        if tensor.producer is None and self.direction == "cloud-first":
            return [(_UP, np.asarray(columns[own].any(axis=0)))]
        read_later = np.asarray(~columns[own].all(axis=0))
        if tensor.consumers and tensor.consumers[-1] >= end:
            read_later[:] = True
        if tensor.producer is None or tensor.producer < first:
            return [(_UP if self.direction == "device-first" else _DOWN, read_later)]
        made = columns[tensor.producer - first]
        if self.direction == "cloud-first":
            return [(_DOWN, made if tensor.is_output else made & read_later)]
        up = [(_UP, made & read_later)]
        return [*up, (_DOWN, ~made)] if tensor.is_output else up


def section_costs(
    costs: Costs, pins: Pins, direction: Direction, sections: Sequence[Section]
) -> list[SectionCosts]:
    """Prepare the costs of those *sections* that can contain the end of the head, as *pins* allow."""
    needed, barred = (pins.device, pins.cloud) if direction == "device-first" else (pins.cloud, pins.device)
    least, most = max(needed, default=-1), min(barred, default=len(costs.graph.units))
    constants, crossing = _tensors(costs, direction, sections)
    constants += _units_outside(costs, direction, sections)
    return [
        SectionCosts(
            costs=costs,
            direction=direction,
            section=section,
            constant=constant,
            crossing=tuple(own),
            needed=_inside(needed, section),
            barred=_inside(barred, section),
        )
        for section, constant, own in zip(sections, constants, crossing, strict=True)
        if least < section.end and most >= section.first
    ]


def _inside(units: frozenset[int], section: Section) -> IntArray:
    inside = [unit - section.first for unit in sorted(units) if section.first <= unit < section.end]
    return np.array(inside, dtype=np.intp)


def _units_outside(costs: Costs, direction: Direction, sections: Sequence[Section]) -> FloatArray:
    """Return (sections, 4): the seconds of the units before each section, and after it."""
    amounts = np.zeros((len(sections), 4))
    device_s, cloud_s = (np.append(0.0, np.cumsum(seconds)) for seconds in (costs.device_s, costs.cloud_s))
    first, end = np.array([(section.first, section.end) for section in sections]).T
    if direction == "device-first":
        amounts[:, 0], amounts[:, 1] = device_s[first], cloud_s[-1] - cloud_s[end]
    else:
        amounts[:, 0], amounts[:, 1] = device_s[-1] - device_s[end], cloud_s[first]
    return amounts


def _tensors(
    costs: Costs, direction: Direction, sections: Sequence[Section]
) -> tuple[FloatArray, list[list[Tensor]]]:
    """Return (sections, 4): the bytes of tensors that always cross; and per section, those that may cross."""
    sizes = [section.end - section.first for section in sections]
    section_of = np.repeat(np.arange(len(sections)), sizes).tolist()
    steps = np.zeros((len(sections) + 1, 4))  # how much more than in the section before
    crossing: list[list[Tensor]] = [[] for _ in sections]

    def cross(tensor: Tensor, price: int, first: int, end: int) -> None:
        if first < end:
            steps[first, price] += tensor.nbytes or 0
            steps[end, price] -= tensor.nbytes or 0

    for tensor in costs.graph.tensors:
        made = -1 if tensor.producer is None else section_of[tensor.producer]
        last = section_of[tensor.consumers[-1]] if tensor.consumers else made
        if made < 0 and direction == "cloud-first":
            if tensor.consumers:
                read = section_of[tensor.consumers[0]]
                crossing[read].append(tensor)
                cross(tensor, _UP, read + 1, len(sections))
            continue
        if made >= 0:
            crossing[made].append(tensor)
        if made >= 0 and tensor.is_output and direction == "cloud-first":
            cross(tensor, _DOWN, made + 1, len(sections))
            continue
        if last > made:
            crossing[last].append(tensor)
            cross(tensor, _UP if direction == "device-first" else _DOWN, made + 1, last)
        if made >= 0 and tensor.is_output:
            cross(tensor, _DOWN, 0, made)
    return np.cumsum(steps, axis=0)[:-1], crossing
