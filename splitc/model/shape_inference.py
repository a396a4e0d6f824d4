"""Infer types and shapes with ONNX's shape inference, on a copy of the model without its weights."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from splitc.common.memory import at_most
from splitc.common.values import FREE_DIM
from splitc.model.kinds import crossing_dtype, element_bits, kind_of

# Smaller constants are kept: shape inference reads target shapes and axes, but no weights.
_INFERENCE_BYTES = 1024
# What shape inference may take to follow values through the graph.
_VALUES_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known about a tensor.

    Attributes:
        dtype: None if it cannot cross.
        shape: None if its rank is unknown, or if it is not a tensor.
        kind: its type, see `kinds`; "" if it is unknown.
        bits: of an element; None if it has no fixed size.
    """

    dtype: str | None
    shape: tuple[int | str, ...] | None
    kind: str = ""
    bits: int | None = None


def infer(
    model: ir.Model, dims: Mapping[str, int], declared: Mapping[str, onnx.ValueInfoProto]
) -> dict[str, TensorInfo]:
    """Infer types and shapes of all top-level tensors, with the input dimensions in *dims* fixed to numbers.

    A dimension that is neither a number nor a symbol of an input is "?": only a run can tell its size.

    Args:
        declared: the declarations of inputs in the file; of these come types that onnx_ir does not support.
    """
    proto = _without_weights(model, dims)
    for info in proto.graph.input:  # ONNX's shape inference may crash where an input has no type
        if not info.HasField("type") and info.name in declared:
            info.type.CopyFrom(declared[info.name].type)
    symbols = {dim.dim_param for info in proto.graph.input for dim in info.type.tensor_type.shape.dim}
    try:
        proto = _inferred(proto)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError):
        # The declared shapes contradict each other: only a run can tell the shapes of inner tensors.
        symbols.clear()
    infos = {value: TensorInfo(None, None) for value in _value_names(model)}
    for info in [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]:
        if info.name in infos:
            infos[info.name] = _tensor_info(info.type, symbols)
    return infos


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Infer shapes, from the values of small constants where that takes little memory.

    Values of a Range or Expand may be as many as a file asks for.
    """
    try:
        with at_most(_VALUES_BYTES + 4 * proto.ByteSize()):
            return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except MemoryError:
        return onnx.shape_inference.infer_shapes(proto)


def _without_weights(model: ir.Model, dims: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy in which large initializers are inputs without values, so that the message is small."""
    slim = model.clone()
    for value in list(slim.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > _INFERENCE_BYTES:
            slim.graph.initializers.pop(name_of(value))
            value.const_value = None
            slim.graph.inputs.append(value)
    declared = {_symbol(dim) for value in slim.graph.inputs for dim in value.shape or ()}
    for value in slim.graph.inputs:
        if value.shape is not None:
            named = _named_dims(value, declared)
            value.shape = ir.Shape([dims.get(dim, dim) if isinstance(dim, str) else dim for dim in named])
    for node in slim.graph:
        for output in node.outputs:
            output.shape = None  # exporters may declare the sizes of their example input
    return ir.to_proto(slim)


def _named_dims(value: ir.Value, declared: Container[str | None]) -> list[int | str]:
    """Return the dimensions of an input; an unnamed one is called "input:axis", so that --dim can set it.

    If another dimension is *declared* under that name, an apostrophe is added.

    A negative size counts as unnamed: some exporters write -1 for an unknown size, and ONNX Runtime accepts it.
    """
    assert value.shape is not None
    return [
        dim
        if isinstance(dim, int) and dim >= 0
        else (_symbol(dim) or _unnamed(f"{value.name}:{axis}", declared))
        for axis, dim in enumerate(value.shape)
    ]


def _unnamed(name: str, declared: Container[str | None]) -> str:
    while name in declared:
        name += "'"
    return name


def _symbol(dim: int | ir.SymbolicDim) -> str | None:
    return dim.value if isinstance(dim, ir.SymbolicDim) else None


def _value_names(model: ir.Model) -> list[str]:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph for output in node.outputs if output.name]
    return [name_of(value) for value in values]


def _tensor_info(declared: onnx.TypeProto, symbols: set[str]) -> TensorInfo:
    kind, tensor = kind_of(declared), declared.tensor_type
    if not declared.HasField("tensor_type"):
        return TensorInfo(None, None, kind)
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value
            if dim.HasField("dim_value")
            else (dim.dim_param if dim.dim_param in symbols else FREE_DIM)
            for dim in tensor.shape.dim
        )
    return TensorInfo(crossing_dtype(kind), shape, kind, element_bits(tensor))


def name_of(value: ir.Value) -> str:
    """Return the name of a value of a normalised graph, in which every value has one."""
    assert value.name is not None, "normalize() names every value"
    return value.name
