"""uvicorn's HTTP protocol, extended by limits on slow clients, large headers and the number of connections."""

import asyncio
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from splitc.protocol.tensors import Buffer
from splitc.server.body_memory import HeldBody, NoRoom
from splitc.server.exchange import BODY, GONE, VIEWS, Exchange, Receive, Scope, Send
from splitc.server.http_flow import AnswerWriter, PipelineFlow, PlacedBody, UnreadAnswers
from splitc.server.http_head import Unacceptable, check_framing, without_upgrade
from splitc.server.options import TOLD_CONNECTIONS, ListenOptions
from splitc.server.request_limits import MAX_HEAD_BYTES

_LINGER_S = 2.0
# The size of the buffer for heads and small bodies; larger bodies are received in their final place.
_PIECE_BYTES = 16 << 10

Complaint = Callable[[str, str], None]


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that the server has too many connections (an ASGI application)."""
    exchange = Exchange(scope, receive, send)
    headers = [("retry-after", "1"), ("connection", "close")]
    await exchange.answer_json(503, {"error": "this server has too many connections; try again"}, headers)


class Receiver(asyncio.BufferedProtocol):
    """Receives for *protocol*: the system writes large bodies directly to their final place, without a copy."""

    def __init__(self, protocol: "Protocol") -> None:
        self._protocol = protocol
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._body: PlacedBody | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._protocol.connection_made(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """What was written waits for the peer."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """It waits no more."""
        self._protocol.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the buffer for the next bytes."""
        self._body = self._protocol.body
        return self._piece if self._body is None else self._body.left

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the *nbytes* that were received."""
        if self._body is None:
            self._protocol.data_received(self._piece[:nbytes])
        else:
            self._protocol.body_received(self._body, nbytes)


class Protocol(HttpToolsProtocol):
    """One connection, with a time limit on each step.

    Args:
        unread: of all connections.
        complain: called with the peer's address and a reason when the peer is too slow or does not send HTTP.
    """

    def __init__(
        self, *, listen: ListenOptions, unread: UnreadAnswers, complain: Complaint, **options: Any
    ) -> None:
        super().__init__(**options)
        self._unread = unread
        self._listen = listen
        self._complain = complain
        self._extensions: dict[str, dict[object, object]] = {
            VIEWS: {},
            GONE: {"watch": self._watch},
            BODY: {"fill": self._fill},
        }
        self._due_s = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._refusal: tuple[int, str] | None = None
        self._plain_head = b""
        self._gone: Callable[[], None] | None = None
        self.idle_since_s = math.inf
        self.body: PlacedBody | None = None

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self.pipeline)
        self._answers = AnswerWriter(transport)
        if len(self.connections) > self._listen.max_connections + TOLD_CONNECTIONS:
            transport.abort()
        elif len(self.connections) > self._listen.max_connections and not self._take_place():
            self.app = busy
        self._expect_within(self._listen.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, and tell those who wait for the connection."""
        super().connection_lost(exc)
        if self._gone is not None:
            self._gone()
        if self.body is not None:
            self.body.end(ConnectionResetError())
        self._unset_keepalive_if_required()  # uvicorn leaves the timer running where the peer reset the connection
        self._stop(self._timer)
        self._stop(self._send_timer)
        self._unread.end(self.transport)

    def data_received(self, data: Buffer) -> None:
        """Parse what came."""
        if self._refused:
            return
        before = self.cycle
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            why = error.__context__
            if isinstance(why, Unacceptable):
                self._refuse(why.status, str(why))
            else:
                self._refuse(400, "Invalid HTTP request received.")
            return
        if self._in_head or self.cycle.more_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes")
                return
        if not self._in_head and self.body is None:
            self._pause(is_new=self.cycle is not before)

    def _pause(self, *, is_new: bool) -> None:
        """Read no more of a body until the application says where to put it, or takes what has come.

        A piece without any of the body, such as the size of a chunk, does not wake an application that waits.
        """
        cycle = self.cycle
        if cycle.more_body and not cycle.response_complete and (is_new or cycle.body):
            self.flow.pause_reading()

    def _parse(self, data: Buffer) -> None:
        """Parse *data*. After the head of a request that wishes another protocol, the parser takes the rest for that
        protocol; so a new parser gets the head without the wish, and the rest.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                data = memoryview(data)[pause.args[0] :]
            else:
                return
            self._replace_parser()
            self.parser.feed_data(self._plain_head)
            if not data:
                return

    def body_received(self, body: PlacedBody, count: int) -> None:
        """Record that *count* bytes of *body* were received in place."""
        try:
            body.grow(count)
        except NoRoom as error:
            body.end(error)
        if not body.left and body is self.body:
            self._begin_anew()

    def pause_writing(self) -> None:
        """Give the peer time to read."""
        super().pause_writing()
        cut_off = partial(self._abort, "does not read")
        self._send_timer = self.loop.call_later(self._listen.request_s, cut_off)
        self._unread.wait(self.transport, cut_off)

    def resume_writing(self) -> None:
        """The peer has read."""
        super().resume_writing()
        self._stop(self._send_timer)
        self._unread.end(self.transport)

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        super().on_message_begin()
        self.idle_since_s = math.inf
        self.scope["extensions"] = self._extensions
        self._in_head, self._head_bytes = True, 0
        self._expect_within(self._listen.head_s)

    def on_headers_complete(self) -> None:
        """Its head has come."""
        version = self.parser.get_http_version()
        if self.parser.should_upgrade():
            self._plain_head = without_upgrade(self.parser.get_method(), self.url, version, self.headers)
            return
        check_framing(version, self.headers)
        super().on_headers_complete()
        self.cycle.transport = self._answers  # type: ignore[assignment]
        self._in_head, self._head_bytes = False, 0
        self._expect_within(self._listen.request_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or one after the last chunk of a body, which says nothing that the server needs."""
        if self._in_head:
            super().on_header(name, value)

    def on_chunk_complete(self) -> None:
        """A chunk of a body has come, so what comes next may be as long as headers again."""
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body. The first part is passed on as it is; uvicorn would copy it twice."""
        cycle, self._head_bytes = self.cycle, 0
        if not cycle.body and not cycle.response_complete:
            cycle.body = body  # type: ignore[assignment]
            cycle.message_event.set()
            return
        if isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it has come."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._due_s = math.inf
        if self.body is not None:
            self.body.end()
            self.body = (
                None  # the next bytes belong to another request, even if they come before the task continues
            )

    def on_response_complete(self) -> None:
        """All of an answer was written."""
        self._answers.flush()
        was_last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if was_last and not self._in_head and not self.cycle.more_body:
            self.idle_since_s = self.loop.time()
        self.flow.resume_reading()  # uvicorn does so before it takes the next request from the pipeline
        if was_last and self._refusal is not None:
            self._tell_refusal(*self._refusal)

    # --- what the application calls ---

    async def _fill(self, target: memoryview, within_s: float, held: HeldBody | None) -> int | None:
        """Put the body of the request that runs into *target*, see `exchange.Fill`."""
        cycle = self.cycle
        if self.pipeline or cycle.waiting_for_100_continue:
            return None  # the cycle belongs to another request, or the client waits for 100 Continue
        body = PlacedBody(target, held)
        body.add(cycle.body)
        cycle.body = bytearray()
        if not cycle.more_body:
            return body.came
        if self.transport.is_closing():
            raise ConnectionResetError
        self._take(body)
        if body.left:
            if held is not None:
                held.on_give_up = lambda: body.end(NoRoom())
            await self._rest(body, within_s)
        else:
            self._begin_anew()
        return body.came

    def _take(self, body: PlacedBody) -> None:
        """Read at once what has arrived in the socket's buffer: that is faster than a turn of the event loop.

        If nothing has arrived, or the connection is lost, the event loop will find that out later.
        """
        if self.scheme == "http" and self.flow.read_paused:
            with suppress(OSError):
                body.grow(os.readv(self.transport.get_extra_info("socket").fileno(), [body.left]))

    async def _rest(self, body: PlacedBody, within_s: float) -> None:
        body.whole = self.loop.create_future()
        self.flow.resume_reading()
        self._expect_within(within_s)
        self.body = body
        try:
            await body.whole
        finally:
            if self.body is body:  # given up: the parser could not tell where the next request begins
                self.body = None
                self._refused, self.cycle.keep_alive = True, False

    def _begin_anew(self) -> None:
        """Replace the parser, which did not see the body, by a new one that expects the next request."""
        self._replace_parser()
        self.on_message_complete()

    def _replace_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

    def _watch(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if gone is None:
            return
        if self.transport.is_closing():
            gone()
        else:
            self.flow.resume_reading()  # else the end of the connection would not be seen

    # --- limits ---

    def _take_place(self) -> bool:
        """Close the connection that has been idle for longest, and return whether there is one."""
        late_s = self.loop.time() - self._listen.least_idle_s
        others = cast(set[Protocol], self.connections)
        idle = [each for each in others if each.idle_since_s <= late_s and not each.transport.is_closing()]
        if idle:
            min(idle, key=lambda each: each.idle_since_s).transport.close()
        return bool(idle)

    def _expect_within(self, seconds: float) -> None:
        """Set the time limit. A timer that ends earlier is kept; when it ends, it is set again."""
        self._due_s = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due_s:
            self._look_again()

    def _look_again(self) -> None:
        self._stop(self._timer)
        self._timer = self.loop.call_at(self._due_s, self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        if self._due_s == math.inf:
            return
        now_s = self.loop.time()
        if now_s < self._due_s:
            self._look_again()
        elif self.flow.read_paused:  # the server has paused reading, so the peer is not to blame
            self._expect_within(self._listen.request_s)
        elif self.body is not None:
            self._expect_within(self._listen.request_s)
            self.body.end(TimeoutError())
        else:
            self._abort("is too slow")

    def _abort(self, why: str) -> None:
        self._complain(self._peer, why)
        self.transport.abort()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer a request that the application cannot be given, after the requests before it, and end the connection."""
        self._complain(self._peer, sentence)
        self._refused, self._due_s = True, math.inf
        cycle, is_last = self.cycle, not self.pipeline
        if self._in_head:
            is_next = is_last and (cycle is None or cycle.response_complete)
        elif (
            is_last
        ):  # the body of a request that runs is damaged: its answer is this one, if it has none yet
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = is_next = True
            cycle.message_event.set()
        else:
            self.pipeline.popleft()
            is_next = False
        if is_next:
            self._tell_refusal(status, sentence)
        else:
            self._refusal = status, sentence

    def _tell_refusal(self, status: int, sentence: str) -> None:
        """Answer. Reading goes on for a moment: closing at once would reset the connection, and the answer would be lost."""
        if self.transport.is_closing():
            return
        self._refusal = None
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
) -> Callable[[], Receiver]:
    """Make connections of a server, for `loop.create_server`."""
    unread = UnreadAnswers(listen.max_unread_bytes)
    return lambda: Receiver(
        Protocol(
            listen=listen,
            unread=unread,
            complain=complain,
            config=config,
            server_state=state,
            app_state=app_state,
        )
    )
