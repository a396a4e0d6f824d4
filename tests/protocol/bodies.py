"""Makers of tensors and of messages of the Open Inference Protocol, well-formed and not."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitc.protocol.messages import Message

Array = npt.NDArray[Any]

NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
# What text may hold: all of Unicode but halves of surrogate pairs.
TEXTS = st.text(max_size=12)
NAMES = st.text(min_size=1, max_size=20)


def body(message: Message) -> bytes:
    """The message as it goes over the wire."""
    return b"".join([message.json, *message.buffers])


def written(content: object, *tensors: bytes) -> tuple[bytes, int]:
    """The body and the size of the JSON of a message with that content, right or wrong."""
    text = json.dumps(content).encode()
    return b"".join([text, *tensors]), len(text)


def tensor(**fields: object) -> dict[str, object]:
    """The entry of an input of four floats, with other *fields*; one that is ... is left out."""
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4], **fields}
    return {key: value for key, value in entry.items() if value is not ...}


def binary(size: object = 16, **fields: object) -> dict[str, object]:
    """The same, with its data in *size* bytes after the JSON."""
    return tensor(**{"data": ..., "parameters": {"binary_data_size": size}, **fields})


def native(array: Array) -> Array:
    """The same values in the byte order of this machine, in one piece."""
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def same(left: Array, right: Array) -> bool:
    """Whether both hold the same bits, or the same strings, whatever their byte order and layout."""
    left, right = native(left), native(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype == object:
        return bool(left.tolist() == right.tolist())
    return left.tobytes() == right.tobytes()


def equal(left: Array, right: Array) -> bool:
    """Whether both hold the same values, whatever the bits of NaN."""
    if object in (left.dtype, right.dtype):
        return same(left, right)
    with np.errstate(invalid="ignore"):  # some NaN of bfloat16
        one, other = left.astype(np.float64), right.astype(np.float64)
    return (
        left.dtype == native(right).dtype
        and np.array_equal(one, other, equal_nan=True)
        and np.array_equal(np.signbit(one[one == 0]), np.signbit(other[other == 0]))
    )


def finite(array: Array) -> bool:
    """Whether JSON can hold all of it."""
    return array.dtype.kind not in "fV" or bool(np.isfinite(array.astype(np.float64)).all())


def all_same(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Whether both hold the same tensors."""
    return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """An array of any dtype that the protocol has, anyhow in memory."""
    name = draw(st.sampled_from([*NUMBERS, "bfloat16", "string"]))
    shape = draw(SHAPES)
    if name == "string":
        array: Array = draw(hnp.arrays(object, shape, elements=TEXTS, fill=st.nothing()))
    elif name == "bfloat16":
        bits = draw(hnp.arrays(np.uint16, shape))
        array = bits.view(ml_dtypes.bfloat16)
    else:
        array = draw(hnp.arrays(np.dtype(name).newbyteorder(draw(st.sampled_from("<>"))), shape))
    layouts: list[Callable[[Array], Array]] = [_plain, np.asfortranarray, _spread, _backwards, _frozen]
    return draw(st.sampled_from(layouts))(array)


def _plain(array: Array) -> Array:
    return array


def _spread(array: Array) -> Array:
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


def _backwards(array: Array) -> Array:
    return array[::-1] if array.ndim else array


def _frozen(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def tensors(max_size: int = 4) -> st.SearchStrategy[dict[str, Array]]:
    """Some arrays, by name."""
    return st.dictionaries(NAMES, arrays(), max_size=max_size)
