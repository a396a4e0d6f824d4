"""Group nodes into units: nodes that ONNX Runtime fuses stay together.

ONNX Runtime optimises the model at level EXTENDED and writes the resulting graph, which keeps the
model's tensor names. A tensor whose name is missing there was fused away: its producer and its
readers become one unit, so that a cut does not prevent the fusion.
"""

import heapq
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.model.assemble import assemble
from splitc.model.graph import Graph
from splitc.model.model import Model
from splitc.model.nodes import Sources, Wiring, wiring
from splitc.model.sizes import Size
from splitc.model.work import node_work


@dataclass(frozen=True, slots=True)
class Partition:
    """The model's graph of units, and the tensors that cannot be boundary tensors.

    Attributes:
        fused: tensors that ONNX Runtime fuses away.
        unknown: tensors of unknown size, or of a type that cannot be sent.
        unsized: nodes whose work is unknown, because a tensor that they use has no known size.
    """

    graph: Graph
    fused: tuple[str, ...]
    unknown: tuple[str, ...]
    unsized: tuple[str, ...]


def surviving_tensors(model: Model) -> frozenset[str]:
    """Return the names of the tensors that exist when ONNX Runtime runs the optimised model.

    Where ONNX Runtime computes fp16 operators in fp32, the tensors between them have other names and are never
    rounded to fp16. A cut would round them, so they are left out like fused tensors.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        path = Path(folder) / "optimized.onnx"
        ort.session(model.path, threads=1, optimized_path=path, level=ort.PORTABLE)
        graph = onnx.load_model(path, load_external_data=False).graph
    names = {name for node in graph.node for name in node.output}
    names |= {tensor.name for tensor in graph.initializer}
    return frozenset(name for name in names if name)


def partition(
    model: Model, found: Sources, survivors: frozenset[str], sizes: Mapping[str, Size]
) -> Partition:
    """Group the nodes of *model* into units.

    Raises:
        ModelError: no node depends on an input, or an output has no known size.
    """
    wires = wiring(found)
    glued = _glued_by_quantization(found, wires, sizes)
    alive = survivors | set(model.outputs())
    crossable = {
        name for name in wires.maker if name in alive and name not in glued and _crosses(sizes.get(name))
    }
    members = _order(found, _group(len(found.nodes), wires, crossable), wires)
    if not members:
        raise ModelError(
            f"{model.name}: the model cannot be cut, because no output depends on an input; choose another model"
        )
    inner = [name for name in wires.maker if wires.readers.get(name) and name not in crossable]
    return Partition(
        graph=assemble(model, found, wires, members, survivors, sizes),
        fused=tuple(name for name in inner if name not in survivors or name in glued),
        unknown=tuple(name for name in inner if name in survivors and not _crosses(sizes.get(name))),
        unsized=tuple(
            found.nodes[index].name or ""
            for unit in members
            for index in unit
            if node_work(found.nodes[index], sizes) is None
        ),
    )


def _crosses(size: Size | None) -> bool:
    return size is not None and size.dtype is not None


def _glued_by_quantization(found: Sources, wires: Wiring, sizes: Mapping[str, Size]) -> set[str]:
    """Return the wide tensors beside a quantiser or dequantiser: a cut at the int8 tensor sends fewer bytes.

    Where the narrow tensor cannot cross, the wide one stays free.
    """

    def narrow(index: int, op_type: str) -> bool:
        node = found.nodes[index]
        if node.op_type != op_type:
            return False
        value = node.outputs[0] if op_type == "QuantizeLinear" else node.inputs[0]
        return value is not None and _crosses(sizes.get(value.name or ""))

    glued = set()
    for name, index in wires.maker.items():
        readers = wires.readers.get(name, ())
        if readers and (
            all(narrow(reader, "QuantizeLinear") for reader in readers) or narrow(index, "DequantizeLinear")
        ):
            glued.add(name)
    return glued


def _group(count: int, wires: Wiring, crossable: Iterable[str]) -> list[int]:
    """Return a group label for each node: the producer and readers of a tensor that cannot cross share one."""
    free = set(crossable)
    edges = [
        (index, reader, name) for name, index in wires.maker.items() for reader in wires.readers.get(name, ())
    ]
    joined = _components(
        count, [(index, reader) for index, reader, name in edges if name not in free], "weak"
    )
    # Groups that depend on each other (a fusion around another node) become one unit.
    merged = _components(count, [(joined[index], joined[reader]) for index, reader, _ in edges], "strong")
    return [merged[label] for label in joined]


def _components(count: int, edges: list[tuple[int, int]], connection: str) -> list[int]:
    if not edges:
        return list(range(count))
    rows, columns = np.array(edges).T
    matrix = sp.coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    return [int(label) for label in connected_components(matrix, connection=connection)[1]]


def _order(found: Sources, groups: list[int], wires: Wiring) -> list[list[int]]:
    """Return the nodes of each unit, units in topological order; ties are broken by the first node's index."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    needs: defaultdict[int, set[int]] = defaultdict(set)
    for index, reads in enumerate(found.reads):
        if index not in found.constant:
            members[groups[index]].append(index)
            needs[groups[index]] |= {groups[wires.maker[name]] for name in reads if name in wires.maker}
    followers: defaultdict[int, set[int]] = defaultdict(set)
    waiting = {}
    for label in members:
        needs[label].discard(label)
        waiting[label] = len(needs[label])
        for need in needs[label]:
            followers[need].add(label)
    ready = [(nodes[0], label) for label, nodes in members.items() if not waiting[label]]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, label = heapq.heappop(ready)
        ordered.append(members[label])
        for follower in followers[label]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (members[follower][0], follower))
    return ordered
