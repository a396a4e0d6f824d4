"""Walk the values of a JSON document, for tests of schemas."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every table, list and value inside *value*."""
    yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*at, key))


def lookup(value: Any, at: Place) -> Any:
    for key in at:
        value = value[key]
    return value


def replaced(value: Any, at: Place, new: Any) -> Any:
    """A copy of *value* with *new* in one place."""
    copy = deepcopy(value)
    lookup(copy, at[:-1])[at[-1]] = new
    return copy


def label(at: Place) -> str:
    return ".".join(map(str, at)) or "root"
