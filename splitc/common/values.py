"""Inputs and outputs of models: random inputs, sizes in bytes, and the difference between two results."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from splitc.common.errors import ModelError

# A device has only numpy and ONNX Runtime, so these types are not available there.
with contextlib.suppress(ImportError):
    import ml_dtypes  # noqa: F401 - teaches numpy the names bfloat16 and float8_*

Array = npt.NDArray[Any]
"""A numpy array of any type."""
Value = Any
"""A numpy array, or what ONNX Runtime returns for sequences and maps."""
Feeds = Mapping[str, Array]
FREE_DIM = "?"


@dataclass(frozen=True, slots=True)
class Input:
    """A model input: dtype is None for anything but a tensor of numbers or booleans."""

    name: str
    dtype: str | None
    shape: tuple[int | str, ...]


@lru_cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of *dtype*; cached, because numpy computes it anew each time."""
    return dtype.name


def random_feeds(inputs: Iterable[Input], dims: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Random values for *inputs*: standard normal floats, zeros and ones for integers and booleans.

    Integers stay below 2, so that they are valid as indices into any table of two rows or more.

    Raises:
        ModelError: an input is not a tensor of numbers.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for item in inputs:
        if item.dtype is None:
            raise ModelError(
                f"input '{item.name}' is not a numeric tensor; give values with --samples FILE.npz"
            )
        missing = next((dim for dim in item.shape if isinstance(dim, str) and dim not in dims), None)
        if missing is not None:
            raise ModelError(
                f"input '{item.name}' has a symbolic dimension '{missing}'; fix it with --dim {missing}=SIZE"
            )
        shape = concrete_shape(item.shape, dims)
        try:
            feeds[item.name] = _random(rng, shape, np.dtype(item.dtype))
        except (MemoryError, ValueError, OverflowError) as error:
            raise ModelError(
                f"input '{item.name}' of shape {list(shape)} is not possible or too large for this machine; "
                "choose smaller sizes with --dim, or export the model with other shapes"
            ) from error
    return feeds


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def concrete_shape(shape: Iterable[int | str], dims: Mapping[str, int]) -> tuple[int, ...]:
    """*shape* with its symbolic dimensions replaced by numbers.

    Raises:
        KeyError: *dims* lacks one.
    """
    return tuple(dims[dim] if isinstance(dim, str) else dim for dim in shape)


def fits_shape(shape: tuple[int, ...], wanted: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    """Return whether *shape* is as *wanted*.

    Args:
        sizes: the symbolic sizes of one request, by name. The first tensor that has a symbol adds its size.
    """
    return shape == wanted or (
        len(shape) == len(wanted)
        and all(
            dim == FREE_DIM or size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
            for size, dim in zip(shape, wanted, strict=True)
        )
    )


def shown_sizes(shape: Iterable[int | str], sizes: Mapping[str, int]) -> str:
    """Say which symbolic dimensions of *shape* have a size already: " with batch = 2"; empty if none has."""
    known = [f"{dim} = {sizes[dim]}" for dim in shape if isinstance(dim, str) and dim in sizes]
    return f" with {', '.join(dict.fromkeys(known))}" if known else ""


def value_bytes(value: Value) -> int:
    """Bytes of a value on the wire: raw elements; strings and map keys with a 4-byte length each."""
    if isinstance(value, dict):
        return sum(value_bytes(key) + value_bytes(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(value_bytes(item) for item in value)
    if isinstance(value, str | bytes):
        return 4 + len(value.encode() if isinstance(value, str) else value)
    if isinstance(value, float | int):
        return 8
    array = np.asarray(value)
    return (
        sum(value_bytes(str(item)) for item in array.ravel()) if array.dtype.kind in "OUS" else array.nbytes
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a value and the wanted one; infinite if shapes, NaNs or exact values differ."""

    max_abs: float
    max_rel: float

    def __or__(self, other: "Difference") -> "Difference":
        return Difference(max(self.max_abs, other.max_abs), max(self.max_rel, other.max_rel))


SAME = Difference(0.0, 0.0)
_WRONG = Difference(math.inf, math.inf)


def difference(got: Value, want: Value) -> Difference:
    """Largest absolute difference, and the same relative to the largest magnitude in *want*.

    Integers, booleans and strings must be equal; NaN and infinities must be at the same places.
    """
    if isinstance(want, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(want):
            return _WRONG
        worst = SAME
        for one, other in zip(got, want, strict=True):
            worst = worst | difference(one, other)
        return worst
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            return _WRONG
        return difference([got[key] for key in want], list(want.values()))
    return _array_difference(np.asarray(got), np.asarray(want))


def _array_difference(got: Array, want: Array) -> Difference:
    if got.shape != want.shape or got.dtype != want.dtype:
        return _WRONG
    if want.dtype.kind in "iubOUS":
        return SAME if np.array_equal(got, want) else _WRONG
    left, right = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(right)
    if (
        not np.array_equal(left[~finite], right[~finite], equal_nan=True)
        or not np.isfinite(left[finite]).all()
    ):
        return _WRONG
    largest = float(np.abs(right[finite]).max(initial=0.0))
    error = float(np.abs(left[finite] - right[finite]).max(initial=0.0))
    # An output that is zero everywhere has no scale, so the absolute error is used.
    return Difference(error, error / largest if largest > 0 else error)
