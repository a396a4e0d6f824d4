"""What short texts say, remembered: two machines tell each other the same over and over, about other numbers."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")

# Together at most half a megabyte of text for each function, whatever the other side sends.
_TEXTS, _TEXT_BYTES = 128, 4096


def remembered(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """*read*, which must be pure and return what nobody changes, without doing the same twice; errors are not kept."""
    known = lru_cache(_TEXTS)(read)

    @wraps(read)
    def recall(text: bytes) -> T:
        return known(text) if len(text) <= _TEXT_BYTES else read(text)

    return recall
