"""The protobuf text format, as much as config.pbtxt needs, with Triton's own field names and types.

Descriptors are of those fields of triton-inference-server/common, protobuf/model_config.proto, that splitc
writes, under the numbers that they have there.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_TYPES = "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16".split()
_FIELD = descriptor_pb2.FieldDescriptorProto
_OPTIONAL, _REPEATED = _FIELD.LABEL_OPTIONAL, _FIELD.LABEL_REPEATED
_MESSAGES: dict[str, list[tuple[str, int, int, int, str]]] = {
    "ModelTensorReshape": [("shape", 1, _REPEATED, _FIELD.TYPE_INT64, "")],
    "ModelInput": [
        ("name", 1, _OPTIONAL, _FIELD.TYPE_STRING, ""),
        ("data_type", 2, _OPTIONAL, _FIELD.TYPE_ENUM, "DataType"),
        ("dims", 4, _REPEATED, _FIELD.TYPE_INT64, ""),
        ("reshape", 5, _OPTIONAL, _FIELD.TYPE_MESSAGE, "ModelTensorReshape"),
    ],
    "ModelOutput": [
        ("name", 1, _OPTIONAL, _FIELD.TYPE_STRING, ""),
        ("data_type", 2, _OPTIONAL, _FIELD.TYPE_ENUM, "DataType"),
        ("dims", 3, _REPEATED, _FIELD.TYPE_INT64, ""),
        ("reshape", 5, _OPTIONAL, _FIELD.TYPE_MESSAGE, "ModelTensorReshape"),
    ],
    "ModelDynamicBatching": [],
    "ModelConfig": [
        ("name", 1, _OPTIONAL, _FIELD.TYPE_STRING, ""),
        ("max_batch_size", 4, _OPTIONAL, _FIELD.TYPE_INT32, ""),
        ("input", 5, _REPEATED, _FIELD.TYPE_MESSAGE, "ModelInput"),
        ("output", 6, _REPEATED, _FIELD.TYPE_MESSAGE, "ModelOutput"),
        ("dynamic_batching", 11, _OPTIONAL, _FIELD.TYPE_MESSAGE, "ModelDynamicBatching"),
        ("backend", 17, _OPTIONAL, _FIELD.TYPE_STRING, ""),
    ],
}


def _config_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(_TYPES):
        kinds.value.add(name=f"TYPE_{name}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            message.field.add(
                name=field,
                number=number,
                label=label,
                type=kind,
                type_name=f".inference.{of}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


_CONFIG = _config_class()


def parse(text: str) -> Any:
    """Read a config.pbtxt; anything that is not in Triton's schema is an error."""
    return text_format.Parse(text, _CONFIG())


def read(path: Path) -> Any:
    return parse(path.read_text(encoding="utf-8"))


def type_name(number: int) -> str:
    return f"TYPE_{_TYPES[number]}"
