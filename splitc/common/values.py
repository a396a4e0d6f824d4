"""Inputs and outputs of models: random inputs, sizes in bytes, and the difference between two results."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
_FLOATS_OF_8_BITS = {
    f"tensor(float8{form})": f"float8_{form}" for form in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
}
# The kinds of values that .npz files cannot hold.
_BESIDES_TENSORS = ("seq(", "map(", "optional(")


@dataclass(frozen=True, slots=True)
class Input:
    """A model input: dtype is None for anything but a tensor of numbers or booleans.

    Attributes:
        kind: its type as ONNX Runtime writes it, such as "seq(tensor(float))"; "" if it is not known.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str, ...]
    kind: str = field(default="", compare=False)

    @property
    def numpy_type(self) -> str | None:
        """The numpy type of its elements, also if such values cannot cross; None if they are not numbers."""
        return self.dtype if self.dtype is not None else _FLOATS_OF_8_BITS.get(self.kind)


@lru_cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of *dtype*; cached, because numpy computes it anew each time."""
    return dtype.name


def random_feeds(inputs: Iterable[Input], dims: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Random values for *inputs*: standard normal floats, zeros and ones for integers and booleans.

    Integers stay below 2, so that they are valid as indices into any table of two rows or more.

    Raises:
        ModelError: an input is not a tensor of numbers, or too large.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for item in inputs:
        if item.numpy_type is None:
            raise ModelError(
                f"input '{item.name}' is not a numeric tensor; give values with --samples "
                f"{'FOLDER' if item.kind.startswith(_BESIDES_TENSORS) else 'FILE.npz'}"
            )
        missing = next((dim for dim in item.shape if isinstance(dim, str) and dim not in dims), None)
        if missing is not None:
            raise ModelError(
                f"input '{item.name}' has a symbolic dimension '{missing}'; fix it with --dim {missing}=SIZE"
            )
        shape = concrete_shape(item.shape, dims)
        try:
            feeds[item.name] = _random(rng, shape, np.dtype(item.numpy_type))
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
    """The difference between a value and the wanted one.

    Attributes:
        max_abs: the largest one; of integers and booleans, in steps. Infinite where it is not a number.
        max_rel: the same relative to the largest magnitude that is wanted; infinite for what must be equal and is not:
            types, shapes, the places of NaN and infinity, and all elements that are not floats.
        values, differing: how many elements were compared, and how many of them are not equal.
        misplaced: how many are NaN or infinite where the wanted ones are not, or the other way round.
        largest: the largest finite magnitude that is wanted, in the value whose `max_rel` it is.
        unlike: what is wrong with the type or the shape, as the end of a sentence; empty if nothing is.
        is_resized: whether only the lengths of the axes are wrong.
    """

    max_abs: float
    max_rel: float
    values: int = field(default=0, compare=False)
    differing: int = field(default=0, compare=False)
    misplaced: int = field(default=0, compare=False)
    largest: float = field(default=0.0, compare=False)
    unlike: str = field(default="", compare=False)
    is_resized: bool = field(default=False, compare=False)

    def __or__(self, other: "Difference") -> "Difference":
        return Difference(
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            self.values + other.values,
            self.differing + other.differing,
            self.misplaced + other.misplaced,
            max((self.max_rel, self.largest), (other.max_rel, other.largest))[1],
            self.unlike or other.unlike,
            (self.is_resized or not self.unlike) and (other.is_resized or not other.unlike)
            if self.unlike or other.unlike
            else False,
        )

    @property
    def is_countable(self) -> bool:
        """Whether it is a difference of single elements that are not floats."""
        return math.isinf(self.max_rel) and not self.unlike and not self.misplaced


SAME = Difference(0.0, 0.0)


def difference(got: Value, want: Value) -> Difference:
    """Largest absolute difference, and the same relative to the largest magnitude in *want*.

    NaN and infinities that are at the same places are equal.
    """
    if isinstance(want, list | tuple):
        if not isinstance(got, list | tuple):
            return _unlike("is not a sequence")
        if len(got) != len(want):
            return _unlike(f"is a sequence of {len(got)}, not of {len(want)}", is_resized=True)
        worst = SAME
        for one, other in zip(got, want, strict=True):
            worst = worst | difference(one, other)
        return worst
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            return _unlike("is not a map with the same keys")
        return difference([got[key] for key in want], list(want.values()))
    return _array_difference(np.asarray(got), np.asarray(want))


def _unlike(words: str, *, is_resized: bool = False) -> Difference:
    return Difference(math.inf, math.inf, unlike=words, is_resized=is_resized)


def _array_difference(got: Array, want: Array) -> Difference:
    if got.dtype != want.dtype:
        return _unlike(f"is of the type {got.dtype.name}, not {want.dtype.name}")
    if got.shape != want.shape:
        words = f"has the shape {got.shape}, not {want.shape}"
        return _unlike(words, is_resized=got.ndim == want.ndim)
    if want.dtype.kind in "iubOUS":
        return _exact_difference(got, want)
    left, right = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(right)
    largest = float(np.abs(right[finite]).max(initial=0.0))
    equal = (left == right) | (np.isnan(left) & np.isnan(right))
    differing = int(equal.size - np.count_nonzero(equal))
    misplaced = int(np.count_nonzero(~equal & ~(finite & np.isfinite(left))))
    if misplaced:
        return Difference(math.inf, math.inf, want.size, differing, misplaced, largest)
    error = float(np.abs(left[finite] - right[finite]).max(initial=0.0))
    # An output that is zero everywhere has no scale, so the absolute error is used.
    relative = error / largest if largest > 0 else error
    return Difference(error, relative, want.size, differing, largest=largest)


def _exact_difference(got: Array, want: Array) -> Difference:
    """The difference of integers, booleans or strings."""
    differing = int(np.count_nonzero(got != want))
    if want.dtype.kind in "OUS":
        found = Difference(math.inf, math.inf, want.size, differing)
        return found if differing else Difference(0.0, 0.0, want.size)
    right = want.astype(np.float64)
    largest = float(np.abs(right).max(initial=0.0))
    if not differing:
        return Difference(0.0, 0.0, want.size, largest=largest)
    # Large integers that differ may be the same float.
    steps = max(float(np.abs(got.astype(np.float64) - right).max()), 1.0)
    return Difference(steps, math.inf, want.size, differing, largest=largest)
