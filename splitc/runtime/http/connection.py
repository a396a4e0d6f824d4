"""One connection to an HTTP server, on which every send and receive ends by a deadline.

The timeout of a socket applies to each call alone, so a server that sends one byte at a time could block a caller
for hours. Here, each call gets the time that is left.
"""

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from splitc.runtime.http.reply import Reader

Buffer = bytes | bytearray | memoryview

_PIECE_BYTES = 1 << 16
# Every system takes at least this many buffers in one call.
_MAX_BUFFERS = 16
# How long to wait for an answer that a server sent before it closed the connection.
_LAST_WORDS_S = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a server.

    Attributes:
        headers: values by lower-case name; several values of one name are joined by ", ".
        wait_s: seconds from the first byte sent to the first byte of the answer.
        download_s: seconds from the first to the last byte of the answer.
    """

    status: int
    headers: Mapping[str, str]
    body: memoryview
    wait_s: float
    download_s: float


def remaining_s(deadline_s: float) -> float:
    """Seconds until *deadline_s*.

    Raises:
        TimeoutError: *deadline_s* has passed.
    """
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


class Connection:
    """A connection for one exchange at a time.

    Attributes:
        sent: whether all of the latest request was passed to the system.
        reusable: whether another exchange may follow the latest one.
        idle_since_s: when the latest exchange ended.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._reader = Reader(self._receive_into)
        self._deadline_s = 0.0
        self._first_s: float | None = None
        self.sent = False
        self.reusable = False
        self.idle_since_s = time.monotonic()

    @property
    def answered(self) -> bool:
        """Whether any byte of an answer to the latest request has arrived."""
        return self._first_s is not None

    def exchange(
        self, method: str, request: Sequence[Buffer], *, deadline_s: float, max_reply_bytes: int
    ) -> Reply:
        """Send *request* (head and body, in pieces) and receive the answer.

        Raises:
            OSError: the connection broke; TimeoutError if *deadline_s* passed.
            ProtocolError: the answer is too large, or is not HTTP.
        """
        self.sent = self.reusable = False
        self._first_s, self._deadline_s = None, deadline_s
        began_s = time.monotonic()
        try:
            self._send(request)
        except (BrokenPipeError, ConnectionResetError):
            self._deadline_s = min(deadline_s, time.monotonic() + _LAST_WORDS_S)
            last_words = self._last_words(method, began_s, max_reply_bytes)
            if last_words is None:
                raise
            return last_words
        self.sent = True
        reply = self._receive(method, began_s, max_reply_bytes)
        self.idle_since_s = time.monotonic()
        return reply

    def is_usable(self) -> bool:
        """Tell whether nothing has arrived since the last exchange: neither its end nor unexpected bytes."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def shut(self) -> None:
        """Break the connection, from any thread, so that threads that wait for it stop waiting."""
        with suppress(OSError):  # closed, or never connected
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. Closing again does nothing."""
        self._socket.close()

    def _send(self, request: Sequence[Buffer]) -> None:
        views = [memoryview(part).cast("B") for part in request if memoryview(part).nbytes]
        while views:
            self._socket.settimeout(remaining_s(self._deadline_s))
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
        """Read the answer of a server that closed the connection early, as some do to refuse a request, or None."""
        with suppress(OSError):
            reply = self._receive(method, began_s, max_bytes)
            self.reusable = False
            return reply
        return None

    def _receive(self, method: str, began_s: float, max_bytes: int) -> Reply:
        head = self._reader.head(method)
        body = self._reader.body(head, max_bytes)
        ended_s = time.monotonic()
        self.reusable = head.persists and not self._reader.is_ahead
        first_s = self._first_s or ended_s
        return Reply(head.status, head.headers, memoryview(body), first_s - began_s, ended_s - first_s)

    def _receive_into(self, buffer: memoryview) -> int:
        self._socket.settimeout(remaining_s(self._deadline_s))
        count = self._socket.recv_into(buffer)
        if self._first_s is None and count:
            self._first_s = time.monotonic()
        return count
