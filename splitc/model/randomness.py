"""Which outputs of a model depend on random operators, so that no two runs need agree on them.

Attributes such as `seed` do not change that: a session begins its numbers anew, and head and tail have two.
"""

import onnx_ir as ir

from splitc.model.model import Model
from splitc.model.nodes import is_random, sources


def random_outputs(model: Model) -> frozenset[str]:
    """Return the names of the outputs of *model* that depend on a random operator."""
    found = sources(model)
    random: set[str] = set()
    for node, reads in zip(found.nodes, found.reads, strict=True):
        if not random.isdisjoint(reads) or is_random(node, model.ir):
            random.update(_names(node))
    return frozenset(random.intersection(model.outputs()))


def _names(node: ir.Node) -> list[str]:
    return [output.name for output in node.outputs if output.name]
