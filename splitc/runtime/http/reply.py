"""Reads the answers of an HTTP/1.1 server (RFC 9112) strictly: ambiguous answers are refused.

The standard library parses headers as those of e-mail, which takes longer than everything else that a device does
for a small request. It also accepts two lengths in one answer, folded lines, and chunks of negative size.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splitc.common.errors import ProtocolError
from splitc.protocol.fields import shown
from splitc.protocol.memo import remembered

_PIECE_BYTES = 1 << 16
# Limit on a status line and its headers, and on the headers after chunks.
_MAX_HEAD_BYTES = 1 << 16
_MAX_CHUNK_LINE_BYTES = 1 << 10
_MAX_INTERIM = 1000
_FIRST_FINAL = 200
_BODILESS = (204, 304)

_TEXT = r"[\t -~\x80-\xff]*"
_STATUS_LINE = re.compile(rf"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: {_TEXT})?")
_HEADER = re.compile(rf"([!#$%&'*+.^_`|~0-9A-Za-z-]+):({_TEXT})")
_EMPTY_LINE = b"\r\n"
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rf"([0-9A-Fa-f]{{1,15}})[\t ]*(?:;{_TEXT})?")


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and headers of an answer.

    Attributes:
        headers: values by lower-case name; several values of one name are joined by ", ".
        body_bytes: size of the body; None if it comes in chunks or ends with the connection.
        persists: whether another answer may follow on the connection.
    """

    status: int
    headers: Mapping[str, str]
    body_bytes: int | None
    chunked: bool
    persists: bool


class Reader:
    """Reads the answers that come over one connection.

    Args:
        receive_into: receives into a buffer and returns the number of bytes, 0 at the end of the connection.
    """

    def __init__(self, receive_into: Callable[[memoryview], int]) -> None:
        self._receive_into = receive_into
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._ahead = bytearray()

    @property
    def is_ahead(self) -> bool:
        """Whether bytes have arrived that were not read yet."""
        return bool(self._ahead)

    def head(self, method: str) -> Head:
        """Read the head of the answer to a request with *method*; interim answers before it are skipped.

        Raises:
            ConnectionResetError: the connection ended inside the head.
            ProtocolError: the head is not HTTP, too large, or ambiguous.
        """
        for _ in range(_MAX_INTERIM):
            status, is_old = _status(self._line(_MAX_HEAD_BYTES))
            headers = self._headers()
            if status >= _FIRST_FINAL:
                return _head(status, headers, method, is_old=is_old)
        raise ProtocolError(f"the server sent {_MAX_INTERIM} interim answers and no final one")

    def body(self, head: Head, max_bytes: int) -> bytearray:
        """Read the body after *head*; if its length is known, memory is allocated once.

        Raises:
            ConnectionResetError: the connection ended inside the body.
            ProtocolError: the body is larger than *max_bytes*, or its chunks are malformed.
        """
        if head.chunked:
            return self._chunks(max_bytes)
        if head.body_bytes is None:
            return self._until_end(max_bytes)
        if head.body_bytes > max_bytes:
            raise _too_large(max_bytes)
        return self._exactly(head.body_bytes)

    def _more(self) -> bool:
        """Receive more bytes; return whether any came."""
        count = self._receive_into(self._piece)
        self._ahead += self._piece[:count]
        return count > 0

    def _line(self, max_bytes: int) -> bytes:
        """Read the next line, with its line break."""
        end = self._ahead.find(b"\n")
        while end < 0 and len(self._ahead) <= max_bytes:
            searched = len(self._ahead)
            if not self._more():
                raise _cut_off()
            end = self._ahead.find(b"\n", searched)
        if not 0 <= end <= max_bytes:
            raise ProtocolError("the status line and headers of the server's answer are too long")
        line = bytes(self._ahead[: end + 1])
        del self._ahead[: end + 1]
        return line

    def _headers(self) -> dict[str, str]:
        """Read headers up to an empty line."""
        headers: dict[str, str] = {}
        left_bytes = _MAX_HEAD_BYTES
        while (line := self._line(left_bytes)) != _EMPTY_LINE:
            left_bytes -= len(line)
            name, value = _header(line)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def _exactly(self, size_bytes: int) -> bytearray:
        body = bytearray(size_bytes)
        count = min(size_bytes, len(self._ahead))
        body[:count] = self._ahead[:count]
        del self._ahead[:count]
        left = memoryview(body)[count:]
        while left:
            count = self._receive_into(left)
            if not count:
                raise _cut_off()
            left = left[count:]
        return body

    def _until_end(self, max_bytes: int) -> bytearray:
        while len(self._ahead) <= max_bytes:
            if not self._more():
                body, self._ahead = self._ahead, bytearray()
                return body
        raise _too_large(max_bytes)

    def _chunks(self, max_bytes: int) -> bytearray:
        body = bytearray()
        while size_bytes := self._chunk_bytes():
            if len(body) + size_bytes > max_bytes:
                raise _too_large(max_bytes)
            body += self._exactly(size_bytes)
            if self._line(_MAX_CHUNK_LINE_BYTES) != _EMPTY_LINE:
                raise ProtocolError("a chunk of the server's answer is longer than its stated size")
        self._headers()
        return body

    def _chunk_bytes(self) -> int:
        line = _text(self._line(_MAX_CHUNK_LINE_BYTES))
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(f"a chunk of the server's answer has the invalid size {shown(line)}")
        return int(match[1], 16)


def _text(line: bytes) -> str:
    """Decode *line*, without its line break."""
    text = line.decode("latin-1").removesuffix("\r\n")
    if "\r" in text or "\n" in text:
        shown_line = shown(line.decode("latin-1"))
        raise ProtocolError(f"the server's answer has the line {shown_line}, which does not end in CR LF")
    return text


@remembered
def _status(line: bytes) -> tuple[int, bool]:
    """Read the status, and whether the answer uses HTTP/1.0."""
    text = _text(line)
    match = _STATUS_LINE.fullmatch(text)
    if match is None:
        raise ProtocolError(f"the server does not answer in HTTP/1.1 but with {shown(text)}")
    return int(match[2]), match[1] == "0"


@remembered
def _header(line: bytes) -> tuple[str, str]:
    """Read the name, in lower case, and the value."""
    text = _text(line)
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ProtocolError(f"the server's answer has the malformed header {shown(text)}")
    return match[1].lower(), match[2].strip(" \t")


def _head(status: int, headers: Mapping[str, str], method: str, *, is_old: bool) -> Head:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ProtocolError(
            f"the server's answer has the Content-Length {shown(length)}, which is not a number"
        )
    if coding is not None and (is_old or length is not None or coding.lower() != "chunked"):
        raise ProtocolError(
            f"the server's answer has the Transfer-Encoding {shown(coding)}, which does not define where the answer ends"
        )
    body_bytes, chunked = None if length is None else int(length), coding is not None
    if method == "HEAD" or status in _BODILESS:
        body_bytes, chunked = 0, False
    options = [option.strip() for option in headers.get("connection", "").lower().split(",")]
    persists = "close" not in options and (not is_old or "keep-alive" in options)
    return Head(status, headers, body_bytes, chunked, persists and (chunked or body_bytes is not None))


def _too_large(max_bytes: int) -> ProtocolError:
    return ProtocolError(f"the server's answer is larger than the allowed {max_bytes} bytes")


def _cut_off() -> ConnectionResetError:
    return ConnectionResetError("the connection ended before the answer did")
