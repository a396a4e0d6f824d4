"""Write heads and tails: self-contained ONNX files that share one file of weights.

Each part gets exactly what it uses: its nodes, the constant nodes behind them, local functions
(also those that only a body or another function calls), operator sets, and references into
weights.bin. Tensor names, types and symbolic dimensions are the model's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from splitc.bundle.folder import WEIGHTS
from splitc.bundle.weights import WeightPool
from splitc.common.values import FREE_DIM
from splitc.model.graph import Graph
from splitc.model.model import Model
from splitc.model.nodes import Sources
from splitc.model.sizes import Size
from splitc.solve.cuts import Cut

# Smaller constants (axes, target shapes) stay in the graph: shape inference does not read external data.
_INLINE_BYTES = 1024
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Emitter:
    """A model prepared for cutting: serialised nodes, and weights that already lie in a bundle's file of weights.

    Attributes:
        weights: the initializers, large ones as references into that file.
        given: names of the model's inputs.
    """

    model: Model
    graph: Graph
    sources: Sources
    sizes: Mapping[str, Size]
    nodes: tuple[onnx.NodeProto, ...]
    weights: Mapping[str, onnx.TensorProto]
    given: frozenset[str]


@dataclass(frozen=True, slots=True)
class PartGraph:
    """The nodes, inputs and outputs of one side of a cut."""

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def prepare(
    model: Model, graph: Graph, sources: Sources, sizes: Mapping[str, Size], pool: WeightPool
) -> Emitter:
    """Put the weights of *model* into *pool*, and make ready to write any part of it."""
    tensors = {
        name: value.const_value
        for name, value in model.ir.graph.initializers.items()
        if value.const_value is not None
    }
    weights = _place_weights(tensors, pool)
    nodes = tuple(ir.to_proto(node) for node in sources.nodes)
    given = frozenset(item.name for item in model.inputs())
    return Emitter(model, graph, sources, sizes, nodes, weights, given)


def head_part(emitter: Emitter, cut: Cut) -> PartGraph | None:
    """What the head of *cut* computes; None for all-tail."""
    if cut.kind == "all-tail":
        return None
    graph = emitter.graph
    made = [graph.tensors[index].name for index in cut.boundary if graph.tensors[index].producer is not None]
    outputs = dict.fromkeys([*made, *_head_outputs(emitter, cut)])
    return _part(emitter, cut.head, tuple(outputs))


def tail_part(emitter: Emitter, cut: Cut) -> PartGraph | None:
    """What the tail of *cut* computes; None for all-head."""
    if cut.kind == "all-head":
        return None
    # An output that is an input as well never leaves the device.
    made = {*_head_outputs(emitter, cut), *emitter.given}
    units = frozenset(range(len(emitter.graph.units))) - cut.head
    outputs = tuple(name for name in emitter.model.outputs() if name not in made)
    return _part(emitter, units, outputs)


def write_part(emitter: Emitter, part: PartGraph, path: Path) -> None:
    """Write *part* to *path*, beside the file of weights."""
    model = emitter.model
    proto = onnx.ModelProto(
        ir_version=max(model.ir.ir_version, 4),  # from 4 on, initializers need not be inputs
        producer_name="splitc",
        domain=model.ir.domain or "",
        model_version=model.ir.model_version or 0,
    )
    nodes = [emitter.nodes[index] for index in part.nodes]
    functions = _functions(model.ir, nodes)
    proto.functions.extend(functions)
    domains = {node.domain for node in _all_nodes(nodes)} | {function.domain for function in functions}
    for domain, version in sorted(model.ir.opset_imports.items()):
        # Bodies of local functions are inlined against these, so every import that exists is kept.
        if domain in domains or domain == "" or functions:
            proto.opset_import.add(domain=domain, version=version)
    for key, value in sorted(model.ir.metadata_props.items()):
        proto.metadata_props.add(key=key, value=value)
    graph = proto.graph
    graph.name = model.ir.graph.name or model.name
    graph.node.extend(nodes)
    used = {name for index in part.nodes for name in emitter.sources.reads[index]} | set(part.outputs)
    graph.initializer.extend(tensor for name, tensor in emitter.weights.items() if name in used)
    graph.input.extend(_input_info(emitter, name) for name in part.inputs)
    graph.output.extend(_output_info(emitter, name) for name in part.outputs)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _head_outputs(emitter: Emitter, cut: Cut) -> list[str]:
    """Model outputs that the head makes; constant ones are made on the device, if anything runs there."""
    producer = {tensor.name: tensor.producer for tensor in emitter.graph.tensors}
    if cut.kind == "all-head":
        return list(emitter.model.outputs())
    makes_constants = cut.kind == "split" and cut.direction == "device-first"
    return [
        name
        for name in emitter.model.outputs()
        if name not in emitter.given and (producer[name] in cut.head if name in producer else makes_constants)
    ]


def _part(emitter: Emitter, units: frozenset[int], outputs: tuple[str, ...]) -> PartGraph:
    """The nodes of *units* with the constant nodes that they, or *outputs*, need."""
    sources = emitter.sources
    chosen = {index for unit in units for index in emitter.graph.units[unit].nodes}
    needed = set(outputs) | {name for index in chosen for name in sources.reads[index]}
    for index in sorted(sources.constant, reverse=True):
        if any(output.name in needed for output in sources.nodes[index].outputs):
            chosen.add(index)
            needed.update(sources.reads[index])
    made = {output.name for index in chosen for output in sources.nodes[index].outputs}
    given = needed - made - set(emitter.model.ir.graph.initializers)
    tensors = [tensor.name for tensor in emitter.graph.tensors if tensor.name in given]
    return PartGraph(tuple(sorted(chosen)), tuple(tensors), outputs)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)
            for body in attribute.graphs:
                yield from _all_nodes(body.node)


def _functions(model: ir.Model, nodes: list[onnx.NodeProto]) -> list[onnx.FunctionProto]:
    """Local functions that *nodes* call, directly, inside bodies, or through other functions."""
    if not model.functions:
        return []
    found: dict[ir.OperatorIdentifier, onnx.FunctionProto] = {}
    waiting = list(_all_nodes(nodes))
    while waiting:
        node = waiting.pop()
        key = (node.domain, node.op_type, node.overload)
        if key in model.functions and key not in found:
            found[key] = ir.to_proto(model.functions[key])
            waiting.extend(_all_nodes(found[key].node))
    return [found[key] for key in sorted(found)]


def _input_info(emitter: Emitter, name: str) -> onnx.ValueInfoProto:
    """Declare an input: as the model does if it is the model's, else from what is known of the tensor.

    What the model declares of an early output is not used: ONNX Runtime only warns where an output
    has another shape than it declares, but refuses an input that has.
    """
    if name in emitter.given:
        return emitter.model.declared[name]
    size = emitter.sizes[name]
    assert size.dtype is not None, "only numeric tensors cross"
    kind = int(ir.DataType.from_numpy(np.dtype(size.dtype)))
    shape = [None if dim == FREE_DIM else dim for dim in size.shape]
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def _output_info(emitter: Emitter, name: str) -> onnx.ValueInfoProto:
    """Declare an output: as the model does, or as the tail does when it reads it."""
    declared = emitter.model.declared.get(name)
    return declared if declared is not None else _input_info(emitter, name)


def _place_weights(tensors: Mapping[str, ir.TensorProtocol], pool: WeightPool) -> dict[str, onnx.TensorProto]:
    """How a part refers to each of *tensors*: small ones as they are, large ones where they lie in *pool*."""
    return {
        name: _inline(name, tensor)
        if tensor.nbytes < _INLINE_BYTES or tensor.dtype == ir.DataType.STRING
        else _reference(name, tensor, pool.place(_chunks(tensor)))
        for name, tensor in sorted(tensors.items())
    }


def _inline(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    if isinstance(tensor, ir.ExternalTensor):  # written as it is, it would refer into the model's own files
        tensor = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, shape=tensor.shape)
    proto = ir.to_proto(tensor)
    proto.name = name
    return proto


def _reference(name: str, tensor: ir.TensorProtocol, offset: int) -> onnx.TensorProto:
    proto = onnx.TensorProto(
        name=name,
        data_type=int(tensor.dtype),
        dims=[int(dim) for dim in tensor.shape],  # type: ignore[arg-type]
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _chunks(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    """The bytes of *tensor*, piece by piece where they lie in a file."""
    if not isinstance(tensor, ir.ExternalTensor):
        yield tensor.tobytes()
        return
    left = tensor.nbytes
    with Path(tensor.path).open("rb") as stream:
        stream.seek(tensor.offset or 0)
        while left > 0:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{tensor.path}: ends before the data of '{tensor.name}'")
            yield chunk
            left -= len(chunk)
