"""Read inputs in the layout of ONNX's own test data: a folder with input_0.pb, input_1.pb, ..."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper

from splitc.common.errors import ModelError
from splitc.common.values import Input, Value

_READERS: Mapping[str, tuple[type[Message], Callable[..., Value]]] = {
    "seq": (onnx.SequenceProto, numpy_helper.to_list),
    "map": (onnx.MapProto, numpy_helper.to_dict),
    "optional": (onnx.OptionalProto, numpy_helper.to_optional),
}


def read_test_data(folder: Path, inputs: tuple[Input, ...]) -> dict[str, Value]:
    """Return the values in *folder*, in the order of *inputs*, by the names of these.

    Raises:
        ModelError: a file is missing, or not of the type of its input.
    """
    return {item.name: _read(folder / f"input_{number}.pb", item) for number, item in enumerate(inputs)}


def _read(path: Path, item: Input) -> Value:
    message, to_value = _READERS.get(item.kind.partition("(")[0], (onnx.TensorProto, numpy_helper.to_array))
    proto = message()
    try:
        proto.ParseFromString(path.read_bytes())
        return to_value(proto)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); a folder of samples has a file input_0.pb, input_1.pb, ... "
            "for each input, in the order of the model"
        ) from error
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        kind = item.kind or "tensor"
        raise ModelError(f"{path}: does not hold the input '{item.name}', which is {kind}") from error
