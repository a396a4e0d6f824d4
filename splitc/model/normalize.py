"""Bring a loaded model into the form that the rest of splitc relies on.

Every value has a name of its own; constants are initializers of the top-level graph; unused nodes are
removed; nodes have names and are in topological order; each DequantizeLinear has one reader, so that its
int8 input can be the boundary tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from splitc.model.names import Names, unique_names

# From this version of the format on, an initializer that is an input as well is a default; before, all had to be inputs.
_OVERRIDABLE = 4


@dataclass(frozen=True, slots=True)
class Changes:
    """What `normalize` did to names.

    Attributes:
        copies: values that it added, with the names of those that they are copies of.
        renamed: whether values in bodies have other names than in the file, because these were not unique.
        fixed: inputs that had a default, which an app could replace; they are weights now.
    """

    copies: Mapping[str, str]
    renamed: bool
    fixed: tuple[str, ...]


def normalize(model: ir.Model) -> Changes:
    """Rewrite *model* in place; names of top-level values, and results, stay the same."""
    names = unique_names(model)
    fixed = [value.name or "" for value in model.graph.inputs if value.name in model.graph.initializers]
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
    copies = _unshare_dequantize(model.graph, names)
    _name_nodes(model.graph, names)
    return Changes(copies, names.renamed, tuple(fixed) if model.ir_version >= _OVERRIDABLE else ())


def _unshare_dequantize(graph: ir.Graph, names: Names) -> dict[str, str]:
    """Give each reader of a DequantizeLinear's output its own copy of the node; return what is a copy of what."""
    outputs = set(graph.outputs)
    copies = {}
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.outputs[0] in outputs:
            continue
        original = node.outputs[0]
        for reader, position in list(original.uses())[1:]:
            if reader.graph is not graph:
                continue  # read inside a body: the node with the body keeps the shared tensor
            name = names.numbered(f"{original.name}/copy")
            copies[name] = original.name or ""
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
    return copies


def _name_nodes(graph: ir.Graph, names: Names) -> None:
    """Name unnamed nodes after their first output, because messages and units refer to nodes by name."""
    for node in graph:
        if not node.name:
            output = next((output.name for output in node.outputs if output.name), node.op_type)
            node.name = names.node(output)
