"""Checks of a model's inputs and of a server's outputs against the manifest."""

from collections.abc import Iterable, Mapping

import numpy as np

from splitc.bundle.manifest import BoundaryEntry, TensorEntry
from splitc.common.errors import InputError, ProtocolError
from splitc.common.values import FREE_DIM, Value, dtype_name, fits_shape, shown_sizes

# Strings, sequences and maps are not checked here: ONNX Runtime reports what is wrong with them.
_UNCHECKED = "object"


def checked_inputs(entries: Iterable[TensorEntry], inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Check *inputs*, and return them in the byte order of this machine.

    Raises:
        InputError: an input is missing or unknown, or has a wrong type or shape.
    """
    wanted = {entry.name: entry for entry in entries}
    unknown = next((name for name in inputs if name not in wanted), None)
    if unknown is not None:
        raise InputError(f"the model has no input '{unknown}'; it takes {_listed(wanted)}")
    missing = next((name for name in wanted if name not in inputs), None)
    if missing is not None:
        raise InputError(f"the input '{missing}' is missing; the model takes {_listed(wanted)}")
    dims: dict[str, tuple[int, str]] = {}
    return {name: _checked_input(entry, inputs[name], dims) for name, entry in wanted.items()}


def symbol_sizes(
    entries: Iterable[TensorEntry | BoundaryEntry], values: Mapping[str, Value]
) -> dict[str, int]:
    """Return the sizes of the symbolic dimensions in one request, by name; the first of *entries* that has one decides."""
    sizes: dict[str, int] = {}
    for entry in entries:
        value = values.get(entry.name)
        if isinstance(value, np.ndarray) and value.ndim == len(entry.shape):
            for dim, size in zip(entry.shape, value.shape, strict=True):
                if isinstance(dim, str) and dim != FREE_DIM:
                    sizes.setdefault(dim, size)
    return sizes


def check_outputs(
    entries: Iterable[TensorEntry], outputs: Mapping[str, Value], sizes: Mapping[str, int]
) -> None:
    """Check the outputs that a server sent.

    Args:
        sizes: symbolic sizes of the request. Those that it does not determine must be the same in all outputs.

    Raises:
        ProtocolError: an output is missing or unknown, or has a wrong type or shape.
    """
    wanted = {entry.name: entry for entry in entries}
    if outputs.keys() != wanted.keys():
        raise ProtocolError(f"the server answered {_listed(outputs)} instead of {_listed(wanted)}")
    known = dict(sizes)
    for name, entry in wanted.items():
        value = outputs[name]
        wrong = _mismatch(entry, value)
        if wrong is None and entry.dtype != _UNCHECKED and not fits_shape(value.shape, entry.shape, known):
            wrong = _wrong_shape(entry, value) + shown_sizes(entry.shape, known)
        if wrong is not None:
            raise ProtocolError(f"the server's output '{name}' {wrong}")


def _checked_input(entry: TensorEntry, value: Value, dims: dict[str, tuple[int, str]]) -> Value:
    """Check *value*: its symbolic dimensions must agree with *dims*, those of the inputs before it."""
    wrong = _mismatch(entry, value)
    if wrong is not None:
        raise InputError(f"the input '{entry.name}' {wrong}")
    if entry.dtype == _UNCHECKED:
        return value
    for dim, size in zip(entry.shape, value.shape, strict=True):
        if isinstance(dim, str) and dim != FREE_DIM:
            known, holder = dims.setdefault(dim, (size, entry.name))
            if size != known:
                raise InputError(
                    f"the inputs '{holder}' and '{entry.name}' share the dimension '{dim}', "
                    f"but have sizes {known} and {size} there; give both the same"
                )
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def _mismatch(entry: TensorEntry, value: Value) -> str | None:
    """Say what is wrong with *value*, or return None."""
    if entry.dtype == _UNCHECKED:
        return None
    if not isinstance(value, np.ndarray):
        return f"must be a numpy array of {entry.dtype}, found {type(value).__name__}"
    if dtype_name(value.dtype) != entry.dtype:
        return f"must be of {entry.dtype}, found {value.dtype.name}"
    fits = value.ndim == len(entry.shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(entry.shape, value.shape, strict=True)
    )
    return None if fits else _wrong_shape(entry, value)


def _wrong_shape(entry: TensorEntry, value: Value) -> str:
    return f"must have the shape {_shown(entry.shape)}, found {_shown(value.shape)}"


def _shown(shape: Iterable[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
