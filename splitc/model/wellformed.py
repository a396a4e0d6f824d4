"""Check that the nodes of an ONNX message are consistent: operator sets, names, no cycles."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx

# The standard operators have two names (ONNX IR specification, "Operator Sets").
STANDARD = "ai.onnx"
# What ONNX Runtime assumes where a model imports no operator set for a domain of its own.
_ASSUMED = {"com.microsoft": 1, "com.microsoft.nchwc": 1, "ai.onnx.ml": 5, "ai.onnx.training": 1}
# How many nodes of a cycle a message names.
_SHOWN = 4


class NotUsable(Exception):  # noqa: N818 - it becomes a ModelError once the path is known
    """A file cannot be used; the message says why and what to do."""


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield *graph* and all bodies in it, at any depth."""
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from graphs(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield *nodes* and all nodes in their bodies."""
    for node in nodes:
        yield node
        for body in _bodies(node):
            yield from _nodes(body.node)


def all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the graph, of its bodies and of local functions."""
    yield from _nodes(proto.graph.node)
    for function in proto.functions:
        yield from _nodes(function.node)


def import_assumed(proto: onnx.ModelProto) -> None:
    """Add the operator sets that ONNX Runtime assumes for domains of its own, where nodes of the graph use them."""
    imported = {opset.domain for opset in proto.opset_import}
    used = {node.domain for node in _nodes(proto.graph.node)}
    for domain in sorted((used - imported) & _ASSUMED.keys()):
        proto.opset_import.add(domain=domain, version=_ASSUMED[domain])


def check_domains(proto: onnx.ModelProto) -> None:
    """Check that an operator set is imported for each node's domain.

    Raises:
        NotUsable: a domain has no imported operator set.
    """
    scopes = [("the model", proto.opset_import, proto.graph.node)]
    scopes += [(f"function '{item.name}'", item.opset_import, item.node) for item in proto.functions]
    for where, opsets, nodes in scopes:
        imported = {opset.domain for opset in opsets}
        for node in _nodes(nodes):
            if node.domain not in imported:
                raise NotUsable(
                    f"{_title(node)} uses domain '{node.domain or STANDARD}', but {where} imports no operator set "
                    "for it; add one to opset_import, or export the model again"
                )


def check_names(proto: onnx.ModelProto) -> None:
    """Check that every tensor that is read has exactly one source, and that there are no cycles.

    Raises:
        NotUsable: a name is undefined, defined twice, or part of a cycle.
    """
    graph = proto.graph
    given, weights = [info.name for info in graph.input], [tensor.name for tensor in graph.initializer]
    found = {"graph": _free_names(graph.node, given, weights, [info.name for info in graph.output])}
    for item in proto.functions:
        found[f"function '{item.name}'"] = _free_names(item.node, item.input, [], item.output)
    for where, missing in found.items():
        for name, reader in missing.items():
            raise NotUsable(
                f"{reader} uses '{name}', but the {where} has no node, input or initializer of that name; "
                "the model is damaged, export it again"
            )


def _free_names(
    nodes: Iterable[onnx.NodeProto], inputs: Iterable[str], weights: Iterable[str], outputs: Iterable[str]
) -> dict[str, str]:
    """Return the names that a graph reads but does not define, each with a description of its reader."""
    nodes = list(nodes)
    maker: dict[str, int] = {}
    for name in _twice(inputs) + _twice(weights):
        raise NotUsable(f"two inputs or initializers have the name '{name}'; rename one of them")
    given = {*inputs, *weights}
    used: list[dict[str, str]] = []
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in maker or name in given:
                raise NotUsable(f"{_title(node)} redefines tensor '{name}'; rename one of the two")
            maker[name] = index
        used.append(dict.fromkeys(filter(None, node.input), _title(node)) | _captured(node))
    _check_acyclic(nodes, [{maker[name] for name in reads if name in maker} for reads in used])
    used.append(dict.fromkeys(outputs, "the list of outputs"))
    return {
        name: reader
        for reads in used
        for name, reader in reads.items()
        if name not in maker and name not in given
    }


def _captured(node: onnx.NodeProto) -> dict[str, str]:
    """Return the names that the bodies of *node* read from outside, each with a description of its reader."""
    defined: set[str] = set()
    reads: dict[str, str] = {}
    for body in _bodies(node):
        given, weights = [info.name for info in body.input], [tensor.name for tensor in body.initializer]
        reads |= _free_names(body.node, given, weights, [info.name for info in body.output])
        defined |= {*given, *weights, *(name for inner in body.node for name in inner.output)}
    for name, reader in reads.items():
        if (
            name in defined
        ):  # ONNX Runtime then takes one for the other, or not, depending on how it optimises
            raise NotUsable(
                f"{reader} uses '{name}' from outside of {_title(node)}, and another body of that node has a tensor "
                "of the same name; rename one of the two"
            )
    return reads


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def _check_acyclic(nodes: list[onnx.NodeProto], needs: list[set[int]]) -> None:
    if all(need < index for index, found in enumerate(needs) for need in found):
        return  # nodes in topological order have no cycle
    try:
        TopologicalSorter(dict(enumerate(needs))).prepare()
    except CycleError as error:
        circle = [_title(nodes[index]) for index in reversed(error.args[1])]
        shown = " -> ".join([*circle[:_SHOWN], *["..."][: len(circle) - _SHOWN]])
        raise NotUsable(f"its nodes form a cycle ({shown}); the model is damaged, export it again") from error


def _title(node: onnx.NodeProto) -> str:
    return f"node '{node.name or next(filter(None, node.output), node.op_type)}'"
