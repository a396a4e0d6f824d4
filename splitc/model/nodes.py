"""The nodes of a model: which tensors each one reads, and which nodes are constant."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from splitc.model.model import Model

# These return different values on each run, so they must run once, on one side.
_RANDOM = frozenset(
    [
        *(("", op) for op in "RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()),
        *(("", op) for op in "Multinomial Bernoulli".split()),
        ("com.microsoft", "Sampling"),
    ]
)
# These do so if an input, here by its position, says that the model is trained.
_RANDOM_IN_TRAINING = {
    ("", "Dropout"): 2,
    ("com.microsoft", "BitmaskDropout"): 2,
    ("com.microsoft", "BiasDropout"): 4,
    ("com.microsoft", "BitmaskBiasDropout"): 4,
}


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
        if fixed.issuperset(reads[index]) and not is_random(node, model.ir):
            constant.add(index)
            fixed |= {output.name for output in node.outputs if output.name}
    return frozenset(constant)


def is_random(node: ir.Node, model: ir.Model) -> bool:
    """Whether *node*, or a node in its bodies or in a function of *model* that it calls, is a random operator."""
    waiting = [node]
    called: set[ir.OperatorIdentifier] = set()
    while waiting:
        item = waiting.pop()
        function = model.functions.get(item.op_identifier())
        if function is None:
            if _draws(item):
                return True
        elif function.identifier() not in called:
            called.add(function.identifier())
            waiting.extend(function.all_nodes())
        waiting.extend(inner for body in bodies(item) for inner in body)
    return False


def _draws(node: ir.Node) -> bool:
    """Whether *node* itself draws random numbers."""
    operator = (node.domain, node.op_type)
    if operator in _RANDOM:
        return True
    position = _RANDOM_IN_TRAINING.get(operator)
    if position is None or position >= len(node.inputs):
        return False
    training = node.inputs[position]
    if training is None:
        return False
    return training.const_value is None or bool(training.const_value.numpy().any())


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
