"""Write config.pbtxt, Triton's description of a model, for its ONNX Runtime backend.

The fields are defined in triton-inference-server/common, protobuf/model_config.proto, and explained in
triton-inference-server/server, docs/user_guide/model_configuration.md. The file always lists inputs and outputs, so
that Triton does not complete it: Triton would form batches for every model whose first dimensions are all free.
"""

import string
from collections.abc import Sequence

import onnx

from splitc.common.errors import ModelError

_DIRECT = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 string".split()
# The only types that the backend supports: onnxruntime_backend, src/onnxruntime_utils.cc.
_TYPES = {onnx.TensorProto.DataType.Value(name.upper()): f"TYPE_{name.upper()}" for name in _DIRECT} | {
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
}
_PLAIN = frozenset(string.printable) - frozenset('"\\' + string.whitespace) | {" "}


def config(
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    max_batch: int,
    origin: str,
) -> str:
    """Return config.pbtxt of the model *name*; its first line is a comment with *origin*.

    Args:
        max_batch: how many requests may run as one along axis 0; 0 if they must not.

    Raises:
        ModelError: Triton's ONNX Runtime backend does not support an input or output; the message names it.
    """
    blocks = [
        f"# {origin}",
        f"name: {_text(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        *(_port("input", port, batched=max_batch > 0) for port in inputs),
        *(_port("output", port, batched=max_batch > 0) for port in outputs),
    ]
    return "\n".join([*blocks, *(["dynamic_batching { }"] if max_batch > 1 else []), ""])


def _port(kind: str, port: onnx.ValueInfoProto, *, batched: bool) -> str:
    tensor = port.type.tensor_type
    if port.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in _TYPES:
        raise ModelError(
            f"the {kind} '{port.name}' has a type that Triton's ONNX Runtime backend does not support; "
            "serve the bundle with splitc serve"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    dims = sizes[1:] if batched else sizes
    lines = [
        f"{kind} {{",
        f"  name: {_text(port.name)}",
        f"  data_type: {_TYPES[tensor.elem_type]}",
        f"  dims: [ {', '.join(map(str, dims or [1]))} ]",
        # Triton does not support tensors without dimensions, so it must reshape them for the model.
        *([] if dims else ["  reshape { shape: [ ] }"]),
        "}",
    ]
    return "\n".join(lines)


def _text(text: str) -> str:
    """*text* as a string of the protobuf text format: what is not plain ASCII as octal bytes."""
    escaped = "".join(
        char if char in _PLAIN else "".join(f"\\{byte:03o}" for byte in char.encode()) for char in text
    )
    return f'"{escaped}"'
