"""Each kind of answer is read however it is cut into pieces; what is cut off, ambiguous or too large is refused."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from splitc.common.errors import ProtocolError
from splitc.runtime.http.connection import Connection, Reply
from splitc.runtime.http.reply import Reader
from tests.runtime.servers import LONGEST_S

SOON_S = 0.2
MAX_BYTES = 100_000
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def answered(pieces: Iterable[bytes], *, stays: bool = False) -> Iterator[Connection]:
    """A connection to a server that answers a request with *pieces*, then closes or *stays*."""
    here, there = socket.socketpair()

    def serve() -> None:
        with suppress(OSError):
            there.recv(1000)
            for piece in pieces:
                there.sendall(piece)
            if not stays:
                there.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    connection = Connection(here)
    yield connection
    connection.shut()
    thread.join(LONGEST_S)
    connection.close()
    there.close()


def ask(connection: Connection, method: str = "GET", *, within_s: float = LONGEST_S) -> Reply:
    return connection.exchange(
        method, [b"a request"], deadline_s=time.monotonic() + within_s, max_reply_bytes=MAX_BYTES
    )


def in_bytes(answer: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in answer]


def in_thirds(answer: bytes) -> list[bytes]:
    third = len(answer) // 3 + 1
    return [answer[start : start + third] for start in range(0, len(answer), third)]


def reader(pieces: Iterable[bytes]) -> Reader:
    """A reader to which each of *pieces* comes by itself."""
    left = [bytearray(piece) for piece in pieces if piece]

    def receive_into(buffer: memoryview) -> int:
        if not left:
            return 0
        count = min(len(buffer), len(left[0]))
        buffer[:count] = left[0][:count]
        del left[0][:count]
        if not left[0]:
            left.pop(0)
        return count

    return Reader(receive_into)


SIZED = OK + b"Content-Length: 5\r\nServer-Timing: recv;dur=1\r\n\r\nabcde"
IN_CHUNKS = CHUNKED + b"3;x=y\r\nabc\r\n2 \r\nde\r\n00;\r\nX: y\r\n\r\n"
UNSIZED = OK + b"X: y\r\n\r\nabcde"

# The answer, the method that was asked with, the body, and whether another can follow.
READ: dict[str, tuple[bytes, str, bytes, bool]] = {
    "sized": (SIZED, "POST", b"abcde", True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", "POST", b"", True),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", "GET", b"", True),
    "large": (OK + b"Content-Length: 90000\r\n\r\n" + bytes(90_000), "GET", bytes(90_000), True),
    "in chunks": (IN_CHUNKS, "POST", b"abcde", True),
    "no chunks": (CHUNKED + b"0\r\n\r\n", "POST", b"", True),
    "Chunked": (OK + b"transfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "POST", b"a", True),
    "until the end": (UNSIZED, "POST", b"abcde", False),
    "nothing until the end": (OK + b"\r\n", "POST", b"", False),
    "closing": (OK + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\na", "POST", b"a", False),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "POST", b"a", False),
    "old but kept": (
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na",
        "GET",
        b"a",
        True,
    ),
    "continue": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED,
        "POST",
        b"abcde",
        True,
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "POST", b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500000\r\n\r\n", "GET", b"", True),
    "head": (OK + b"Content-Length: 500000\r\n\r\n", "HEAD", b"", True),
    "head in chunks": (CHUNKED, "HEAD", b"", True),
    "error": (b"HTTP/1.1 503 \xfcberlastet\r\nContent-Length: 2\r\n\r\n{}", "POST", b"{}", True),
}


@pytest.mark.parametrize(
    "cut", [lambda answer: [answer], in_thirds, in_bytes], ids=["whole", "thirds", "bytes"]
)
@pytest.mark.parametrize("name", READ)
def test_reads(name: str, cut: Callable[[bytes], list[bytes]]) -> None:
    answer, method, body, reusable = READ[name]
    with answered(cut(answer)) as connection:
        reply = ask(connection, method)
        assert bytes(reply.body) == body
        assert connection.reusable is reusable
    assert (reply.status == 200) is (b"200" in answer)
    alone = reader(cut(answer))
    head = alone.head(method)
    assert (head.headers, head.persists) == (reply.headers, reusable)
    assert alone.body(head, MAX_BYTES) == body
    assert not alone.is_ahead


def test_headers_of_one_name_are_joined_and_lose_the_space_around_them() -> None:
    head = reader([OK + b"A:\t1 \r\nb-C:\xa02\xa0\r\na: 3\r\nEmpty:\r\n\r\n"]).head("GET")
    assert head.headers == {"a": "1, 3", "b-c": "\xa02\xa0", "empty": ""}


def test_answers_that_came_together_are_read_one_by_one() -> None:
    together = reader([SIZED + IN_CHUNKS + SIZED])
    for left in (True, True, False):
        assert together.body(together.head("POST"), MAX_BYTES) == b"abcde"
        assert together.is_ahead is left


def test_a_connection_with_more_than_the_answer_is_not_used_again() -> None:
    for pieces in ([SIZED + b"H"], [SIZED, b"H"]):
        with answered(pieces, stays=True) as connection:
            assert bytes(ask(connection).body) == b"abcde"
            until = time.monotonic() + LONGEST_S
            while connection.reusable and connection.is_usable() and time.monotonic() < until:
                time.sleep(0.001)
            assert time.monotonic() < until


@pytest.mark.parametrize("answer", [SIZED, IN_CHUNKS, UNSIZED[:-5], READ["continue"][0]], ids=str)
def test_every_beginning_of_an_answer_is_cut_off(answer: bytes) -> None:
    for end in range(len(answer)):
        with answered([answer[:end]]) as connection:
            with pytest.raises(ConnectionResetError):
                ask(connection)
            assert not connection.reusable


@pytest.mark.parametrize(
    "answer", [b"", b"HTT", SIZED[:-1], IN_CHUNKS[:-1], UNSIZED, CHUNKED + b"5"], ids=str
)
def test_every_answer_that_does_not_go_on_ends_by_the_deadline(answer: bytes) -> None:
    with answered([answer], stays=True) as connection, pytest.raises(TimeoutError):
        ask(connection, within_s=SOON_S)


REFUSED = [
    # status lines
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x16\x03\x01\x00\x05\r\n",
    b"HTTP/2 200\r\n",
    b"HTTP/11.1 200 OK\r\n",
    b"HTTP/1.1  200 OK\r\n",
    b"http/1.1 200 OK\r\n",
    b"HTTP/1.1 99 Low\r\n",
    b"HTTP/1.1 600 High\r\n",
    b"HTTP/1.1 +20 Signed\r\n",
    b"HTTP/1.1 2000 Long\r\n",
    b"HTTP/1.1 200OK\r\n",
    b"HTTP/1.1 200 O\x00K\r\n",
    b"HTTP/1.1 200 O\rK\r\n",
    b"HTTP/1.1 200 OK\n",
    # headers
    OK + b"X: y\n\n",
    OK + b"X: y\r\r\n",
    OK + b"X: y\rZ: z\r\n\r\n",
    OK + b"X: y\r\n folded\r\n\r\n",
    OK + b" X: y\r\n\r\n",
    OK + b"X : y\r\n\r\n",
    OK + b": y\r\n\r\n",
    OK + b"X\r\n\r\n",
    OK + b"(X): y\r\n\r\n",
    OK + b"\xdc: y\r\n\r\n",
    OK + b"X: \x00\r\n\r\n",
    OK + b"X: \x1b[31m\r\n\r\n",
    OK + b"X: \x7f\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nX\r\n\r\n" + SIZED,
    # lengths
    *(
        OK + b"Content-Length: " + number + b"\r\n\r\n" + bytes(20)
        for number in (
            b"",
            b"-1",
            b"+1",
            b"1.0",
            b"0x5",
            b"1_0",
            b"1 0",
            b"5, 5",
            b"9" * 19,
            b"\xb2",
            b"100001",
        )
    ),
    OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    OK + b"Content-Length: 5\r\ncontent-length: 4\r\n\r\nabcde",
    OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\n\r\n",
    OK + b"Transfer-Encoding:\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n",
    # chunks
    *(
        CHUNKED + size + b"\r\n" + bytes(20)
        for size in (
            b"",
            b"-1",
            b"+1",
            b"0x1",
            b"1_0",
            b" 1",
            b"1,",
            b"g",
            b"1;\x00",
            b"f" * 15,
            b"f" * 16,
            b"186A1",
        )
    ),
    CHUNKED + b"3\nabc\r\n",
    CHUNKED + b"3\r\nabcd\r\n",
    CHUNKED + b"3\r\nabc\n",
    CHUNKED + b"4\r\nabc\r\n\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nX\r\n\r\n",
    # more than anybody sends
    OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    OK + b"X: y\r\n" * 20_000,
    OK + b"X: " + b"y" * 200_000,
    b"H" * 200_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000,
    CHUNKED + b"1;" + b"x" * 2_000 + b"\r\na\r\n0\r\n\r\n",
    CHUNKED + b"1" * 200_000,
    CHUNKED + (b"2710\r\n" + bytes(10_000) + b"\r\n") * 11,
    CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000,
    OK + b"\r\n" + bytes(MAX_BYTES + 1),
]


def shortly(answer: bytes) -> str:
    return repr(answer.removeprefix(OK).removeprefix(CHUNKED))[2:40] + f" of {len(answer)}"


@pytest.mark.parametrize("answer", REFUSED, ids=shortly)
def test_refuses(answer: bytes) -> None:
    """At once, while the server waits for more to do."""
    with answered([answer], stays=True) as connection:
        with pytest.raises(ProtocolError) as raised:
            ask(connection)
        assert not connection.reusable
    assert str(raised.value).isprintable()
    assert 10 < len(str(raised.value)) < 200


def test_the_longest_length_is_refused_before_memory_is_taken() -> None:
    for answer in (OK + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n", CHUNKED + b"f" * 15 + b"\r\n"):
        start = reader([answer])
        head = start.head("GET")
        with pytest.raises(ProtocolError, match="1000 bytes"):
            start.body(head, 1000)
