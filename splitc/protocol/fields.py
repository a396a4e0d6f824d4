"""Read untrusted JSON: each field has the expected type, or a ProtocolError says what was found."""

import json
from collections.abc import Container
from typing import Any, NoReturn

from splitc.common.errors import ProtocolError

Object = dict[str, Any]

# Python takes up to 25 times as much memory for JSON as its text has bytes.
_MAX_JSON_BYTES = 2**25
_MAX_NAME = 1024
# Features of Triton that splitc does not support; ignoring them would give wrong results without an error.
_UNSUPPORTED = ("shared_memory_region", "classification")
_SHOWN_CHARACTERS = 57


def check_size(json_bytes: int) -> None:
    """Check that *json_bytes* bytes of JSON are not too many to parse.

    Raises:
        ProtocolError: there are more than 32 MiB.
    """
    if json_bytes > _MAX_JSON_BYTES:
        raise ProtocolError(
            f"{json_bytes} bytes of JSON are more than {_MAX_JSON_BYTES}; send tensors as binary data",
            status=413,
        )


def parse(text: bytes) -> Object:
    """Return the JSON object that *text* contains.

    Raises:
        ProtocolError: *text* is not a JSON object.
    """
    try:
        content = json.loads(str(text, "utf-8"), parse_constant=_refuse_constant)
    except (
        ValueError,
        RecursionError,
    ) as error:  # wrong UTF-8 or JSON, or too large numbers or too deep nesting
        raise ProtocolError("the message does not begin with JSON that can be read") from error
    return _object("the message", content)


def _refuse_constant(word: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads although JSON has no words for them."""
    raise ValueError(word)


def entries(kind: str, message: Object) -> list[Object] | None:
    """Return the list of inputs or outputs in *message*, or None if it has none.

    Raises:
        ProtocolError: it is not a list of objects.
    """
    listed = message.get(f"{kind}s")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise ProtocolError(f"{kind}s must be a list, found {shown(listed)}")
    return [_object(f"one of the {kind}s", entry) for entry in listed]


def name(kind: str, entry: Object, taken: Container[str]) -> str:
    """Return the name of a tensor, which must not be in *taken*.

    Raises:
        ProtocolError: the name is in *taken* or not valid.
    """
    found = text(f"the name of an {kind}", entry.get("name"))
    if found in taken:
        raise ProtocolError(f"{kind} {shown(found)} is given twice")
    return found


def parameters(where: str, holder: Object) -> Object:
    """Return the parameters of the request, or of one tensor.

    Raises:
        ProtocolError: they are not an object, or contain a parameter that is not supported.
    """
    found = holder.get("parameters")
    found = {} if found is None else _object(f"parameters of {where}", found)
    unsupported = next((key for key in _UNSUPPORTED if key in found), None)
    if unsupported is not None:
        raise ProtocolError(f"{where}: {unsupported} is not supported")
    return found


def flag(where: str, holder: Object, key: str, *, default: bool) -> bool:
    """Return the boolean under *key*, or *default* if there is none.

    Raises:
        ProtocolError: the value is not a boolean.
    """
    value = holder.get(key, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}: {key} must be true or false, found {shown(value)}")
    return value


def count(where: str, holder: Object, key: str, most: int) -> int | None:
    """Return the integer from 0 to *most* under *key*, or None if there is none.

    Raises:
        ProtocolError: the value is not such an integer.
    """
    value = holder.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= most:  # True is an int to isinstance
        raise ProtocolError(f"{where}: {key} must be an integer from 0 to {most}, found {shown(value)}")
    return value


def text(what: str, value: object) -> str:
    """Return *value* if it is text that is not empty and not too long for a name.

    Raises:
        ProtocolError: it is not such a text.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        raise ProtocolError(f"{what} must be text of 1 to {_MAX_NAME} characters, found {shown(value)}")
    utf8(what, value)
    return value


def utf8(where: str, value: object) -> bytes:
    """Return text as UTF-8 bytes.

    Raises:
        ProtocolError: it is not text, or holds an unpaired surrogate, which UTF-8 cannot encode.
    """
    if not isinstance(value, str):
        raise ProtocolError(f"{where}: expected text, found {shown(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{where}: {shown(value)} is not valid Unicode") from error


def shown(value: object) -> str:
    """Return *value* as short text for an error message; of lists and objects, only the type is shown."""
    if isinstance(value, str):
        value = value[:_SHOWN_CHARACTERS]
    elif not isinstance(value, int | float | None):
        return f"a {type(value).__name__}"
    return repr(value)[: _SHOWN_CHARACTERS + 2]


def _object(what: str, value: object) -> Object:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} must be a JSON object, found {shown(value)}")
    return value
