"""uvicorn's HTTP protocol, for clients that are slow, loud or too many."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from splitc.server.exchange import GONE, VIEWS, Exchange, Receive, Scope, Send
from splitc.server.limits import MAX_HEAD_BYTES
from splitc.server.options import ListenOptions

# Beyond the connections that are told to come back, this many are: others are closed without a word.
_TOLD = 64
_LINGER_S = 2.0

Complaint = Callable[[str, str], None]


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a client that there are too many of them."""
    exchange = Exchange(scope, receive, send)
    headers = [("retry-after", "1"), ("connection", "close")]
    await exchange.answer_json(503, {"error": "this server has too many connections; try again"}, headers)


class Protocol(HttpToolsProtocol):
    """One connection, each step of which has to end in time.

    Args:
        complain: told the peer and what it did, when that was not HTTP or too slow.
    """

    def __init__(self, *, listen: ListenOptions, complain: Complaint, **options: Any) -> None:
        super().__init__(**options)
        self._listen = listen
        self._complain = complain
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._gone: Callable[[], None] | None = None

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._listen.max_connections + _TOLD:
            transport.abort()
        elif len(self.connections) > self._listen.max_connections:
            self.app = busy
        self._expect_within(self._listen.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waiting."""
        super().connection_lost(exc)
        if self._gone is not None:
            self._gone()
        self._unset_keepalive_if_required()  # uvicorn leaves the timer running where the peer reset the connection
        self._stop(self._timer)
        self._stop(self._send_timer)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self._refused:
                self._refuse(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes")

    def pause_writing(self) -> None:
        """Give the peer time to read."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._listen.request_s, self._abort, "does not read")

    def resume_writing(self) -> None:
        """The peer has read."""
        super().resume_writing()
        self._stop(self._send_timer)

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        super().on_message_begin()
        self.scope["extensions"] = {VIEWS: {}, GONE: {"watch": self._watch}}
        self._in_head, self._head_bytes = True, 0
        self._expect_within(self._listen.head_s)

    def on_headers_complete(self) -> None:
        """Its head has come."""
        super().on_headers_complete()
        self._in_head = False
        self._expect_within(self._listen.request_s)

    def on_body(self, body: bytes) -> None:
        """A part of its body has come: alone it is handed on as it is, where uvicorn would copy it twice."""
        cycle = self.cycle
        if not cycle.body and not cycle.response_complete:
            cycle.body = body  # type: ignore[assignment]
            cycle.message_event.set()
            return
        if isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it has come."""
        super().on_message_complete()
        self._stop(self._timer)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, msg)

    # --- what the application calls ---

    def _watch(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if gone is None:
            return
        if self.transport.is_closing():
            gone()
        else:
            self.flow.resume_reading()  # else the end of the connection would not be seen

    # --- limits ---

    def _expect_within(self, seconds: float) -> None:
        self._stop(self._timer)
        self._timer = self.loop.call_later(seconds, self._check_progress, seconds)

    def _check_progress(self, seconds: float) -> None:
        if self.flow.read_paused:  # it is we who do not read
            self._expect_within(seconds)
        else:
            self._abort("is too slow")

    def _abort(self, why: str) -> None:
        self._complain(self._peer, why)
        self.transport.abort()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer what no application can be asked, and end the connection.

        The rest of what the peer sends is read for a moment: closing at once would reset the connection, and
        the answer would be lost on its way.
        """
        self._complain(self._peer, sentence)
        self._refused = True
        body = b'{"error": "%s"}' % sentence.encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stop(self._timer)
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def protocol_factory(
    config: Config, state: ServerState, app_state: dict[str, Any], listen: ListenOptions, complain: Complaint
) -> Callable[[], Protocol]:
    """Make connections of a server, for `loop.create_server`."""
    return lambda: Protocol(
        listen=listen, complain=complain, config=config, server_state=state, app_state=app_state
    )
