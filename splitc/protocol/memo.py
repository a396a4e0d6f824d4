"""Cache the results of parsing short texts: device and cloud repeat the same JSON with other tensor data."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")

# This limits each cache to half a megabyte of text, whatever the other side sends.
_TEXTS, _TEXT_BYTES = 128, 4096


def remembered(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Cache the results of *read*, a pure function whose results are not modified; errors are not cached."""
    known = lru_cache(_TEXTS)(read)

    @wraps(read)
    def recall(text: bytes) -> T:
        return known(text) if len(text) <= _TEXT_BYTES else read(text)

    return recall
