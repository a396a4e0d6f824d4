"""The model as the solver sees it: units, the tensors between them, and weights.

No ONNX objects and no weight values live here. Every tensor that joins two units has a known
size, because `units.py` merges units across a tensor whose size cannot be known.
"""

from dataclasses import dataclass

from splitc.common.records import Count, check


@dataclass(frozen=True, slots=True)
class Tensor:
    """A model input, a tensor between units, or a model output.

    Attributes:
        shape: as the model declares it; a string is a symbolic dimension, "?" an unnamed one.
        nbytes: size at the sizing dimensions. None only for a model input that cannot be sent
            (a string or sequence); its readers are then in `Graph.device_only`.
        producer: index of the unit that makes it, or None for a model input.
        consumers: indices of the units that read it, ascending.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    nbytes: int | None
    producer: int | None
    consumers: tuple[int, ...]
    is_output: bool


@dataclass(frozen=True, slots=True)
class Weight:
    """An initializer, known by name and size only."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """What one source node has to do: the features that a prediction reads.

    Attributes:
        op: operator type, with its domain when that is not the default one.
        op_class: what it is costed as: depthwise, grouped, pointwise, dense3x3, conv, matmul,
            transcendental (elementwise, with exponentials and the like), memory (elementwise, pooling,
            data movement), or other (nothing known).
        macs: multiply-accumulates.
        read_bytes, write_bytes: activations and weights moved, at the sizing dimensions.
        weight_bytes: those of `read_bytes` that are weights.
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
    """Source nodes that ONNX Runtime runs as one, and that a cut never separates.

    Attributes:
        name: name of its last source node.
        nodes: positions of its nodes in the model, ascending.
        inputs, outputs: indices into `Graph.tensors`, ascending. Outputs that nobody outside the
            unit reads, and that are not model outputs, are left out.
        weights: indices into `Graph.weights`, ascending; two units may share one.
        scratch_bytes: tensors that live only inside the unit, as far as they have a known size.
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
        device_only: units that must be on the device, because they read an input that cannot be sent.
    """

    units: tuple[Unit, ...]
    tensors: tuple[Tensor, ...]
    weights: tuple[Weight, ...]
    device_only: frozenset[int] = frozenset()

    def tensor_index(self) -> dict[str, int]:
        """Map tensor names to positions in `tensors`."""
        return {tensor.name: position for position, tensor in enumerate(self.tensors)}
