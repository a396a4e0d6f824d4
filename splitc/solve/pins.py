"""Which units have no choice, and why."""

from dataclasses import dataclass

from splitc.costs import Limits
from splitc.errors import NoFeasibleCut
from splitc.graph import Graph


@dataclass(frozen=True, slots=True)
class Pins:
    """Units without a choice: with one in the head come its predecessors, in the tail its successors."""

    head: frozenset[int]
    tail: frozenset[int]


def make_pins(graph: Graph, limits: Limits) -> Pins:
    """Spread pins, privacy and unsendable inputs over the graph.

    Raises:
        NoFeasibleCut: a unit would have to be on both sides.
    """
    reasons = _head_reasons(graph, limits)
    why_head: dict[int, tuple[int, str]] = {}
    for unit in reversed(range(len(graph.units))):
        if unit in reasons:
            why_head[unit] = (unit, reasons[unit])
        if unit in why_head:
            for producer in _producers(graph, unit):
                why_head.setdefault(producer, why_head[unit])
    tail: set[int] = set()
    for unit in range(len(graph.units)):
        if unit in limits.pin_tail or not tail.isdisjoint(_producers(graph, unit)):
            tail.add(unit)
    for unit in sorted(limits.pin_tail & why_head.keys()):
        cause, reason = why_head[unit]
        needs = "" if cause == unit else f", which needs '{graph.units[unit].name}'"
        raise NoFeasibleCut(
            f"no cut has '{graph.units[unit].name}' in the tail, because {reason} keeps "
            f"'{graph.units[cause].name}' in the head{needs}; drop one of the two"
        )
    return Pins(frozenset(why_head), frozenset(tail))


def _head_reasons(graph: Graph, limits: Limits) -> dict[int, str]:
    reasons = dict.fromkeys(limits.pin_head, "--pin-head")
    for index in sorted(limits.private):
        tensor = graph.tensors[index]
        made_by = () if tensor.producer is None else (tensor.producer,)
        for unit in (*made_by, *tensor.consumers):
            reasons.setdefault(unit, f"the private tensor '{tensor.name}'")
    for unit in graph.device_only:
        reasons.setdefault(unit, "an input that cannot be sent")
    return reasons


def _producers(graph: Graph, unit: int) -> set[int]:
    made = (graph.tensors[tensor].producer for tensor in graph.units[unit].inputs)
    return {producer for producer in made if producer is not None}
