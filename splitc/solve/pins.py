"""Find the units that must run on one side, and the reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Limits

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pins:
    """The units that must run on the device, and those that must run in the cloud, for one direction.

    A unit on the machine that runs first needs its predecessors there; a unit on the other machine needs its
    successors there. Both sets contain these units as well.
    """

    device: frozenset[int]
    cloud: frozenset[int]


def make_pins(graph: Graph, limits: Limits, direction: Direction) -> Pins:
    """Find all units that must run on one side because of pins, private tensors or inputs that cannot be sent.

    Raises:
        NoFeasibleCut: a unit would have to be on both sides.
    """
    forward, backward = range(len(graph.units)), range(len(graph.units))[::-1]
    upstream, downstream = (backward, producers), (forward, consumers)
    with_device, with_cloud = (
        (upstream, downstream) if direction == "device-first" else (downstream, upstream)
    )
    reasons = {unit: (unit, reason) for unit, reason in device_reasons(graph, limits).items()}
    why_device = _spread(graph, reasons, *with_device)
    cloud = _spread(graph, dict.fromkeys(limits.pin_cloud), *with_cloud)
    for unit in sorted(limits.pin_cloud & why_device.keys()):
        raise _conflict(graph, unit, *why_device[unit], direction)
    return Pins(frozenset(why_device), frozenset(cloud))


def device_reasons(graph: Graph, limits: Limits) -> dict[int, str]:
    """Return the units that must run on the device for a reason of their own, and that reason."""
    reasons = dict.fromkeys(limits.pin_device, "--pin-device")
    for index in (*sorted(limits.private), *sorted(limits.recoverable - limits.private)):
        tensor = graph.tensors[index]
        made_by = () if tensor.producer is None else (tensor.producer,)
        reason = (
            f"the private tensor '{tensor.name}'"
            if index in limits.private
            else f"'{tensor.name}', from which a private tensor can be recovered,"
        )
        for unit in (*made_by, *tensor.consumers):
            reasons.setdefault(unit, reason)
    for unit in graph.device_only:
        reasons.setdefault(unit, "an input or output that cannot be sent")
    return reasons


def _spread(
    graph: Graph,
    given: dict[int, _T],
    order: Iterable[int],
    neighbours: Callable[[Graph, int], set[int]],
) -> dict[int, _T]:
    """Copy the value of each unit to its *neighbours* without a value; neighbours come later in *order*."""
    spread = dict(given)
    for unit in order:
        if unit in spread:
            for neighbour in neighbours(graph, unit):
                spread.setdefault(neighbour, spread[unit])
    return spread


def producers(graph: Graph, unit: int) -> set[int]:
    """The units that make what *unit* reads."""
    made = (graph.tensors[tensor].producer for tensor in graph.units[unit].inputs)
    return {producer for producer in made if producer is not None}


def consumers(graph: Graph, unit: int) -> set[int]:
    """The units that read what *unit* makes."""
    return {reader for tensor in graph.units[unit].outputs for reader in graph.tensors[tensor].consumers}


def _conflict(graph: Graph, unit: int, cause: int, reason: str, direction: Direction) -> NoFeasibleCut:
    name, other = graph.units[unit].name, graph.units[cause].name
    needs = f", which needs '{name}'" if direction == "device-first" else f", which '{name}' needs"
    return NoFeasibleCut(
        f"no cut has '{name}' in the cloud, because {reason} keeps '{other}' on the device"
        f"{'' if cause == unit else needs}; drop one of the two"
    )
