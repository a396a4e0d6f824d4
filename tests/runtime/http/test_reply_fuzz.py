"""Whatever a server sends is an answer or a named error, and a valid answer is what http.client reads, too."""

import io
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from splitc.common.errors import ProtocolError
from tests.protocol.fuzzing import SETTINGS
from tests.runtime.http.test_reply import reader

MAX_BYTES = 1000
METHODS = st.sampled_from(["GET", "POST", "HEAD"])
TOKENS = st.text("!#$%&'*+.^_`|~-0123456789azAZ", min_size=1, max_size=12)
# Space around a value is not part of it.
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_categories=["Cc"]), max_size=20
).map(lambda text: text.strip(" "))
HEADERS = st.lists(st.tuples(TOKENS.map(lambda name: f"X{name}"), VALUES), max_size=6)
KEPT = st.sampled_from(
    ["", "Connection: close\r\n", "connection: Keep-Alive\r\n", "Connection: x, close\r\n"]
)


@dataclass(frozen=True)
class Valid:
    """An answer as it should be, and what asked for it."""

    method: str
    raw: bytes


def lines(headers: list[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


@st.composite
def framed(draw: st.DrawFn, *, in_chunks: bool) -> tuple[str, bytes]:
    """The header that bounds a body, and the body."""
    body = draw(st.binary(max_size=60))
    kind = draw(st.sampled_from(["length", "end", *(["chunks"] if in_chunks else [])]))
    if kind == "length":
        return f"{draw(st.sampled_from(['Content-Length', 'content-length']))}: {len(body)}\r\n", body
    if kind == "end":
        return "", body
    raw = b""
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from(["", ";a", "; a=b", ' ;a="b"']))
        raw += (
            f"{size:{draw(st.sampled_from(['x', 'X', '03x']))}}{extension}\r\n".encode()
            + body[:size]
            + b"\r\n"
        )
        body = body[size:]
    trailers = lines(draw(HEADERS)).encode("latin-1")
    return "Transfer-Encoding: chunked\r\n", raw + b"0\r\n" + trailers + b"\r\n"


@st.composite
def valid(draw: st.DrawFn) -> Valid:
    method, version = draw(METHODS), draw(st.integers(0, 1))
    status = draw(st.sampled_from([200, 201, 204, 304, 404, 503]))
    interim = draw(st.integers(0, 2)) * "HTTP/1.1 100 Continue\r\n\r\n"
    bodiless = status in (204, 304)
    header, body = draw(framed(in_chunks=version > 0 and not bodiless))
    head = f"{interim}HTTP/1.{version} {status}{draw(st.sampled_from(['', ' ', ' OK', ' Not so']))}\r\n"
    head += draw(KEPT) + lines(draw(HEADERS)) + header + lines(draw(HEADERS)) + "\r\n"
    return Valid(method, head.encode("latin-1") + (b"" if bodiless or method == "HEAD" else body))


@st.composite
def spoilt(draw: st.DrawFn) -> Valid:
    """An answer with other bytes, lines that do not belong there, more, or an early end."""
    answer = draw(valid())
    raw = bytearray(answer.raw)
    for _ in range(draw(st.integers(0, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at:at] = draw(
            st.sampled_from(
                [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\r\n ", b"\x00", b"-1\r\n", b"0\r\n", b":"]
            )
            | st.sampled_from([b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"9" * 30])
        )
    return Valid(answer.method, bytes(raw[: draw(st.just(len(raw)) | st.integers(0, len(raw)))]))


def pieces(data: st.DataObject, raw: bytes) -> list[bytes]:
    """*raw* in a few pieces or byte by byte."""
    if data.draw(st.booleans()):
        return [raw[at : at + 1] for at in range(len(raw))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    return [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


class Canned(io.BytesIO):
    """What http.client needs of a socket."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self


@SETTINGS
@given(valid(), st.data())
def test_valid_answers_are_what_http_client_reads(answer: Valid, data: st.DataObject) -> None:
    theirs = HTTPResponse(cast(socket.socket, Canned(answer.raw)), method=answer.method)
    theirs.begin()
    ours = reader(pieces(data, answer.raw))
    head = ours.head(answer.method)
    assert head.status == theirs.status
    assert head.headers == {name.lower(): theirs.getheader(name) for name in theirs.headers}
    assert head.persists is not theirs.will_close
    assert ours.body(head, MAX_BYTES) == theirs.read()
    assert not ours.is_ahead


def check_error(error: ProtocolError) -> None:
    """It is one sentence."""
    assert str(error).isprintable()
    assert 10 < len(str(error)) < 200


def check(method: str, parts: list[bytes]) -> None:
    """What comes in *parts* is an answer, a wrong one, or the beginning of one."""
    answers = reader(parts)
    try:
        head = answers.head(method)
        body = answers.body(head, MAX_BYTES)
    except ProtocolError as error:
        check_error(error)
        return
    except ConnectionResetError:
        return
    assert all(name == name.lower() and name.isascii() for name in head.headers)
    assert not any(letter in "".join(head.headers.values()) for letter in "\r\n\0")
    assert len(body) <= MAX_BYTES


@SETTINGS
@given(spoilt(), st.data())
def test_spoilt_answers(answer: Valid, data: st.DataObject) -> None:
    check(answer.method, pieces(data, answer.raw))


@SETTINGS
@given(METHODS, st.binary(max_size=200), st.data())
def test_any_bytes(method: str, raw: bytes, data: st.DataObject) -> None:
    start = data.draw(
        st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length:"])
    )
    check(method, pieces(data, start + raw))
