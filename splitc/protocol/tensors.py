"""Encode and decode tensors of the Open Inference Protocol: raw little-endian bytes, or lists in JSON.

Received data is not trusted: a tensor is made only after a check that its bytes or list match its shape.
"""

import contextlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from splitc.common.errors import ProtocolError
from splitc.common.values import Array
from splitc.protocol.fields import shown, utf8

with contextlib.suppress(ImportError):  # without it, bfloat16 is not available
    import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16

Buffer = bytes | bytearray | memoryview

_DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "string": "BYTES",
}
DTYPES = frozenset(_DATATYPES) - {"string"}
"""The dtypes of numbers and booleans that messages carry, as numpy names them."""
_DTYPES = {datatype: name for name, datatype in _DATATYPES.items()} | {"BYTES": "object"}
# The Python types that JSON elements may have, by the kind of dtype; numbers and booleans are not interchangeable.
_ELEMENTS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "O": {str}}
_NUMBERS: set[type] = {int, float}
_FLOAT_KINDS = "fV"  # V: of ml_dtypes
_NATIVE_KINDS = "biuf"  # kinds that Python can view as bytes without numpy
_LENGTH = struct.Struct("<I")
# Limits the dimensions of tensors without elements too, because these have no bytes that limit them.
_MAX_ELEMENTS = 2**31
_MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class Declared:
    """The datatype and shape of a tensor in a message; `where` names the tensor in error messages."""

    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements; at most 2**31."""
        return math.prod(self.shape)


def datatype(dtype_name: str) -> str:
    """Return the protocol's name of a dtype in a manifest: "float32" is "FP32", "string" is "BYTES".

    Raises:
        ProtocolError: the protocol does not support it.
    """
    if dtype_name not in _DATATYPES:
        raise ProtocolError(f"a tensor of {dtype_name} cannot be sent: the Open Inference Protocol lacks it")
    return _DATATYPES[dtype_name]


def datatype_of(array: Array) -> str:
    """Return the protocol's name of the dtype of *array*; objects and text of fixed width are strings.

    Raises:
        ProtocolError: the protocol does not support it.
    """
    return _datatype_of(array.dtype)


@lru_cache  # numpy takes long to name a dtype
def _datatype_of(dtype: np.dtype[Any]) -> str:
    return datatype("string" if dtype.kind in "OU" else dtype.name)


def declared(where: str, datatype_name: object, shape: object) -> Declared:
    """Check the datatype and shape that a message gives for the tensor called *where*.

    Raises:
        ProtocolError: the datatype is unknown, or the shape is not valid.
    """
    if not isinstance(datatype_name, str) or datatype_name not in _DTYPES:
        raise ProtocolError(f"{where}: datatype {shown(datatype_name)} is none of {', '.join(_DTYPES)}")
    try:
        dtype = np.dtype(_DTYPES[datatype_name])
    except TypeError as error:  # ml_dtypes is missing
        raise ProtocolError(
            f"{where}: BF16 needs the package ml_dtypes on this side; install it, or send FP32"
        ) from error
    return Declared(where, dtype, _checked_shape(where, shape))


def _checked_shape(where: str, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        raise ProtocolError(f"{where}: its shape must be a list of at most {_MAX_RANK} integers")
    for size in shape:
        if type(size) is not int or not 0 <= size <= _MAX_ELEMENTS:
            raise ProtocolError(
                f"{where}: {shown(size)} in its shape is not a size from 0 to {_MAX_ELEMENTS}"
            )
    if math.prod(size for size in shape if size) > _MAX_ELEMENTS:
        raise ProtocolError(f"{where}: its shape has more than {_MAX_ELEMENTS} elements")
    return tuple(shape)


def to_bytes(where: str, array: Array) -> Buffer:
    """Return the elements in row-major order, little-endian: a view of *array* if its memory has this form.

    Raises:
        ProtocolError: it holds objects that are not text, or text that UTF-8 cannot hold.
    """
    if array.dtype.kind in "OU":
        return b"".join(chain.from_iterable(_with_length(where, text) for text in array.ravel()))
    if array.size == 0:
        return b""
    little = _little_endian(array.dtype)
    if array.flags.c_contiguous and array.dtype == little and array.dtype.kind in _NATIVE_KINDS:
        return array.data.cast("B")
    return np.ascontiguousarray(array, little).reshape(-1).view(np.uint8).data


def _with_length(where: str, text: object) -> tuple[bytes, bytes]:
    encoded = utf8(where, text)
    return _LENGTH.pack(len(encoded)), encoded


def from_bytes(tensor: Declared, raw: memoryview) -> Array:
    """Return the tensor in *raw*: a view of *raw* if it is aligned and the machine is little-endian.

    Raises:
        ProtocolError: the bytes of *raw* do not match the datatype and shape.
    """
    if tensor.dtype.kind == "O":
        return _texts(tensor, list(_split(tensor, raw)))
    wanted_bytes = tensor.elements * tensor.dtype.itemsize
    if raw.nbytes != wanted_bytes:
        raise ProtocolError(
            f"{tensor.where}: {raw.nbytes} bytes of binary data, but its shape takes {wanted_bytes}"
        )
    if not wanted_bytes:
        return np.empty(tensor.shape, tensor.dtype)
    array = np.frombuffer(raw, _little_endian(tensor.dtype))
    if not (array.flags.aligned and array.dtype.isnative):  # compiled kernels may crash on such arrays
        array = array.astype(tensor.dtype)
    if tensor.dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise ProtocolError(f"{tensor.where}: a byte of its binary data is neither 0 nor 1, but it is BOOL")
    return array.reshape(tensor.shape)


def _split(tensor: Declared, raw: memoryview) -> Iterable[str]:
    """Yield each string in *raw*."""
    offset = 0
    while offset < raw.nbytes:
        start = offset + _LENGTH.size
        length = _LENGTH.unpack_from(raw, offset)[0] if start <= raw.nbytes else 0
        offset = start + length
        if offset > raw.nbytes:
            raise ProtocolError(f"{tensor.where}: a string reaches beyond the end of its binary data")
        try:
            yield str(raw[start:offset], "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{tensor.where}: a string in its binary data is not UTF-8") from error


def to_list(where: str, array: Array) -> list[Any]:
    """Return the elements in row-major order, as values that JSON supports.

    Raises:
        ProtocolError: it holds objects that are not text, text that UTF-8 cannot hold, or numbers that are not finite.
    """
    if array.dtype.kind in "OU":
        return [utf8(where, text).decode() for text in array.ravel()]
    if array.dtype.kind in _FLOAT_KINDS and not np.isfinite(array).all():
        raise ProtocolError(f"{where} holds NaN or infinity, which JSON cannot; ask for it as binary data")
    numbers: list[Any] = array.ravel().tolist()
    return numbers if array.dtype.kind != "V" else [float(number) for number in numbers]


def from_list(tensor: Declared, data: object) -> Array:
    """Return the tensor with the elements of the list *data*, which is flat or nested.

    Raises:
        ProtocolError: *data* does not match the datatype and shape.
    """
    elements = _flat(tensor, data)
    allowed = _ELEMENTS.get(tensor.dtype.kind, _NUMBERS)
    if not allowed.issuperset(map(type, elements)):
        stranger = next(item for item in elements if type(item) not in allowed)
        raise ProtocolError(f"{tensor.where}: {shown(stranger)} in its data is not of its datatype")
    if tensor.dtype.kind == "O":
        for text in elements:
            utf8(tensor.where, text)
        return _texts(tensor, elements)
    return (_integers if tensor.dtype.kind in "iu" else _floats)(tensor, elements).reshape(tensor.shape)


def _flat(tensor: Declared, data: object) -> list[Any]:
    if not isinstance(data, list):
        raise ProtocolError(f"{tensor.where}: data must be a list, found {shown(data)}")
    level = [data]
    # A flat list has all elements on one level.
    for size in tensor.shape if any(isinstance(item, list) for item in data) else (tensor.elements,):
        if any(not isinstance(items, list) or len(items) != size for items in level):
            raise ProtocolError(f"{tensor.where}: its data does not have the shape {list(tensor.shape)}")
        level = list(chain.from_iterable(level))
    return level


def _integers(tensor: Declared, elements: list[int]) -> Array:
    limits = np.iinfo(tensor.dtype)
    if elements and not (limits.min <= min(elements) and max(elements) <= limits.max):
        raise ProtocolError(f"{tensor.where}: a number in its data is too large for its datatype")
    return np.array(elements, tensor.dtype)


def _floats(tensor: Declared, elements: list[float]) -> Array:
    try:
        exact = np.array(elements, np.float64)
        with np.errstate(over="ignore"):
            array: Array = exact.astype(tensor.dtype)
        fits = bool(np.isfinite(array).all())
    except OverflowError:  # an integer beyond all floats
        fits = False
    if not fits:
        raise ProtocolError(f"{tensor.where}: a number in its data is too large for its datatype")
    return array


def _texts(tensor: Declared, texts: list[str]) -> Array:
    if len(texts) != tensor.elements:
        raise ProtocolError(f"{tensor.where}: {len(texts)} strings, but its shape takes {tensor.elements}")
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(tensor.shape)


@lru_cache
def _little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")
