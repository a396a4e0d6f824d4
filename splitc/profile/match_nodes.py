"""What the nodes of a profile read and make, where the profile only names them, as a trace does.

ONNX Runtime optimises the model here as it did there, at each of its levels; the level that knows most of the
names was the one. Names of what it inserted differ from run to run ("ReorderOutput_token_222"), those of
nodes without a name hold a number ("Conv_17"): such a node is told by its neighbours in running order, or as
what is left between two known ones.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
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
    """Return *measurement* of *model* with inputs and outputs of its nodes, as far as they can be told."""
    nodes = measurement.nodes
    if not nodes or any(node.inputs or node.outputs for node in nodes):
        return measurement
    graphs = [graph for level in _LEVELS if (graph := _optimised(model, level))]
    graphs.append(_numbered(model))
    # max() takes the first of equals: the highest level.
    found = max((_aligned(nodes, graph) for graph in graphs), key=lambda item: sum(map(bool, item)))
    for graph in graphs:
        drawn = _known_by_name(nodes, graph)
        known = {node.name: node for node in graph if node.name in drawn}
        found = [item or known.get(node.name) for node, item in zip(nodes, found, strict=True)]
    return replace(
        measurement,
        nodes=tuple(
            node if item is None else replace(node, inputs=item.inputs, outputs=item.outputs)
            for node, item in zip(nodes, found, strict=True)
        ),
    )


def _aligned(nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> list[_KnownNode | None]:
    """The node of *graph* that each one is: by its name, as the neighbour of one that is known, or by what is left."""
    drawn = _known_by_name(nodes, graph)
    here = {node.name: place for place, node in enumerate(graph) if node.name in drawn}
    at = [here.get(node.name) for node in nodes]
    taken = set(here.values())
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


def _pair_what_is_left(at: list[int | None], nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> None:
    """Pair, in running order, nodes of one operator between the same two known ones, where as many are on each side.

    Their direct neighbours tell nothing where a trace lacks the events of both.
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


def _known_by_name(nodes: Sequence[NodeTimes], graph: Sequence[_KnownNode]) -> set[str]:
    """Names that mean the same node there and here; not those of what was inserted, one of which has no number."""
    names = [*(node.name for node in nodes), *(node.name for node in graph)]
    inserted = {_INSERTED.sub("", name) for name in names if _INSERTED.search(name)}
    once = [
        {name for name, count in Counter(node.name for node in side).items() if count == 1}
        for side in (nodes, graph)
    ]
    return {name for name in once[0] & once[1] if name and _INSERTED.sub("", name) not in inserted}


def _optimised(model: Model, level: object) -> list[_KnownNode]:
    """The graph as ONNX Runtime runs it at *level*; nothing where it cannot: then other levels have to do."""
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        path = Path(folder) / "optimized.onnx"
        try:
            ort.session(model.path, threads=1, optimized_path=path, level=level)
        except ModelError:
            return []
        graph = onnx.load_model(path, load_external_data=False).graph
    return [_KnownNode(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]


def _numbered(model: Model) -> list[_KnownNode]:
    """The model's own graph; nodes without a name as the runtime calls them, by operator and number."""
    nodes = [
        node for node in model.ir.graph if node.op_type != "Constant"
    ]  # the runtime makes weights of these
    return [
        _KnownNode(
            node.name or f"{node.op_type}_{number}",
            node.op_type,
            tuple(value.name or "" for value in node.inputs if value is not None),
            tuple(value.name or "" for value in node.outputs),
        )
        for number, node in enumerate(nodes)
    ]
