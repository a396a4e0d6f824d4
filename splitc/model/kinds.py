"""Types of values as ONNX Runtime writes them, such as "tensor(float)"; which of them can pass between machines.

A value crosses only if all that handle it can hold it: ONNX Runtime's interfaces, numpy, and the protocol. Numbers of
8 bits or fewer that are not integers, and optionals, are handed on as something else or not at all.
"""

import onnx
import onnx_ir as ir

from splitc.protocol.tensors import DTYPES

_TENSOR = "tensor("
_ELEMENTS = {"float": "float32", "double": "float64"}
STRING = "tensor(string)"


def crossing_dtype(kind: str) -> str | None:
    """Return the dtype of numbers or booleans of the type *kind*; None if such a value cannot cross."""
    element = kind.removeprefix(_TENSOR).removesuffix(")") if kind.startswith(_TENSOR) else ""
    dtype = _ELEMENTS.get(element, element)
    return dtype if dtype in DTYPES else None


def is_sendable(kind: str) -> bool:
    """Whether a server can answer with a value of the type *kind*: also with strings."""
    return kind == STRING or crossing_dtype(kind) is not None


def is_returned(kind: str) -> bool:
    """Whether ONNX Runtime's interface for Python returns a value of the type *kind*, as far as it has one."""
    return is_sendable(kind) or not kind.startswith(_TENSOR)


def shown(kind: str) -> str:
    """*kind* for people: a tensor by its elements."""
    return kind[len(_TENSOR) : -1] if kind.startswith(_TENSOR) else kind or "of unknown type"


def kind_of(declared: onnx.TypeProto) -> str:
    """Return the type that a model declares; "" if it declares none."""
    name = declared.WhichOneof("value")
    if name == "map_type":
        key = _element(declared.map_type.key_type)
        return f"map({key},{kind_of(declared.map_type.value_type)})"
    if name in ("sequence_type", "optional_type"):
        word = "seq" if name == "sequence_type" else "optional"
        return f"{word}({kind_of(getattr(declared, name).elem_type)})"
    if name in ("tensor_type", "sparse_tensor_type"):
        return f"{name.removesuffix('_type')}({_element(getattr(declared, name).elem_type)})"
    return ""


def element_bits(declared: onnx.TypeProto.Tensor) -> int | None:
    """Return the bits of an element; None for strings and unknown types."""
    dtype = ir.DataType(declared.elem_type)
    return None if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED) else dtype.bitwidth


def _element(number: int) -> str:
    return ir.DataType(number).name.lower()
