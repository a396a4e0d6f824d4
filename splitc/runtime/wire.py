"""Messages of the Open Inference Protocol v2 (KServe) over HTTP, with its binary tensor data extension.

A body is JSON, then the raw bytes of tensors in the order in which the JSON names them. Both sides use this
module, and neither believes what it is sent: whatever the bytes, the result is a message or a ProtocolError.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splitc.errors import ProtocolError
from splitc.runtime import fields, tensors
from splitc.runtime.fields import shown
from splitc.runtime.tensors import Array, Buffer, datatype

__all__ = [
    "JSON_SIZE",
    "Array",
    "Buffer",
    "InferRequest",
    "Message",
    "datatype",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "json_size",
]

JSON_SIZE = "Inference-Header-Content-Length"
# The protocol counts in microseconds; this many, 285 years, a float still holds exactly.
_MAX_TIMEOUT_US = 2**53
_US_PER_S = 1_000_000
_WORD_BYTES = 8
_JSON = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Message:
    """One HTTP body: JSON, then raw tensors, which are views of the arrays where those allow it."""

    json: bytes
    buffers: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole body."""
        return len(self.json) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def headers(self) -> dict[str, str]:
        """The HTTP headers that describe the body."""
        if not self.buffers:
            return {"Content-Type": "application/json", "Content-Length": str(self.nbytes)}
        return {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self.nbytes),
            JSON_SIZE: str(len(self.json)),
        }


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client wants to be computed.

    Attributes:
        inputs: arrays that are views of the body where alignment and byte order allow it.
        outputs: None for all.
        binary: the outputs wanted as raw bytes, the others as JSON; None for all.
        timeout_s: how long the client waits; None if it did not say.
    """

    id: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] | None
    binary: frozenset[str] | None
    timeout_s: float | None


def encode_request(
    inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float | None = None
) -> Message:
    """Ask for *outputs* (all, if none is named) of *inputs*; everything as raw bytes.

    Raises:
        ProtocolError: an input's dtype is none of the protocol's.
    """
    parameters: fields.Object = {} if outputs else {"binary_data_output": True}
    if timeout_s is not None:
        parameters["timeout"] = int(min(max(timeout_s * _US_PER_S, 1), _MAX_TIMEOUT_US))
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    entries, buffers = _describe("input", inputs, None)
    request = {"inputs": entries} | ({"outputs": wanted} if wanted else {})
    return _message(request | ({"parameters": parameters} if parameters else {}), buffers)


def encode_response(model: str, outputs: Mapping[str, Array], request: InferRequest) -> Message:
    """Answer *request* with *outputs*, each in the form that it was wanted in.

    Raises:
        ProtocolError: an output's dtype is none of the protocol's.
    """
    entries, buffers = _describe("output", outputs, request.binary)
    head = {"model_name": model, "model_version": "1"} | ({} if request.id is None else {"id": request.id})
    return _message(head | {"outputs": entries}, buffers)


def decode_request(body: Buffer, json_bytes: int | None) -> InferRequest:
    """Read what a client sent; *json_bytes* as `json_size` returns it.

    Raises:
        ProtocolError: it is not a request.
    """
    message, raw = _parse(body, json_bytes)
    parameters = fields.parameters("the request", message)
    outputs, binary = _wanted(message, parameters)
    inputs = _tensors("input", message, raw)
    return InferRequest(_id(message), inputs, outputs, binary, _timeout_s(parameters))


def decode_response(body: Buffer, json_bytes: int | None) -> dict[str, Array]:
    """Read the outputs that a server sent, by name; *json_bytes* as `json_size` returns it.

    Raises:
        ProtocolError: it is not a response.
    """
    return _tensors("output", *_parse(body, json_bytes))


def json_size(header: str | None) -> int | None:
    """Bytes of JSON at the start of a body, from the value of Inference-Header-Content-Length; None: all.

    Raises:
        ProtocolError: it is not a number of bytes.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < len(str(2**63))):
        raise ProtocolError(f"{JSON_SIZE} is {shown(header)}, not a number of bytes")
    return int(header)


def _describe(
    kind: str, arrays: Mapping[str, Array], binary: frozenset[str] | None
) -> tuple[list[fields.Object], list[Buffer]]:
    entries: list[fields.Object] = []
    buffers: list[Buffer] = []
    # Wide elements come first: then each tensor is aligned if the first is, and can be used where it lies.
    for name, array in sorted(arrays.items(), key=lambda item: -_width(item[1])):
        where = f"{kind} {shown(name)}"
        entry: fields.Object = {
            "name": name,
            "shape": array.shape,
            "datatype": tensors.datatype_of(array),
        }
        if binary is None or name in binary:
            buffer = tensors.to_bytes(where, array)
            entry["parameters"] = {"binary_data_size": memoryview(buffer).nbytes}
            buffers.append(buffer)
        else:
            entry["data"] = tensors.to_list(where, array)
        entries.append(entry)
    return entries, buffers


def _width(array: Array) -> int:
    return array.dtype.itemsize if array.dtype.kind not in "OU" else 0


def _message(content: fields.Object, buffers: Sequence[Buffer]) -> Message:
    text = _JSON.encode(content).encode()
    # Spaces after JSON mean nothing; they align what follows.
    padding = b" " * (-len(text) % _WORD_BYTES if buffers else 0)
    return Message(text + padding, tuple(buffers))


def _parse(body: Buffer, json_bytes: int | None) -> tuple[fields.Object, memoryview]:
    """Return the JSON of *body* and the raw bytes after it."""
    raw = memoryview(body)
    size = raw.nbytes if json_bytes is None else json_bytes
    if not 0 <= size <= raw.nbytes:
        raise ProtocolError(f"{JSON_SIZE} does not fit a body of {raw.nbytes} bytes")
    return fields.parse(raw[:size]), raw[size:]


def _tensors(kind: str, message: fields.Object, raw: memoryview) -> dict[str, Array]:
    """The tensors in the list of *kind* in *message*, which together must use up *raw*."""
    entries = fields.entries(kind, message)
    if entries is None:
        raise ProtocolError(f"the message has no {kind}s")
    found: dict[str, Array] = {}
    for entry in entries:
        name = fields.name(kind, entry, found)
        found[name], raw = _tensor(f"{kind} {shown(name)}", entry, raw)
    if raw.nbytes:
        raise ProtocolError(f"{raw.nbytes} bytes after the last tensor belong to none")
    return found


def _tensor(where: str, entry: fields.Object, raw: memoryview) -> tuple[Array, memoryview]:
    """The tensor that *entry* describes, and what of *raw* is not its own."""
    tensor = tensors.declared(where, entry.get("datatype"), entry.get("shape"))
    size = fields.count(where, fields.parameters(where, entry), "binary_data_size", raw.nbytes)
    data = entry.get("data")
    if (size is None) == (data is None):
        raise ProtocolError(f"{where}: one of binary_data_size and data must be given, and only one")
    if size is None:
        return tensors.from_list(tensor, data), raw
    return tensors.from_bytes(tensor, raw[:size]), raw[size:]


def _wanted(
    message: fields.Object, parameters: fields.Object
) -> tuple[tuple[str, ...] | None, frozenset[str] | None]:
    """The outputs that are wanted, and those of them that are wanted as raw bytes."""
    default = fields.flag("the request", parameters, "binary_data_output", default=False)
    wanted: dict[str, bool] = {}
    for entry in fields.entries("output", message) or []:
        name = fields.name("output", entry, wanted)
        where = f"output {shown(name)}"
        wanted[name] = fields.flag(where, fields.parameters(where, entry), "binary_data", default=default)
    if not wanted:  # an empty list asks for everything, too, as Triton has it
        return None, None if default else frozenset()
    return tuple(wanted), frozenset(name for name, binary in wanted.items() if binary)


def _timeout_s(parameters: fields.Object) -> float | None:
    timeout_us = fields.count("the request", parameters, "timeout", _MAX_TIMEOUT_US)
    return timeout_us / _US_PER_S if timeout_us else None  # to Triton, 0 means that there is none


def _id(message: fields.Object) -> str | None:
    value = message.get("id")
    return fields.text("id", value) if value not in (None, "") else None
