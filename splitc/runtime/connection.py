"""One connection to an HTTP server, on which every send and receive ends by a deadline.

http.client reads the answers, through `Connection.makefile`. Timeouts of sockets are for one call each,
so a server that trickles bytes could hold a caller up for hours: here each call gets what time is left.
"""

import io
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from splitc.errors import ProtocolError

Buffer = bytes | bytearray | memoryview

_PIECE_BYTES = 1 << 16
# As many buffers as any system takes in one call.
_MAX_BUFFERS = 16
# Heads, and what chunks add; http.client itself would read a chunk of size -1 until memory ends.
_FRAME_BYTES = 1 << 20
# What a server said before it closed is here already, or never comes.
_LAST_WORDS_S = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        headers: by lower-case names.
        wait_s: from the first byte sent to the first byte of the answer.
        download_s: from there to its last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: memoryview
    wait_s: float
    download_s: float


def remaining_s(deadline_s: float) -> float:
    """Seconds until *deadline_s*.

    Raises:
        TimeoutError: there are none.
    """
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


class _Raw(io.RawIOBase):
    """What a socket receives.

    Attributes:
        deadline_s: None to take only what is here already.
        left_bytes: how many more an answer may take.
        first_s: when the first byte of an answer came.
        ended: whether the server closed.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.deadline_s: float | None = None
        self.left_bytes = 0
        self.first_s: float | None = None
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(0 if self.deadline_s is None else remaining_s(self.deadline_s))
        try:
            count = self._socket.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        self.ended = not count
        self.left_bytes -= count
        if self.left_bytes < 0:
            raise ProtocolError("the server sends more than any answer takes")
        if self.first_s is None and count:
            self.first_s = time.monotonic()
        return count


class _Reader(io.BufferedReader):
    """Outlives the answers read from it, which close it: the next answer comes from the same bytes."""

    def close(self) -> None:
        pass


class Connection:
    """A connection for one exchange at a time.

    Attributes:
        sent: whether all of the latest request was handed over.
        reusable: whether the latest exchange left it fit for another.
        idle_since_s: when that ended.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._raw = _Raw(opened)
        self._reader = _Reader(self._raw)
        self.sent = False
        self.reusable = False
        self.idle_since_s = time.monotonic()

    @property
    def answered(self) -> bool:
        """Whether any byte of an answer to the latest request came."""
        return self._raw.first_s is not None

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What http.client needs of a socket."""
        return self._reader

    def exchange(
        self, method: str, request: Sequence[Buffer], *, deadline_s: float, max_reply_bytes: int
    ) -> Reply:
        """Send *request* (head and body, in pieces) and receive the answer.

        Raises:
            OSError: the connection broke; TimeoutError, too, when the time was over.
            http.client.HTTPException, ValueError: that is no HTTP, or it ended half-way.
            ProtocolError: the answer is too large, or its length makes no sense.
        """
        self.sent = self.reusable = False
        self._raw.first_s, self._raw.deadline_s = None, deadline_s
        self._raw.left_bytes = max_reply_bytes + _FRAME_BYTES
        began_s = time.monotonic()
        try:
            self._send(request, deadline_s)
        except (BrokenPipeError, ConnectionResetError):
            self._raw.deadline_s = min(deadline_s, time.monotonic() + _LAST_WORDS_S)
            last_words = self._last_words(method, began_s, max_reply_bytes)
            if last_words is None:
                raise
            return last_words
        self.sent = True
        reply = self._receive(method, began_s, max_reply_bytes)
        self.idle_since_s = time.monotonic()
        return reply

    def is_usable(self) -> bool:
        """Whether nothing came since the last exchange: neither the end nor bytes that nobody asked for."""
        self._raw.deadline_s = None
        with suppress(OSError):
            return not self._reader.peek(1) and not self._raw.ended
        return False

    def shut(self) -> None:
        """Break it, from any thread: whoever waits for it stops waiting."""
        with suppress(OSError):  # closed, or never connected
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; again is fine."""
        self._socket.close()

    def _send(self, request: Sequence[Buffer], deadline_s: float) -> None:
        views = [memoryview(part).cast("B") for part in request if memoryview(part).nbytes]
        while views:
            self._socket.settimeout(remaining_s(deadline_s))
            count = self._send_some(views)
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

    def _send_some(self, views: Sequence[memoryview]) -> int:
        if isinstance(self._socket, ssl.SSLSocket) or not hasattr(self._socket, "sendmsg"):
            return self._socket.send(views[0][:_PIECE_BYTES])
        return self._socket.sendmsg(views[:_MAX_BUFFERS])

    def _last_words(self, method: str, began_s: float, max_bytes: int) -> Reply | None:
        """What a server answered that closed before it read the whole request, as some refuse; None if nothing."""
        with suppress(OSError):
            reply = self._receive(method, began_s, max_bytes)
            self.reusable = False
            return reply
        return None

    def _receive(self, method: str, began_s: float, max_bytes: int) -> Reply:
        # http.client asks a socket for nothing but makefile.
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        body = _read_body(response, max_bytes)
        ended_s = time.monotonic()
        self.reusable = not response.will_close
        headers = {name.lower(): value for name, value in response.getheaders()}
        first_s = self._raw.first_s or ended_s
        return Reply(response.status, headers, memoryview(body), first_s - began_s, ended_s - first_s)


def _read_body(response: HTTPResponse, max_bytes: int) -> bytearray:
    """The body, in memory taken once where its length is known."""
    if response.length is None:
        if response.getheader("content-length") is not None and not response.chunked:
            raise ProtocolError("the length of the server's answer is no number")
        return _read_until_end(response, max_bytes)
    if response.length > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray(response.length)
    if response.readinto(body) < len(body):
        raise ConnectionResetError("the connection ended inside the answer")
    return body


def _read_until_end(response: HTTPResponse, max_bytes: int) -> bytearray:
    body = bytearray()
    while piece := response.read(_PIECE_BYTES):
        body += piece
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> ProtocolError:
    return ProtocolError(f"the server's answer is larger than the {max_bytes} bytes that it may have")
