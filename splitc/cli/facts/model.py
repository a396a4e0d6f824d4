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
class TensorFacts:
    """A tensor that could cross, or an input or output of the model.

    Attributes:
        shape: as the model declares it; names are symbolic dimensions, "?" is one without a name.
        bytes: its size; null only for an input that cannot be sent.
        producer: the place in `units` of the unit that makes it; null for an input of the model.
        consumers: the places in `units` of those that read it.
        is_output: whether it is an output of the model.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: Count | None
    producer: Count | None
    consumers: tuple[Count, ...]
    is_output: bool


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Where a model could be cut.

    Attributes:
        model: the name.
        sha256: of the file and of its external data.
        nodes: how many there are.
        units: in running order.
        tensors: those that could cross, and the inputs and outputs of the model.
        fused: tensors that cannot cross, because ONNX Runtime fuses the nodes around them.
        unknown_size: tensors that cannot cross, because their size is not known or their type cannot be sent.
        unknown_work: nodes whose work cannot be predicted, because the size of a tensor is not known.
        dims: what symbolic dimensions were fixed to.
        notes: what a user should know of how this was found, a sentence each.
    """

    model: str
    sha256: Sha256
    nodes: Count
    units: tuple[UnitFacts, ...]
    tensors: tuple[TensorFacts, ...]
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
        tensors=tuple(map(_tensor_facts, graph.tensors)),
        fused=tuple(found.partition.fused),
        unknown_size=tuple(found.partition.unknown),
        unknown_work=tuple(found.partition.unsized),
        dims=dict(found.dims),
        notes=found.notes,
    )


def _tensor_facts(tensor: Tensor) -> TensorFacts:
    return TensorFacts(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        bytes=tensor.nbytes,
        producer=tensor.producer,
        consumers=tensor.consumers,
        is_output=tensor.is_output,
    )
