"""What `splitc inspect MODEL` prints."""

from dataclasses import dataclass

from splitc.common.records import Count, Sha256
from splitc.model.analysis import Analysis
from splitc.model.graph import Tensor


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """Nodes that ONNX Runtime runs as one, and that a cut never separates.

    Attributes:
        nodes: their names; empty for a node without one.
    """

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Where a model could be cut.

    Attributes:
        model: the name.
        sha256: of the file and of its external data.
        nodes: how many there are.
        units: in running order.
        tensors: those that could cross, with the model's inputs and outputs; `producer` and `consumers` are places in
            `units`.
        fused: tensors that cannot cross, because ONNX Runtime fuses the nodes around them.
        unknown_size: tensors that cannot cross, because their size is not known or they are not numbers.
        unknown_work: nodes whose work cannot be predicted, because the size of a tensor is not known.
        dims: what symbolic dimensions were fixed to.
        notes: what a user should know of how this was found, a sentence each.
    """

    model: str
    sha256: Sha256
    nodes: Count
    units: tuple[UnitFacts, ...]
    tensors: tuple[Tensor, ...]
    fused: tuple[str, ...]
    unknown_size: tuple[str, ...]
    unknown_work: tuple[str, ...]
    dims: dict[str, int]
    notes: tuple[str, ...]


def model_facts(found: Analysis) -> ModelFacts:
    """Everything that `splitc inspect` tells of a model."""
    graph, nodes = found.partition.graph, found.sources.nodes
    return ModelFacts(
        model=found.original.name,
        sha256=found.original.sha256,
        nodes=len(nodes),
        units=tuple(
            UnitFacts(unit.name, tuple(nodes[index].name or "" for index in unit.nodes))
            for unit in graph.units
        ),
        tensors=graph.tensors,
        fused=tuple(found.partition.fused),
        unknown_size=tuple(found.partition.unknown),
        unknown_work=tuple(found.partition.unsized),
        dims=dict(found.dims),
        notes=found.notes,
    )
