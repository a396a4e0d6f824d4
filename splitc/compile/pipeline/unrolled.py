"""An unrolled pipeline: its graph, and which stages, units and iterations the units of a part are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from splitc.model.graph import Graph


@dataclass(frozen=True, slots=True)
class Origin:
    """What a unit of the unrolled graph is: a unit of a stage's model, an iteration, or else the whole stage.

    Attributes:
        stage: which stage of the pipeline.
        unit: of the stage's own graph.
        iteration: of a stage that is repeated.
    """

    stage: int
    unit: int | None = None
    iteration: int | None = None


@dataclass(frozen=True, slots=True)
class Unrolled:
    """A pipeline's graph, and how to map it back to stages.

    Attributes:
        places: what each unit is.
        values: what each tensor is called in a bundle: by the value, or by stage and tensor.
        inner: what a tensor inside a stage, given by the stage's number and its own name, is called there.
    """

    graph: Graph
    places: tuple[Origin, ...]
    values: tuple[str, ...]
    inner: Mapping[tuple[int, str], str]

    def named(self) -> Graph:
        """The graph with tensors under the names that they have in a bundle; those of iterations share one."""
        tensors = zip(self.graph.tensors, self.values, strict=True)
        return replace(self.graph, tensors=tuple(replace(tensor, name=value) for tensor, value in tensors))


@dataclass(frozen=True, slots=True)
class Share:
    """How much of one stage belongs to a part.

    Attributes:
        units: of the stage's own graph; None for all of them, in one piece.
        first, end: the iterations; of a stage that runs once, 0 and 1.
    """

    stage: int
    first: int
    end: int
    units: frozenset[int] | None = None


def ends(unrolled: Unrolled) -> list[int]:
    """How many units have run before each hand-over between stages or iterations."""
    places = unrolled.places
    return [
        unit
        for unit in range(1, len(places))
        if places[unit].stage != places[unit - 1].stage or places[unit].iteration is not None
    ]


def shares(unrolled: Unrolled, members: Iterable[int]) -> tuple[Share, ...]:
    """The stages, and how much of each, that the units *members* are; in order."""
    counts: defaultdict[int, int] = defaultdict(int)
    for place in unrolled.places:
        counts[place.stage] += 1
    found: defaultdict[int, list[Origin]] = defaultdict(list)
    for unit in sorted(members):
        found[unrolled.places[unit].stage].append(unrolled.places[unit])
    return tuple(_share(stage, places, counts[stage]) for stage, places in sorted(found.items()))


def _share(stage: int, places: list[Origin], count: int) -> Share:
    if places[0].iteration is not None:
        iterations = [place.iteration for place in places if place.iteration is not None]
        return Share(stage, iterations[0], iterations[-1] + 1)
    if len(places) == count:
        return Share(stage, 0, 1)
    return Share(stage, 0, 1, frozenset(place.unit for place in places if place.unit is not None))
