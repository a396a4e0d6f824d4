"""The names of a model: which are taken, and new ones that are free.

ONNX lets two bodies use one name for two values. What is moved out of a body must not meet a namesake there,
so every value gets a name of its own. Only the names of top-level values can be seen from outside; they stay.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass(slots=True)
class Names:
    """The names that are taken in a model, in all of its graphs, bodies and functions.

    Attributes:
        values: names of values.
        nodes: names of nodes.
        renamed: whether a value has another name than in the file.
    """

    values: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    renamed: bool = False

    def value(self, wanted: str) -> str:
        """Take a free name for a value: *wanted*, or one that begins with it."""
        return _take(self.values, wanted)

    def node(self, wanted: str) -> str:
        """Take a free name for a node: *wanted*, or one that begins with it."""
        return _take(self.nodes, wanted)

    def numbered(self, stem: str) -> str:
        """Take a name that is free for a value and for a node: *stem* and a number."""
        name = next(name for name in _numbered(stem) if name not in self.values | self.nodes)
        self.values.add(name)
        self.nodes.add(name)
        return name


def unique_names(model: ir.Model) -> Names:
    """Rename values in the bodies of *model*, in place, until no two values have one name; return all names."""
    names = Names()
    tops: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for top in tops:
        names.nodes.update(node.name for node in top.all_nodes() if node.name)
        names.values.update(value.name for value in _values(top) if value.name)
    bodies = [body for top in tops for body in top.subgraphs()]
    for body in bodies:
        for value in _values(body):
            if value.name:
                given, value.name = value.name, names.value(value.name)
                names.renamed |= value.name != given
    return names


def _values(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    """Yield the values that *graph* defines, without those in its bodies; each once."""
    values = [*graph.inputs, *(graph.initializers.values() if isinstance(graph, ir.Graph) else ())]
    yield from dict.fromkeys(values)
    for node in graph:
        yield from node.outputs


def _take(taken: set[str], wanted: str) -> str:
    name = next(name for name in itertools.chain([wanted], _numbered(f"{wanted}/")) if name not in taken)
    taken.add(name)
    return name


def _numbered(stem: str) -> Iterator[str]:
    return (f"{stem}{number}" for number in itertools.count(1))
