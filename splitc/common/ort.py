"""The only door to ONNX Runtime: open a session, make inputs, run, compare.

Values are numpy arrays, or what ONNX Runtime returns for sequences and maps.
"""

import contextlib
import ctypes
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

with contextlib.suppress(
    ImportError
):  # a device has numpy and ONNX Runtime only, and does without such types
    import ml_dtypes  # noqa: F401 - teaches numpy the names bfloat16 and float8_*

# Official packages of ONNX Runtime report model names to their maker; a compiler should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from splitc.common.errors import ModelError

Value = Any
Feeds = Mapping[str, npt.NDArray[Any]]

# Types that numpy lacks and ONNX Runtime takes as raw bits: onnx.TensorProto.DataType numbers.
_BITS = {"bfloat16": (np.uint16, 16)}
_OUTPUT_TYPES: "WeakKeyDictionary[ort.InferenceSession, dict[str, str]]" = WeakKeyDictionary()
FREE_DIM = "?"
RUNTIME_VERSION: str = ort.__version__

# How far ONNX Runtime may rewrite a model.
UNCHANGED = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
PORTABLE = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
FASTEST = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
# On x86 this replaces every int8 tensor by a uint8 one of another name, also at level PORTABLE.
_MACHINE_SPECIFIC = ["QDQS8ToU8Transformer"]


@dataclass(frozen=True, slots=True)
class Input:
    """A model input: dtype is None for anything but a tensor of numbers or booleans."""

    name: str
    dtype: str | None
    shape: tuple[int | str, ...]


def usable_cores() -> int:
    """Cores that this process may use; containers and `taskset` allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session(
    model: Path | bytes,
    *,
    threads: int = 0,
    external_folder: Path | None = None,
    optimized_path: Path | None = None,
    level: ort.GraphOptimizationLevel = FASTEST,
) -> ort.InferenceSession:
    """Open *model* (a path, or its bytes with the folder of its external data) on the CPU.

    Args:
        optimized_path: where to write the optimised graph; a session that writes it is not for running.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    # Spinning threads steal the second core from whatever else a shared host runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if external_folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(external_folder.absolute())
        )
    if optimized_path is not None:
        _write_graph(options, optimized_path)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(
            source,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_MACHINE_SPECIFIC if level == PORTABLE else None,
        )
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else Path(model).name
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot load {name}: {_reason(error)}") from error


def save_optimized(
    model: bytes, path: Path, *, weights: str, least_bytes: int, external_folder: Path, threads: int
) -> None:
    """Write *model* to *path* as ONNX Runtime would run it on this machine.

    Weights of *least_bytes* or more go into the file *weights* beside it, packed as the kernels want them: sessions
    that open it unoptimised map them into memory, and so share them.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.optimized_model_filepath = str(path)
    for key, value in (
        ("session.model_external_initializers_file_folder_path", str(external_folder.absolute())),
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(least_bytes)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot save {path.name}: {_reason(error)}"
        ) from error


def _write_graph(options: ort.SessionOptions, path: Path) -> None:
    """Have the optimised graph written to *path*, but not its weights: nobody reads them, and they are large."""
    options.optimized_model_filepath = str(path)
    weights = path.with_name(path.name + ".weights")
    with contextlib.suppress(OSError):  # where links are not allowed, the weights are written
        weights.symlink_to(os.devnull)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", weights.name),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "64"),
        ("session.disable_prepacking", "1"),  # nothing will be run, so weights need no second form in memory
    ):
        options.add_session_config_entry(key, value)


class Interrupt:
    """Ends runs from another thread; ONNX Runtime looks at it between two nodes."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def set(self) -> None:
        """End the run that goes on, and every later one with this."""
        self.options.terminate = True


def run(
    opened: ort.InferenceSession,
    feeds: Feeds,
    outputs: Iterable[str] | None = None,
    interrupt: Interrupt | None = None,
) -> dict[str, Value]:
    """Run once and return the outputs (all of them unless named) by name.

    Raises:
        ModelError: ONNX Runtime fails on these inputs, or *interrupt* was set.
    """
    options = interrupt.options if interrupt is not None else None
    types = _output_types(opened)
    names = list(types) if outputs is None else list(outputs)
    dtypes = {dtype_name(array.dtype) for array in feeds.values()}
    dtypes.update(types[name] for name in names)
    try:
        # An OrtValue holds types that numpy lacks, but costs tens of microseconds, and none can be made of strings.
        if dtypes.isdisjoint(_BITS):
            return dict(zip(names, opened.run(names, dict(feeds), options), strict=True))
        ready = {key: _to_ort(array) for key, array in feeds.items()}
        made = opened.run_with_ort_values(names, ready, options)
        return {name: _from_ort(value) for name, value in zip(names, made, strict=True)}
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run the model on these inputs ({_reason(error)})") from error


def _output_types(opened: ort.InferenceSession) -> dict[str, str]:
    """The types of its outputs by name, without "tensor(...)" around them; ONNX Runtime takes long to tell."""
    types = _OUTPUT_TYPES.get(opened)
    if types is None:
        types = {
            output.name: output.type.removeprefix("tensor(").removesuffix(")")
            for output in opened.get_outputs()
        }
        _OUTPUT_TYPES[opened] = types
    return types


@lru_cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Its name; numpy spells it out anew each time."""
    return dtype.name


@contextlib.contextmanager
def blaming_inputs() -> Iterator[None]:
    """Tell a user of the command line, in any ModelError of the block, what to give instead of random inputs."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}; give inputs that it accepts with --samples FILE.npz") from error


def random_feeds(inputs: Iterable[Input], dims: Mapping[str, int], seed: int) -> dict[str, npt.NDArray[Any]]:
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
        dtype = np.dtype(item.dtype)
        if dtype.kind in "iub":
            feeds[item.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            feeds[item.name] = rng.standard_normal(shape, np.float32).astype(dtype)
    return feeds


def concrete_shape(shape: Iterable[int | str], dims: Mapping[str, int]) -> tuple[int, ...]:
    """*shape* with its symbolic dimensions replaced by numbers.

    Raises:
        KeyError: *dims* lacks one.
    """
    return tuple(dims[dim] if isinstance(dim, str) else dim for dim in shape)


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
    """How far a value is from the wanted one; infinite where shape, NaNs or exact values differ."""

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


def _array_difference(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> Difference:
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
    # An output that is zero everywhere has no scale of its own; then the error counts as it is.
    return Difference(error, error / largest if largest > 0 else error)


def _to_ort(array: npt.NDArray[Any]) -> ort.OrtValue:
    if array.dtype.name in _BITS:
        bits, number = _BITS[array.dtype.name]
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(bits), number)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: ort.OrtValue) -> npt.NDArray[Any]:
    name = value.data_type().removeprefix("tensor(").removesuffix(")")
    if name not in _BITS:
        return np.asarray(value.numpy())
    # ONNX Runtime has no numpy view of these types; the bits are copied out of its buffer.
    bits = (ctypes.c_uint8 * value.tensor_size_in_bytes()).from_address(value.data_ptr())
    return np.frombuffer(bytes(bits), dtype=np.dtype(name)).reshape(value.shape())


def _reason(error: Exception) -> str:
    """ONNX Runtime's message on one line: the innermost cause, without file and line prefixes."""
    text = " ".join(str(error).split()).split("Status Message: ")[-1]
    text = re.sub(r"^\S+:\d+ .*?\) (?=\S)", "", text) if text.startswith("/") else text
    for marker in (" : FAIL : ", " : INVALID_GRAPH : ", " : INVALID_ARGUMENT : ", " : NOT_IMPLEMENTED : "):
        text = text.split(marker, 1)[-1]
    return text[:300]
