"""The nodes of a model: which tensors each one reads, and which nodes are constant."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from splitc.model.model import Model

# These return different values on each run, so they must run once, on one side.
_RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split()
)


@dataclass(frozen=True, slots=True)
class Sources:
    """The nodes of a model.

    Attributes:
        nodes: all top-level nodes, in order.
        reads: names of the tensors that each node reads, including those that its bodies capture.
        constant: indices of nodes that depend on weights only; both parts of a cut may compute them.
    """

    nodes: tuple[ir.Node, ...]
    reads: tuple[tuple[str, ...], ...]
    constant: frozenset[int]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The node that computes each tensor and the nodes that read it, by tensor name; without constant nodes."""

    maker: Mapping[str, int]
    readers: Mapping[str, Sequence[int]]


def sources(model: Model) -> Sources:
    """List the nodes of *model* with all tensors that they read."""
    nodes = tuple(model.ir.graph)
    top = {*model.ir.graph.inputs, *model.ir.graph.initializers.values()}
    top |= {output for node in nodes for output in node.outputs}
    reads = []
    for node in nodes:
        used = [value for value in (*node.inputs, *used_inside(node)) if value in top]
        reads.append(tuple(dict.fromkeys(value.name for value in used if value is not None and value.name)))
    return Sources(nodes, tuple(reads), _constant_nodes(model, nodes, reads))


def wiring(found: Sources) -> Wiring:
    """Map each tensor name to the indices of its producer and its readers."""
    maker: dict[str, int] = {}
    readers: defaultdict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(found.nodes):
        if index not in found.constant:
            maker |= {output.name: index for output in node.outputs if output.name}
            for name in found.reads[index]:
                readers[name].append(index)
    return Wiring(maker, readers)


def _constant_nodes(model: Model, nodes: tuple[ir.Node, ...], reads: list[tuple[str, ...]]) -> frozenset[int]:
    fixed = set(model.ir.graph.initializers)
    constant = set()
    for index, node in enumerate(nodes):
        if fixed.issuperset(reads[index]) and not _may_be_random(node, model.ir):
            constant.add(index)
            fixed |= {output.name for output in node.outputs if output.name}
    return frozenset(constant)


def _may_be_random(node: ir.Node, model: ir.Model) -> bool:
    inner = [node, *(inner for body in bodies(node) for inner in body.all_nodes())]
    # A local function may contain a random node at any depth, and few functions read weights only.
    return any(item.op_type in _RANDOM or item.op_identifier() in model.functions for item in inner)


def bodies(node: ir.Node) -> list[ir.Graph]:
    """Return the bodies of an If, Loop or Scan; an empty list for other nodes."""
    found = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def used_inside(node: ir.Node) -> Iterator[ir.Value | None]:
    """Yield every value that the bodies of *node* read, at any depth, including captured ones."""
    for body in bodies(node):
        yield from body.outputs
        for inner in body.all_nodes():
            yield from inner.inputs
            for nested in bodies(inner):
                yield from nested.outputs
