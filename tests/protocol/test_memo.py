"""What was read once is not read again, unless it is long or was refused."""

import pytest

from splitc.protocol.memo import remembered

SHORT, LONG = b"a", b"a" * 5000


def test_short_texts_are_read_once() -> None:
    seen: list[bytes] = []

    @remembered
    def length(text: bytes) -> int:
        seen.append(text)
        return len(text)

    assert [length(SHORT), length(SHORT), length(LONG), length(LONG)] == [1, 1, 5000, 5000]
    assert seen == [SHORT, LONG, LONG]


def test_as_many_texts_as_anybody_sends_are_forgotten_again() -> None:
    seen: list[bytes] = []
    read = remembered(seen.append)
    for number in range(1000):
        read(b"%d" % number)
    read(b"999")
    read(b"0")
    assert seen[-1] == b"0"
    assert len(seen) == 1001


def test_a_refusal_is_found_again() -> None:
    @remembered
    def refuse(text: bytes) -> int:
        raise ValueError(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            refuse(SHORT)
