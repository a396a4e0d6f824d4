"""Find the inputs and outputs of the nodes of a profile that has only their names, such as a trace.

ONNX Runtime optimises the model on this machine at each of its levels; the level whose graph matches most
nodes was the one used on the device. A node is matched by its name. Names of inserted nodes differ from run to
run ("ReorderOutput_token_222"), and names of unnamed nodes are numbered ("Conv_17"): such a node is matched by
what it reads and what reads it, by its neighbours in execution order, or because it is the only one left between two
matched nodes.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.model.model import Model
from splitc.profile.document import Measurement, NodeTimes

_LEVELS = (ort.FASTEST, ort.PORTABLE, ort.UNCHANGED)
_INSERTED = re.compile(r"_token_\d+")


@dataclass(frozen=True, slots=True)
class _KnownNode:
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def reconnected(measurement: Measurement, model: Model) -> Measurement:
    """Return *measurement* of *model* with the inputs and outputs of its nodes, where they can be found.

    A measurement whose nodes already have inputs or outputs is returned unchanged.
    """
    nodes = measurement.nodes
    if not nodes or any(node.inputs or node.outputs for node in nodes):
        return measurement
    graphs = [graph for level in _LEVELS if (graph := _optimised(model, level))]
    graphs.append(_numbered(model))
    # Among equals, max() returns the first: the highest level.
    found = max((_aligned(nodes, graph) for graph in graphs), key=lambda item: sum(map(bool, item)))
    for graph in graphs:
        names = _common_names(nodes, graph)
        known = {node.name: node for node in graph if node.name in names}
        found = [item or known.get(node.name) for node, item in zip(nodes, found, strict=True)]
    return replace(measurement, nodes=_connected(nodes, found))


def connected(nodes: Sequence[NodeTimes], graph: Iterable[onnx.NodeProto]) -> tuple[NodeTimes, ...]:
    """Return *nodes* with inputs and outputs from *graph*, the optimised graph that the device ran."""
    return _connected(nodes, _aligned(nodes, _known_nodes(graph)))


def _connected(nodes: Sequence[NodeTimes], found: Sequence[_KnownNode | None]) -> tuple[NodeTimes, ...]:
    return tuple(
        node if item is None else replace(node, inputs=item.inputs, outputs=item.outputs)
        for node, item in zip(nodes, found, strict=True)
    )


def _aligned(nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> list[_KnownNode | None]:
    """Return the node of *graph* that each of *nodes* is: matched by name, by neighbours, or by elimination."""
    names = _common_names(nodes, graph)
    place_of = {node.name: place for place, node in enumerate(graph) if node.name in names}
    at = [place_of.get(node.name) for node in nodes]
    _pair_by_data(at, nodes, graph)
    taken = {place for place in at if place is not None}
    for step, edge in ((1, -1), (-1, len(graph))):
        beside: int | None = edge
        for position in range(len(nodes))[::step]:
            if at[position] is None and beside is not None:
                place = beside + step
                fits = 0 <= place < len(graph) and graph[place].op == nodes[position].op
                if fits and place not in taken:
                    at[position] = place
                    taken.add(place)
            beside = at[position]
    _pair_what_is_left(at, nodes, graph)
    return [None if place is None else graph[place] for place in at]


def _pair_by_data(at: list[int | None], nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> None:
    """Match inserted nodes by what they read and what reads them.

    The device may run an inserted node at any time between the node that makes its input and the first that reads
    its output, so its neighbours may differ from those in *graph*. Of several nodes that fit, the first to be read
    is taken: if a complete matching exists, this finds one (earliest deadline first).
    """
    named = [(node.name, node.op) for node in nodes] + [(node.name, node.op) for node in graph]
    inserted = {op for name, op in named if _INSERTED.search(name)}
    ran_at = {place: position for position, place in enumerate(at) if place is not None}
    windows = _windows(graph, ran_at, len(nodes))
    free = [place for place, node in enumerate(graph) if node.op in inserted and place not in ran_at]
    for position, node in enumerate(nodes):
        if at[position] is None and node.op in inserted:
            fitting = [
                (windows[place][1], place)
                for place in free
                if graph[place].op == node.op and windows[place][0] < position < windows[place][1]
            ]
            if fitting:
                at[position] = min(fitting)[1]
                free.remove(min(fitting)[1])


def _windows(graph: Sequence[_KnownNode], ran_at: Mapping[int, int], end: int) -> list[tuple[int, int]]:
    """Return, for each node of *graph*, the positions in the trace between which it must have run.

    These are the positions of the nearest nodes before and behind it in the data flow whose positions are known.
    """
    makers = {output: place for place, node in enumerate(graph) for output in node.outputs}
    sources = [[makers[value] for value in node.inputs if value in makers] for node in graph]
    low, high = [-1] * len(graph), [end] * len(graph)
    for place, origins in enumerate(sources):
        low[place] = max((ran_at.get(origin, low[origin]) for origin in origins), default=-1)
    for place in reversed(range(len(graph))):
        for origin in sources[place]:
            high[origin] = min(high[origin], ran_at.get(place, high[place]))
    return list(zip(low, high, strict=True))


def _pair_what_is_left(at: list[int | None], nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> None:
    """Match, in execution order, nodes of one operator between the same two matched nodes, if their numbers agree.

    This finds nodes whose direct neighbours have no event in the trace.
    """
    taken = set(at)
    left: defaultdict[tuple[int, int, str], list[int]] = defaultdict(list)
    for position, node in enumerate(nodes):
        if at[position] is None:
            before = next((place for place in reversed(at[:position]) if place is not None), None)
            behind = next((place for place in at[position:] if place is not None), None)
            if before is not None and behind is not None:
                left[before, behind, node.op].append(position)
    for (before, behind, op), positions in left.items():
        places = [
            place for place in range(before + 1, behind) if graph[place].op == op and place not in taken
        ]
        if len(places) == len(positions):
            for position, place in zip(positions, places, strict=True):
                at[position] = place


def _common_names(nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> set[str]:
    """Return the names that mean the same node in both: unique ones, but not those of inserted nodes.

    The first inserted node of a kind has a name without a number.
    """
    names = [*(node.name for node in nodes), *(node.name for node in graph)]
    inserted = {_INSERTED.sub("", name) for name in names if _INSERTED.search(name)}
    once = [
        {name for name, count in Counter(node.name for node in side).items() if count == 1}
        for side in (nodes, graph)
    ]
    return {name for name in once[0] & once[1] if name and _INSERTED.sub("", name) not in inserted}


def _optimised(model: Model, level: object) -> list[_KnownNode]:
    """Return the graph as ONNX Runtime runs it at *level*; an empty list if it cannot."""
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        path = Path(folder) / "optimized.onnx"
        try:
            ort.session(model.path, threads=1, optimized_path=path, level=level)
        except ModelError:
            return []
        graph = onnx.load_model(path, load_external_data=False).graph
    return _known_nodes(graph.node)


def _known_nodes(nodes: Iterable[onnx.NodeProto]) -> list[_KnownNode]:
    return [_KnownNode(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in nodes]


def _numbered(model: Model) -> list[_KnownNode]:
    """Return the model's own graph; unnamed nodes get the names that the runtime gives them: operator and number."""
    # The runtime turns Constant nodes into weights.
    nodes = [node for node in model.ir.graph if node.op_type != "Constant"]
    return [
        _KnownNode(
            node.name or f"{node.op_type}_{number}",
            node.op_type,
            tuple(value.name or "" for value in node.inputs if value is not None),
            tuple(value.name or "" for value in node.outputs),
        )
        for number, node in enumerate(nodes)
    ]
