"""Messages of the Open Inference Protocol v2 (KServe) over HTTP, with its binary tensor data extension.

A body is JSON, followed by the raw bytes of tensors in the order in which the JSON names them. Both sides use
this module, and neither trusts the other: for any bytes, the result is a message or a ProtocolError.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from splitc.common.errors import ProtocolError
from splitc.common.values import Array
from splitc.protocol import fields, tensors
from splitc.protocol.fields import shown
from splitc.protocol.memo import remembered
from splitc.protocol.tensors import Buffer, datatype

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
# The protocol uses microseconds; a float represents integers up to this one (285 years) exactly.
_MAX_TIMEOUT_US = 2**53
_US_PER_S = 1_000_000
_MAX_SIZE_BYTES = 2**53
_KEPT = 64  # the number of cached texts
_WORD_BYTES = 8
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One HTTP body: JSON, then raw tensors, which are views of the arrays where this is possible."""

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
    """A client's request.

    Attributes:
        inputs: arrays that are views of the body if alignment and byte order allow it.
        outputs: names of the wanted outputs; None for all.
        binary: names of the outputs wanted as raw bytes, None for all; the others are wanted as JSON.
        timeout_s: how long the client waits; None if the request does not contain it.
    """

    id: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] | None
    binary: frozenset[str] | None
    timeout_s: float | None


def encode_request(
    inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float | None = None
) -> Message:
    """Write a request for *outputs* (all, if empty) of *inputs*; all tensors are raw bytes.

    Raises:
        ProtocolError: the protocol lacks the dtype of an input.
    """
    timeout_us = None if timeout_s is None else int(min(max(timeout_s * _US_PER_S, 1), _MAX_TIMEOUT_US))
    described, buffers = _describe("input", inputs, None)
    return Message(_request_text(described, tuple(outputs), timeout_us), buffers)


def encode_response(model: str, outputs: Mapping[str, Array], request: InferRequest) -> Message:
    """Answer *request* with *outputs*, each as raw bytes or JSON, as requested.

    Raises:
        ProtocolError: the protocol lacks the dtype of an output, or JSON its numbers.
    """
    described, buffers = _describe("output", outputs, request.binary)
    holds_data = len(buffers) < len(outputs)  # such text is not worth caching
    text = (_response_text.__wrapped__ if holds_data else _response_text)(described, model, request.id)
    return Message(text, buffers)


def decode_request(body: Buffer, json_bytes: int | None) -> InferRequest:
    """Read a client's request; `json_size` returns *json_bytes*.

    Raises:
        ProtocolError: it is not a request.
    """
    text, raw = _divided(body, json_bytes)
    asked = _asked(text)
    return InferRequest(asked.id, _tensors(asked.inputs, raw), asked.outputs, asked.binary, asked.timeout_s)


def decode_response(body: Buffer, json_bytes: int | None) -> dict[str, Array]:
    """Return the outputs in a server's response, by name; `json_size` returns *json_bytes*.

    Raises:
        ProtocolError: it is not a response.
    """
    text, raw = _divided(body, json_bytes)
    return _tensors(_answered(text), raw)


def json_size(header: str | None) -> int | None:
    """Return the bytes of JSON at the start of a body; None if the whole body is JSON.

    Args:
        header: the value of Inference-Header-Content-Length.

    Raises:
        ProtocolError: *header* is not a number of bytes.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < len(str(2**63))):
        raise ProtocolError(f"{JSON_SIZE} is {shown(header)}, not a number of bytes")
    return int(header)


# --- JSON texts, cached because a device and a server repeat the same JSON with other tensor data ---


class _Described(NamedTuple):
    """A tensor to send: *size_bytes* bytes after the JSON, or the list *data* inside it."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    size_bytes: int
    data: list[Any] | None

    def entry(self) -> fields.Object:
        """The JSON."""
        held = (
            {"parameters": {"binary_data_size": self.size_bytes}}
            if self.data is None
            else {"data": self.data}
        )
        return {"name": self.name, "shape": self.shape, "datatype": self.datatype} | held


class _Announced(NamedTuple):
    """A tensor that received JSON announces: *size_bytes* bytes after the JSON, or the list *data*."""

    name: str
    tensor: tensors.Declared
    size_bytes: int | None
    data: object


class _Asked(NamedTuple):
    """What the JSON of a request says."""

    id: str | None
    inputs: tuple[_Announced, ...]
    outputs: tuple[str, ...] | None
    binary: frozenset[str] | None
    timeout_s: float | None


@lru_cache(_KEPT)
def _request_text(inputs: tuple[_Described, ...], outputs: tuple[str, ...], timeout_us: int | None) -> bytes:
    parameters: fields.Object = {} if outputs else {"binary_data_output": True}
    if timeout_us is not None:
        parameters["timeout"] = timeout_us
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    request = {"inputs": [tensor.entry() for tensor in inputs]} | ({"outputs": wanted} if wanted else {})
    return _text(request | ({"parameters": parameters} if parameters else {}), padded=bool(inputs))


@lru_cache(_KEPT)
def _response_text(outputs: tuple[_Described, ...], model: str, identifier: str | None) -> bytes:
    head = {"model_name": model, "model_version": "1"} | ({} if identifier is None else {"id": identifier})
    is_padded = any(tensor.data is None for tensor in outputs)
    return _text(head | {"outputs": [tensor.entry() for tensor in outputs]}, padded=is_padded)


@remembered
def _asked(text: bytes) -> _Asked:
    message = fields.parse(text)
    parameters = fields.parameters("the request", message)
    outputs, binary = _wanted(message, parameters)
    return _Asked(_id(message), _announced("input", message), outputs, binary, _timeout_s(parameters))


@remembered
def _answered(text: bytes) -> tuple[_Announced, ...]:
    return _announced("output", fields.parse(text))


# --- writing ---


def _describe(
    kind: str, arrays: Mapping[str, Array], binary: frozenset[str] | None
) -> tuple[tuple[_Described, ...], tuple[Buffer, ...]]:
    """Return the JSON entries of *arrays*, and the raw bytes of those named in *binary* (None: all)."""
    found: list[_Described] = []
    buffers: list[Buffer] = []
    # Wide elements come first: if the first tensor is aligned, then all are, and none needs a copy.
    for name, array in sorted(arrays.items(), key=lambda item: -_width(item[1])):
        where, size_bytes, data = f"{kind} {shown(name)}", 0, None
        word = tensors.datatype_of(array)
        if binary is None or name in binary:
            buffers.append(tensors.to_bytes(where, array))
            size_bytes = memoryview(buffers[-1]).nbytes
        else:
            data = tensors.to_list(where, array)
        found.append(_Described(name, array.shape, word, size_bytes, data))
    return tuple(found), tuple(buffers)


def _width(array: Array) -> int:
    return array.dtype.itemsize if array.dtype.kind not in "OU" else 0


def _text(content: fields.Object, *, padded: bool) -> bytes:
    text = _JSON.encode(content).encode()
    # Spaces after JSON have no meaning; they align the bytes that follow.
    return text + b" " * (-len(text) % _WORD_BYTES if padded else 0)


# --- reading ---


def _divided(body: Buffer, json_bytes: int | None) -> tuple[bytes, memoryview]:
    """Split *body* into its JSON and the raw bytes after it."""
    raw = memoryview(body)
    size = raw.nbytes if json_bytes is None else json_bytes
    if not 0 <= size <= raw.nbytes:
        raise ProtocolError(f"{JSON_SIZE} does not fit a body of {raw.nbytes} bytes")
    fields.check_size(size)
    return bytes(raw[:size]), raw[size:]


def _announced(kind: str, message: fields.Object) -> tuple[_Announced, ...]:
    """Return the tensors in the list of *kind* in *message*."""
    entries = fields.entries(kind, message)
    if entries is None:
        raise ProtocolError(f"the message has no {kind}s")
    found: dict[str, _Announced] = {}
    for entry in entries:
        name = fields.name(kind, entry, found)
        where = f"{kind} {shown(name)}"
        tensor = tensors.declared(where, entry.get("datatype"), entry.get("shape"))
        size = fields.count(where, fields.parameters(where, entry), "binary_data_size", _MAX_SIZE_BYTES)
        data = entry.get("data")
        if (size is None) == (data is None):
            raise ProtocolError(f"{where}: one of binary_data_size and data must be given, and only one")
        found[name] = _Announced(name, tensor, size, data)
    return tuple(found.values())


def _tensors(announced: Iterable[_Announced], raw: memoryview) -> dict[str, Array]:
    """Return the tensors that were *announced*; together they must use all bytes of *raw*."""
    found: dict[str, Array] = {}
    for name, tensor, size, data in announced:
        if size is None:
            found[name] = tensors.from_list(tensor, data)
            continue
        if size > raw.nbytes:
            raise ProtocolError(
                f"{tensor.where}: binary_data_size must be an integer from 0 to {raw.nbytes}, found {size}"
            )
        found[name], raw = tensors.from_bytes(tensor, raw[:size]), raw[size:]
    if raw.nbytes:
        raise ProtocolError(f"{raw.nbytes} bytes after the last tensor belong to none")
    return found


def _wanted(
    message: fields.Object, parameters: fields.Object
) -> tuple[tuple[str, ...] | None, frozenset[str] | None]:
    """Return the names of the wanted outputs, and of those wanted as raw bytes."""
    default = fields.flag("the request", parameters, "binary_data_output", default=False)
    wanted: dict[str, bool] = {}
    for entry in fields.entries("output", message) or []:
        name = fields.name("output", entry, wanted)
        where = f"output {shown(name)}"
        wanted[name] = fields.flag(where, fields.parameters(where, entry), "binary_data", default=default)
    if not wanted:  # an empty list also means all outputs, as in Triton
        return None, None if default else frozenset()
    return tuple(wanted), frozenset(name for name, binary in wanted.items() if binary)


def _timeout_s(parameters: fields.Object) -> float | None:
    timeout_us = fields.count("the request", parameters, "timeout", _MAX_TIMEOUT_US)
    return timeout_us / _US_PER_S if timeout_us else None  # as in Triton, 0 means no timeout


def _id(message: fields.Object) -> str | None:
    value = message.get("id")
    return fields.text("id", value) if value not in (None, "") else None
