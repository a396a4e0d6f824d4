"""Read inputs from a folder: as ONNX's own test data has them (input_0.pb, ...), or as arrays of numpy (image.npy).

Only the first form holds sequences, maps and optionals.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper

from splitc.common.arrays import read_arrays
from splitc.common.errors import ModelError
from splitc.common.values import Input, Value

_READERS: Mapping[str, tuple[type[Message], Callable[..., Value]]] = {
    "seq": (onnx.SequenceProto, numpy_helper.to_list),
    "map": (onnx.MapProto, numpy_helper.to_dict),
    "optional": (onnx.OptionalProto, numpy_helper.to_optional),
}


def read_test_data(folder: Path, inputs: tuple[Input, ...]) -> dict[str, Value]:
    """Return the values of *inputs* in *folder*: the number of an input in input_0.pb is its place among them.

    Raises:
        ModelError: a file is missing, or not of the type of its input.
    """
    return {item.name: _value(folder, number, item) for number, item in enumerate(inputs)}


def _value(folder: Path, number: int, item: Input) -> Value:
    for path in (folder / f"input_{number}.npy", folder / f"{item.name}.npy"):
        if path.is_file() and path.resolve().parent == folder.resolve():  # a name may hold a slash
            return _array(path)
    return _read(folder / f"input_{number}.pb", item)


def _array(path: Path) -> Value:
    try:
        found = read_arrays(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: does not hold an array ({error}); write it with numpy.save") from error
    if isinstance(found, dict):
        raise ModelError(f"{path}: holds several arrays, not one; write it with numpy.save")
    return found


def _read(path: Path, item: Input) -> Value:
    message, to_value = _READERS.get(item.kind.partition("(")[0], (onnx.TensorProto, numpy_helper.to_array))
    proto = message()
    try:
        proto.ParseFromString(path.read_bytes())
        return to_value(proto)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); a folder of samples has a file input_0.pb, input_1.pb, ... "
            "for each input, in the order of the model, or an array called as the input, such as image.npy"
        ) from error
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        kind = item.kind or "tensor"
        raise ModelError(f"{path}: does not hold the input '{item.name}', which is {kind}") from error
