"""Bring a loaded model into the form that the rest of splitc relies on.

Constants are initializers of the top-level graph; unused nodes are removed; nodes have names and
are in topological order; each DequantizeLinear has one reader, so that its int8 input can be the
boundary tensor.
"""

import itertools

import onnx_ir as ir
from onnx_ir.passes import common

_COPY = "/copy"


def normalize(model: ir.Model) -> None:
    """Rewrite *model* in place; tensor names and results stay the same."""
    passes: list[ir.passes.InPlacePass] = [
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.TopologicalSortPass(),
    ]
    for step in passes:
        step(model)
    _unshare_dequantize(model.graph)
    _name_nodes(model.graph)


def copied_from(name: str) -> str:
    """Return the name of the tensor that *name* is a copy of; *name* itself if `normalize` did not make it."""
    return name.rpartition(_COPY)[0] or name


def _unshare_dequantize(graph: ir.Graph) -> None:
    """Give each reader of a DequantizeLinear's output its own copy of the node."""
    outputs = set(graph.outputs)
    taken = {output.name for node in graph.all_nodes() for output in node.outputs} | set(graph.initializers)
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.outputs[0] in outputs:
            continue
        original = node.outputs[0]
        for reader, position in list(original.uses())[1:]:
            if reader.graph is not graph:
                continue  # read inside a body: the node with the body keeps the shared tensor
            names = (f"{original.name}{_COPY}{number}" for number in itertools.count(1))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            copy = ir.Node(
                node.domain,
                node.op_type,
                node.inputs,
                list(node.attributes.values()),
                name=name,
                outputs=[ir.Value(name=name, type=original.type)],
            )
            graph.insert_after(node, copy)
            reader.replace_input_with(position, copy.outputs[0])


def _name_nodes(graph: ir.Graph) -> None:
    """Name unnamed nodes after their first output, because messages and units refer to nodes by name."""
    for node in graph:
        if not node.name:
            node.name = next((output.name for output in node.outputs if output.name), node.op_type)
