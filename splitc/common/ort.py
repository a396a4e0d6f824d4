"""The only module that uses ONNX Runtime: open a session, run it, save an optimised model."""

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from splitc.common.files import is_unicode
from splitc.common.ort_messages import readable
from splitc.common.values import Array, Feeds, Value, dtype_name

# Official packages of ONNX Runtime send model names to their vendor; a compiler should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from splitc.common.custom_ops import CustomOps
from splitc.common.errors import ModelError

# Types that numpy lacks and ONNX Runtime takes as raw bits: onnx.TensorProto.DataType numbers.
_BITS = {
    "bfloat16": (np.uint16, 16),
    # Only given, never returned: no interface of ONNX Runtime returns these as what they are.
    "float8_e4m3fn": (np.uint8, 17),
    "float8_e4m3fnuz": (np.uint8, 18),
    "float8_e5m2": (np.uint8, 19),
    "float8_e5m2fnuz": (np.uint8, 20),
}
_ADVICE = {
    True: "random inputs do not work for this model: give real ones with --samples FILE.npz",
    False: "correct the samples",
    None: "give inputs that it accepts with --samples FILE.npz",
}
_OUTPUT_TYPES: "WeakKeyDictionary[onnxruntime.InferenceSession, dict[str, str]]" = WeakKeyDictionary()
RUNTIME_VERSION: str = onnxruntime.__version__

Level: TypeAlias = onnxruntime.GraphOptimizationLevel
"""How far ONNX Runtime may rewrite a model."""
UNCHANGED = Level.ORT_DISABLE_ALL
PORTABLE = Level.ORT_ENABLE_EXTENDED
FASTEST = Level.ORT_ENABLE_ALL
# On x86 this replaces every int8 tensor with a uint8 tensor of another name, also at level PORTABLE.
_MACHINE_SPECIFIC = ["QDQS8ToU8Transformer"]


_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
_UNKNOWN = "is not a registered function/op"
_CUSTOM_OPS: dict[str, CustomOps] = {}


def use_custom_ops(libraries: Iterable[CustomOps]) -> None:
    """Load *libraries* into this process, and offer their operators to every session that is opened from now on.

    Raises:
        ModelError: ONNX Runtime cannot load one.
    """
    for library in libraries:
        _register(onnxruntime.SessionOptions(), library)
        _CUSTOM_OPS[library.name] = library


def used_custom_ops() -> tuple[CustomOps, ...]:
    """The libraries that this process uses."""
    return tuple(_CUSTOM_OPS.values())


def _register(options: onnxruntime.SessionOptions, library: CustomOps) -> None:
    try:
        options.register_custom_ops_library(str(library.path))
    except Exception as error:
        raise ModelError(
            f"{library.path}: ONNX Runtime {onnxruntime.__version__} cannot load it as a library of custom operators: "
            f"{readable(str(error))}"
        ) from error


def usable_cores() -> int:
    """Return the number of cores that this process may use; containers and `taskset` may limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session(
    model: Path | bytes,
    *,
    threads: int = 0,
    external_folder: Path | None = None,
    optimized_path: Path | None = None,
    level: Level = FASTEST,
) -> onnxruntime.InferenceSession:
    """Open *model* (a path, or its bytes with the folder of its external data) on the CPU.

    Args:
        optimized_path: where to write the optimised graph; a session that writes it is not for running.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    # Spinning threads take CPU time from other processes on a shared host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if external_folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(external_folder.absolute())
        )
    if optimized_path is not None:
        _write_graph(options, optimized_path)
    for library in _CUSTOM_OPS.values():
        _register(options, library)
    source = model if isinstance(model, bytes) else str(model)
    if isinstance(model, Path) and not is_unicode(model):
        raise ModelError(
            f"{model}: the path is not valid UTF-8, and ONNX Runtime opens no such files; rename it"
        )
    try:
        return onnxruntime.InferenceSession(
            source,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_MACHINE_SPECIFIC if level == PORTABLE else None,
        )
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else Path(model).name
        hint = "; name the library that has it with --custom-ops" if _UNKNOWN in str(error) else ""
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {readable(str(error))}{hint}"
        ) from error


def save_optimized(
    model: bytes, path: Path, *, weights: str, least_bytes: int, external_folder: Path, threads: int
) -> None:
    """Write *model* to *path* as ONNX Runtime would run it on this machine.

    Weights of *least_bytes* or more go into the file *weights* beside it, packed as the kernels want them: sessions
    that open it unoptimised map them into memory, and so share them.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
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
    for library in _CUSTOM_OPS.values():
        _register(options, library)
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot save {path.name}: {readable(str(error))}"
        ) from error


def _write_graph(options: onnxruntime.SessionOptions, path: Path) -> None:
    """Set *options* to write the optimised graph to *path* without its weights, which are large and not used."""
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


class InputsRefused(ModelError):  # noqa: N818 - the name says what happened
    """ONNX Runtime fails on the inputs that it was given, or was stopped."""


class Interrupt:
    """Stops runs from another thread; ONNX Runtime checks for it between two nodes."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def set(self) -> None:
        """Stop the current run, and every later run that uses this object."""
        self.options.terminate = True


def run(
    opened: onnxruntime.InferenceSession,
    feeds: Feeds,
    outputs: Iterable[str] | None = None,
    interrupt: Interrupt | None = None,
) -> dict[str, Value]:
    """Run once and return the outputs (all of them unless named) by name.

    Raises:
        InputsRefused: ONNX Runtime fails on these inputs, or *interrupt* was set.
        ModelError: it lacks memory.
    """
    options = interrupt.options if interrupt is not None else None
    types = _output_types(opened)
    names = list(types) if outputs is None else list(outputs)
    dtypes = {dtype_name(value.dtype) for value in feeds.values() if isinstance(value, np.ndarray)}
    dtypes.update(types[name] for name in names)
    try:
        # An OrtValue holds types that numpy lacks, but costs tens of microseconds, and none can be made of strings.
        if dtypes.isdisjoint(_BITS):
            return dict(zip(names, opened.run(names, dict(feeds), options), strict=True))
        ready = {key: _to_ort(array) for key, array in feeds.items()}
        made = opened.run_with_ort_values(names, ready, options)
        return {name: _from_ort(value) for name, value in zip(names, made, strict=True)}
    except Exception as error:
        said = readable(str(error))
        if any(words in said for words in _NO_MEMORY):
            raise ModelError(f"ONNX Runtime has not enough memory to run the model ({said})") from error
        raise InputsRefused(f"ONNX Runtime cannot run the model on these inputs ({said})") from error


def output_kinds(opened: onnxruntime.InferenceSession) -> dict[str, str]:
    """Return the types of the outputs by name, such as "tensor(float)"."""
    return {output.name: output.type for output in opened.get_outputs()}


def _output_types(opened: onnxruntime.InferenceSession) -> dict[str, str]:
    """Return the types of the outputs by name, without "tensor(...)"; cached, because ONNX Runtime is slow here."""
    types = _OUTPUT_TYPES.get(opened)
    if types is None:
        types = {
            output.name: output.type.removeprefix("tensor(").removesuffix(")")
            for output in opened.get_outputs()
        }
        _OUTPUT_TYPES[opened] = types
    return types


@contextlib.contextmanager
def blaming_inputs(*, are_random: bool | None = None) -> Iterator[None]:
    """Add to an `InputsRefused` in the block how to give other inputs; *are_random* says whether splitc chose them."""
    try:
        yield
    except InputsRefused as error:
        raise ModelError(f"{error}; {_ADVICE[are_random]}") from error


def _to_ort(array: Array) -> onnxruntime.OrtValue:
    if array.dtype.name in _BITS:
        bits, number = _BITS[array.dtype.name]
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(bits), number)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: onnxruntime.OrtValue) -> Array:
    name = value.data_type().removeprefix("tensor(").removesuffix(")")
    if name not in _BITS:
        return np.asarray(value.numpy())
    # ONNX Runtime has no numpy view of these types; the bits are copied out of its buffer.
    bits = (ctypes.c_uint8 * value.tensor_size_in_bytes()).from_address(value.data_ptr())
    return np.frombuffer(bytes(bits), dtype=np.dtype(name)).reshape(value.shape())
