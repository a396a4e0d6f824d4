"""Divide a graph into sections that depend on each other as a whole, and list the closures of each.

Every unit of a section needs every unit of the sections before it. A closure is therefore always all sections
up to some point, and a closure of the next one. A network of residual blocks, or any other chain with skip
connections, has almost as many sections as units, and few closures in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from splitc.model.graph import Graph
from splitc.solve.space import BoolArray

_MOST_TOGETHER = 128  # sections with few closures are joined up to this number, which saves numpy calls


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The units from `first` to the one before `end`.

    Attributes:
        closures: (closures, units) for each closure of the section, its units; None if there are too many.
    """

    first: int
    end: int
    closures: BoolArray | None


def make_sections(graph: Graph, most_closures: int) -> list[Section]:
    """Divide *graph*; a section with more than *most_closures* closures has no list of them."""
    predecessors = [
        {made for made in (graph.tensors[tensor].producer for tensor in unit.inputs) if made is not None}
        for unit in graph.units
    ]
    sections, joined, start = [], [0], 0
    for first, end in pairwise(_borders(predecessors)):
        found = _closures(predecessors[first:end], first, most_closures)
        if start < first and (found is None or len(joined) + len(found) > _MOST_TOGETHER):
            sections.append(Section(start, first, _as_rows(joined, first - start)))
            joined, start = [0], first
        if found is None:
            sections.append(Section(first, end, None))
            joined, start = [0], end
        else:
            before = (1 << (first - start)) - 1
            joined += [before | closure << (first - start) for closure in found[1:]]
    if start < len(predecessors) or not sections:
        sections.append(Section(start, len(predecessors), _as_rows(joined, len(predecessors) - start)))
    return sections


def _borders(predecessors: Sequence[set[int]]) -> list[int]:
    """Return each position before which all units are needed by all units from there on, and both ends."""
    forbidden = [0] * (len(predecessors) + 1)  # how many more units than at the last position forbid a border
    last_reader = {made: unit for unit, needed in enumerate(predecessors) for made in needed}
    ancestors: dict[int, int] = {}  # of units that are still to be read, as bits
    for unit, needed in enumerate(predecessors):
        own = 0
        for made in needed:
            own |= ancestors[made] | 1 << made
            if last_reader[made] == unit:
                del ancestors[made]
        if unit in last_reader:
            ancestors[unit] = own
        lacking = (~own & (own + 1)).bit_length() - 1  # the first unit that this one does not need
        if lacking < unit:
            forbidden[lacking + 1] += 1
            forbidden[unit + 1] -= 1
    inner = [
        at for at, count in enumerate(accumulate(forbidden)) if count == 0 and 0 < at < len(predecessors)
    ]
    return [0, *inner, len(predecessors)]


def _closures(predecessors: Sequence[set[int]], first: int, most: int) -> list[int] | None:
    """Return the closures of the units from *first* on as bits, the empty one first; None if more than *most*."""
    found = [0]
    for at, needed in enumerate(predecessors):
        bits = sum(1 << (made - first) for made in needed if made >= first)
        found += [closure | 1 << at for closure in found if closure & bits == bits]
        if len(found) > most:
            return None
    return found


def _as_rows(closures: Sequence[int], units: int) -> BoolArray:
    nbytes = units // 8 + 1
    packed = np.frombuffer(b"".join(closure.to_bytes(nbytes, "little") for closure in closures), np.uint8)
    bits = np.unpackbits(packed.reshape(len(closures), nbytes), axis=1, bitorder="little")
    return bits[:, :units].astype(bool)
