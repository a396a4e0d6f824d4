"""The model as the solver sees it: units, the tensors between them, and weights.

It holds no ONNX objects and no weight values. Every tensor between two units has a known size,
because `units.py` puts the producer and the readers of a tensor of unknown size into one unit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from splitc.common.records import Count, check


@dataclass(frozen=True, slots=True)
class Tensor:
    """A model input, a tensor between units, or a model output.

    Attributes:
        shape: as the model declares it; a string is a symbolic dimension, "?" an unnamed one.
        nbytes: size in bytes at the sizing dimensions. None only for a model input that cannot be sent
            (a string or sequence); its readers are then in `Graph.device_only`.
        producer: index of the unit that computes it; None for a model input.
        consumers: indices of the units that read it, ascending.
        is_sendable: False for an output that no server can send: its producer is in `Graph.device_only`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    nbytes: int | None
    producer: int | None
    consumers: tuple[int, ...]
    is_output: bool
    is_sendable: bool = True


@dataclass(frozen=True, slots=True)
class Weight:
    """An initializer, known by name and size only."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one source node: the features that a time is predicted from.

    Attributes:
        op: operator type, with its domain if that is not the default one.
        op_class: class of operators with similar cost: depthwise, grouped, pointwise, dense3x3, conv,
            matmul, transcendental (elementwise, with exponentials and the like), memory (elementwise,
            pooling, data movement), or other (unknown).
        macs: number of multiply-accumulate operations.
        read_bytes, write_bytes: activations and weights moved, at the sizing dimensions.
        weight_bytes: the part of `read_bytes` that is weights.
    """

    op: str
    op_class: str
    macs: Count
    read_bytes: Count
    write_bytes: Count
    weight_bytes: Count

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Unit:
    """Source nodes that a cut never separates, because ONNX Runtime may run them as one.

    Attributes:
        name: name of its last source node.
        nodes: positions of its nodes in the model, ascending.
        inputs, outputs: indices into `Graph.tensors`, ascending. An output that no other unit reads
            and that is not a model output is left out.
        weights: indices into `Graph.weights`, ascending; two units may share a weight.
        work: the work of each of its nodes that has a known one.
        scratch_bytes: bytes of the tensors used only inside the unit, as far as their sizes are known.
    """

    name: str
    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[int, ...]
    work: tuple[Work, ...]
    scratch_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Graph:
    """Units in topological order, the tensors between them, and weights.

    Attributes:
        device_only: units that must run on the device, because they read an input or make an output that cannot
            be sent.
    """

    units: tuple[Unit, ...]
    tensors: tuple[Tensor, ...]
    weights: tuple[Weight, ...]
    device_only: frozenset[int] = frozenset()

    def tensor_index(self) -> dict[str, int]:
        """Return the position of each tensor in `tensors`, by name."""
        return {tensor.name: position for position, tensor in enumerate(self.tensors)}


def device_only(tensors: Iterable[Tensor]) -> frozenset[int]:
    """Return the units that must run on the device because of what they read and make; see `Graph`."""
    found: set[int] = set()
    for tensor in tensors:
        if tensor.nbytes is None:
            found.update(tensor.consumers)
        if not tensor.is_sendable and tensor.producer is not None:
            found.add(tensor.producer)
    return frozenset(found)
