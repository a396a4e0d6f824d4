"""Inputs to run a model with: the user's samples, or random values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from splitc.common.arrays import read_arrays
from splitc.common.errors import ModelError
from splitc.common.values import Array, Feeds, Input, concrete_shape, random_feeds
from splitc.model.test_data import read_test_data

SEEDS = 3


def make_feeds(
    inputs: tuple[Input, ...], dims: Mapping[str, int], samples: tuple[Path, ...]
) -> tuple[Feeds, ...]:
    """Read the given samples, or make random inputs from fixed seeds.

    Args:
        dims: sizes of symbolic dimensions.
        samples: .npz files with one array per input, or folders in the layout of ONNX's test data.

    Raises:
        ModelError: a sample cannot be read, or its arrays do not match the inputs.
    """
    if not samples:
        return tuple(random_feeds(inputs, dims, seed) for seed in range(SEEDS))
    return tuple(_read_sample(path, inputs, dims) for path in samples)


def sample_shapes(
    inputs: tuple[Input, ...], names: Sequence[str], samples: tuple[Path, ...]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the inputs *names* have in the first sample; empty if there is none.

    Raises:
        ModelError: the sample cannot be read, or lacks an input.
    """
    if not names or not samples:
        return {}
    free = tuple(replace(item, dtype=None, kind="") for item in inputs)
    first = _read_sample(samples[0], free, {})
    return {name: first[name].shape for name in names}


def _read_sample(path: Path, inputs: tuple[Input, ...], dims: Mapping[str, int]) -> Feeds:
    if path.is_dir():
        values = read_test_data(path, inputs)
        return {item.name: _fitting(path, item, values[item.name], dims) for item in inputs}
    try:
        arrays = read_arrays(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); write it with numpy.savez") from error
    except ValueError as error:
        raise ModelError(
            f"{path}: not an .npz file of arrays ({error}); write one with numpy.savez"
        ) from error
    if not isinstance(arrays, dict):
        raise ModelError(
            f"{path}: holds one array without a name, not an .npz file; write one with numpy.savez"
        )
    wanted = {item.name for item in inputs}
    if arrays.keys() != wanted:
        wrong = min(wanted ^ arrays.keys())
        problem = "lacks" if wrong in wanted else "has an unknown"
        raise ModelError(
            f"{path}: {problem} input '{wrong}'; the model's inputs are {', '.join(sorted(wanted))}"
        )
    return {item.name: _fitting(path, item, arrays[item.name], dims) for item in inputs}


def _fitting(path: Path, item: Input, array: Array, dims: Mapping[str, int]) -> Array:
    """Return *array* as a value of the input *item*.

    Raises:
        ModelError: its type is not that of the input, or its shape differs from the shape at *dims*.
    """
    dtype = item.numpy_type
    if dtype is None:
        return array
    # .npz files do not store the names of types that numpy lacks; of some it writes none, so bits are taken, too.
    is_bits = array.dtype.kind == "V" or (item.dtype is None and array.dtype == np.uint8)
    if is_bits and array.dtype.itemsize == np.dtype(dtype).itemsize:
        array = array.view(dtype)
    if array.dtype.name != dtype:
        raise ModelError(
            f"{path}: input '{item.name}' has type {array.dtype.name}, but the model needs {dtype}; "
            "convert the array"
        )
    shape = concrete_shape(item.shape, dims)
    free = tuple(
        found if isinstance(dim, str) else dim for dim, found in zip(shape, array.shape, strict=False)
    )
    if len(shape) != array.ndim or free != array.shape:
        raise ModelError(
            f"{path}: input '{item.name}' has shape {list(array.shape)}, but the model is sized for "
            f"{list(shape)}; change the sample, or the sizes with --dim"
        )
    return array
