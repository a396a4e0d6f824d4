"""What lies inside If, Loop and Scan, and what it uses from outside."""

from collections.abc import Iterator

import onnx_ir as ir


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The bodies of an If, Loop or Scan."""
    found = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def used_inside(node: ir.Node) -> Iterator[ir.Value | None]:
    """Every value that the bodies of *node* mention, at any depth: captures are among them."""
    for body in bodies(node):
        yield from body.outputs
        for inner in body.all_nodes():
            yield from inner.inputs
            for nested in bodies(inner):
                yield from nested.outputs
