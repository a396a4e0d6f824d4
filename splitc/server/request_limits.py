"""The limits of a request: its size, its inputs and its outputs.

What a manifest states exactly is held to exactly; where dimensions are symbolic, requests may be several times
as large as the one that the manifest describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from splitc.bundle.manifest import TensorEntry
from splitc.common.errors import InputError, ModelError
from splitc.common.records import did_you_mean
from splitc.common.values import Array, fits_shape, shown_sizes
from splitc.protocol.tensors import datatype, datatype_of
from splitc.server.tails.part import File, ServedPart

MAX_HEAD_BYTES = 64 << 10
_JSON_BYTES = 64 << 10  # names, shapes and parameters
_NUMBER_BYTES = 32  # the longest float64 in JSON with what separates it from the next
_MAX_TEXT_BYTES = 32 << 20  # more is not parsed
_SYMBOLIC_FACTOR = 64
_SYMBOLIC_BYTES = 1 << 20  # at least: a small tensor may grow by more
_TEXT = "string"
_UNKNOWN_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The most bytes of a request's body: its JSON, and the raw tensors after it."""

    text_bytes: int
    raw_bytes: int
    total_bytes: int

    def body_bytes(self, json_bytes: int | None) -> int:
        """The most bytes of a body that begins with *json_bytes* of JSON; None: it is JSON altogether."""
        if json_bytes is None:
            return min(self.text_bytes, self.total_bytes)
        return min(min(json_bytes, self.text_bytes) + self.raw_bytes, self.total_bytes)


def size_limits(part: ServedPart, max_request_bytes: int | None) -> SizeLimits:
    """What requests to *part* may have; never more than *max_request_bytes* together."""
    raw_bytes = sum(map(_raw_bytes, part.inputs))
    text_bytes = min(_JSON_BYTES + _NUMBER_BYTES * raw_bytes, _MAX_TEXT_BYTES)
    total_bytes = text_bytes + raw_bytes
    return SizeLimits(
        text_bytes,
        raw_bytes,
        total_bytes if max_request_bytes is None else min(total_bytes, max_request_bytes),
    )


def _raw_bytes(entry: TensorEntry) -> int:
    if entry.bytes is None or datatype(entry.dtype) == "BYTES":
        return _UNKNOWN_BYTES
    if any(isinstance(dim, str) for dim in entry.shape):
        return max(_SYMBOLIC_FACTOR * entry.bytes, _SYMBOLIC_BYTES)
    return entry.bytes


def check_inputs(part: ServedPart, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Check that *inputs* are valid for *part*, and return the sizes of its symbolic dimensions in this request.

    Raises:
        InputError: one is missing, unknown, or of another datatype or shape; names what is wanted.
    """
    known = {entry.name for entry in part.inputs}
    unknown = next((name for name in inputs if name not in known), None)
    if unknown is not None:
        raise InputError(f"model '{part.name}' has no input '{unknown[:100]}'; give {_wanted(part)}")
    sizes: dict[str, int] = {}
    for entry in part.inputs:
        if entry.name not in inputs:
            raise InputError(f"input '{entry.name}' of model '{part.name}' is missing; give {_wanted(part)}")
        array = inputs[entry.name]
        if not _has_datatype(array.dtype, entry.dtype) or not fits_shape(array.shape, entry.shape, sizes):
            raise InputError(
                f"input '{entry.name}' of model '{part.name}' is {datatype_of(array)} {list(array.shape)}, "
                f"but {_described(entry)} is wanted{shown_sizes(entry.shape, sizes)}"
            )
    return sizes


def check_made(part: ServedPart, outputs: Mapping[str, Array], sizes: dict[str, int]) -> None:
    """Check that the *outputs* that *part* made have the shapes that it declares.

    Args:
        sizes: symbolic sizes of the request, see `check_inputs`. An output adds those that no input has.

    Raises:
        ModelError: an output has another shape.
    """
    for entry in part.outputs:
        array = outputs.get(entry.name)
        if entry.dtype == _TEXT:  # its shape is only what the model declares, which may be wrong
            continue
        if array is not None and not fits_shape(array.shape, entry.shape, sizes):
            raise ModelError(
                f"model '{part.name}' made '{entry.name}' of shape {list(array.shape)}, but it declares "
                f"{_described(entry)}{shown_sizes(entry.shape, sizes)}"
            )


@lru_cache  # numpy takes long to name a dtype
def _has_datatype(dtype: np.dtype[Any], name: str) -> bool:
    return datatype_of(np.empty(0, dtype)) == datatype(name)


def _wanted(part: ServedPart) -> str:
    return ", ".join(f"'{entry.name}' {_described(entry)}" for entry in part.inputs)


def _described(entry: TensorEntry) -> str:
    return f"{datatype(entry.dtype)} [{', '.join(map(str, entry.shape))}]"


def wanted_outputs(part: ServedPart, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The outputs to compute: all of them where *names* is None.

    Raises:
        InputError: *part* has no such output.
    """
    known = tuple(entry.name for entry in part.outputs)
    if names is None:
        return known
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        hint = did_you_mean(unknown[:100], known)
        raise InputError(f"model '{part.name}' has no output '{unknown[:100]}'{hint}")
    return names


def rows(file: File, inputs: Mapping[str, Array]) -> int:
    """How many rows of a batch *inputs* take; all that *file* has where they must run alone."""
    if file.max_batch == 1:
        return 1
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else file.max_batch
