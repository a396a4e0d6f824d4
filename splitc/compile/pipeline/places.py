"""Places where a pipeline could be cut, and what would cross there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from splitc.common.kinds import Direction
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled, ends
from splitc.model.graph import Graph
from splitc.solve.costs import Costs
from splitc.solve.cuts import make_cut


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a request sends and receives if it is cut at a place."""

    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place, or several iterations of a loop between which the same crosses.

    Attributes:
        stage: the stage that was begun last.
        first, last: of a stage that is repeated, the range of iterations, counted from 1, after any of which the
            place lies; else None.
        unit: the name of the last unit that has run, if the place is inside a stage; else None.
        crossing: the values that cross.
        device_first, cloud_first: what is exchanged if that side begins; None if something cannot be sent.
    """

    stage: str
    first: int | None
    last: int | None
    unit: str | None
    crossing: tuple[str, ...]
    device_first: Traffic | None
    cloud_first: Traffic | None

    @property
    def words(self) -> str:
        """The place, for people."""
        if self.unit is not None:
            return f"{self.stage}, unit {self.unit}"
        if self.first is None:
            return self.stage
        return f"{self.stage} {self.first}" + (f" ... {self.last}" if self.last != self.first else "")


def places(found: PipelineAnalysis, unrolled: Unrolled) -> tuple[Place, ...]:
    """Every place in running order: hand-overs between stages and iterations, and units inside stages."""
    handovers = set(ends(unrolled))
    single = [
        _place(found, unrolled, count, inside=count not in handovers)
        for count in range(1, len(unrolled.places))
    ]
    return tuple(_merged(single))


def _merged(single: list[Place]) -> Iterator[Place]:
    """Neighbours that differ in their iteration only become one."""
    for _, group in groupby(single, key=lambda place: replace(place, first=None, last=None)):
        found = list(group)
        yield replace(found[0], last=found[-1].last)


def _place(found: PipelineAnalysis, unrolled: Unrolled, count: int, *, inside: bool) -> Place:
    """The place after the first *count* units."""
    at, graph = unrolled.places[count - 1], unrolled.graph
    iteration = at.iteration + 1 if at.iteration is not None else None
    head = frozenset(range(count))
    crossing = (
        unrolled.values[index]
        for index, tensor in enumerate(graph.tensors)
        if tensor.producer in head and not head.issuperset(tensor.consumers)
    )
    return Place(
        stage=found.pipeline.stages[at.stage].name,
        first=iteration,
        last=iteration,
        unit=graph.units[count - 1].name.partition("/")[2] if inside else None,
        crossing=tuple(dict.fromkeys(crossing)),
        device_first=_traffic(graph, head, "device-first"),
        cloud_first=_traffic(graph, head, "cloud-first"),
    )


def _traffic(graph: Graph, head: frozenset[int], direction: Direction) -> Traffic | None:
    nothing = (0.0,) * len(graph.units)
    try:
        cut = make_cut(Costs(graph, nothing, nothing), head, direction)
    except ValueError:  # something that crosses cannot be sent
        return None
    return Traffic(cut.uplink_bytes, cut.downlink_bytes)
