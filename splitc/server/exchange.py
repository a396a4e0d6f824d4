"""One request and its answer, between the application and whichever ASGI server runs it."""

import asyncio
import ctypes
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from itertools import chain
from typing import Any

import numpy as np

from splitc.protocol.tensors import Buffer
from splitc.server.body_memory import HeldBody, NoRoom

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Watch = Callable[[Callable[[], None] | None], None]
Fill = Callable[[memoryview, float, HeldBody | None], Awaitable[int | None]]
"""Fill memory with the body within the given seconds; return the bytes received, or None to use `receive` instead.

Raises:
    NoRoom: the body's memory is given up.
    TimeoutError: it took longer.
    ConnectionError: the connection ended before the body did.
"""

# In a server's scope: the server accepts memoryviews, where the standard allows only bytes; this avoids copies.
VIEWS = "splitc.views"
# In a server's scope: its "watch" takes what to call when the client goes away, or None, so no task waits for that.
GONE = "splitc.gone"
# In a server's scope: its "fill" writes a body directly into its buffer, without waking a task for each piece.
BODY = "splitc.body"
_ALIGNMENT = 64
_JOINED_BYTES = 64 << 10


class Refusal(Exception):  # noqa: N818 - an answer
    """The request is answered with an error.

    Attributes:
        reason: one word for what was wrong, for metrics and logs.
        closes: the connection is not used again.
    """

    def __init__(
        self, status: int, reason: str, sentence: str, *, closes: bool = False, **headers: str | int
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.closes = closes
        self.headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}


class ClientGone(Exception):  # noqa: N818 - the client's doing
    """The client has closed the connection."""


class Exchange:
    """A request whose head has arrived.

    Args:
        also: makes a header that goes with every answer.

    Attributes:
        model: the requested model, once it is known to exist.
        receive_s: seconds from its head to its last byte.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, also: Callable[[], tuple[str, str]] | None = None
    ) -> None:
        self.began_s = time.monotonic()
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.head_bytes = sum(map(len, chain.from_iterable(scope["headers"])))
        self.path = _path(scope)
        self.query: bytes = scope.get("query_string", b"")
        self.peer = str((scope.get("client") or ("",))[0])
        self.model = ""
        self.receive_s = 0.0
        self.received_bytes = self.sent_bytes = self.status = 0
        extensions = scope.get("extensions") or {}
        self._views = VIEWS in extensions
        self._fill: Fill | None = extensions[BODY]["fill"] if BODY in extensions else None
        self._tell_when_gone: Watch | None = extensions[GONE]["watch"] if GONE in extensions else None
        self._waits: asyncio.Task[None] | None = None
        self._receive = receive
        self._send = send
        self._also = also

    def header(self, name: str) -> str | None:
        """The value of a request header, given in lower case."""
        value = self.headers.get(name.encode())
        return value.decode("latin-1") if value is not None else None

    def declared_bytes(self) -> int | None:
        """The size of the body that the request declares; None if it declares none.

        Raises:
            Refusal: the declared size is not a number.
        """
        value = self.header("content-length")
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) < 20):  # noqa: PLR2004 - fits into 64 bits
            raise Refusal(400, "malformed", "Content-Length is not a number of bytes")
        return int(value)

    async def body(
        self, *, limit_bytes: int, within_s: float, aligned_at: int = 0, held: HeldBody | None = None
    ) -> memoryview:
        """Receive the whole body into one buffer, in which the byte *aligned_at* lies at a multiple of 64.

        Args:
            held: the memory that it takes, which grows as the body arrives; None if that is not counted.

        Raises:
            Refusal: it is larger than *limit_bytes*, known before the first byte where it says so, or too slow, or
                there is no memory for it.
            ClientGone: the connection ended before the body did.
        """
        declared = self.declared_bytes()
        if declared is not None and declared > limit_bytes:
            raise too_large(limit_bytes)
        try:
            if declared is None:
                return await self._receive_unknown(limit_bytes, within_s, held)
            target = _aligned(declared, aligned_at)
            came = None if self._fill is None else await self._fill(target, within_s, held)
            if came is None:
                await self._receive_into(target, within_s, held)
            else:
                self.received_bytes = came
        except ConnectionError as error:
            raise ClientGone from error
        except (TimeoutError, NoRoom) as error:
            if isinstance(error, NoRoom) or (held is not None and held.is_given_up):
                raise no_room(closes=True) from error
            sentence = f"the body did not arrive within {within_s:g} s"
            raise Refusal(408, "slow", sentence, closes=True) from error
        finally:
            if held is not None:
                held.arrived()
            self.receive_s = time.monotonic() - self.began_s
        if self.received_bytes != declared:
            than = "longer" if self.received_bytes > declared else "shorter"
            raise Refusal(400, "malformed", f"the body is {than} than Content-Length says", closes=True)
        return target

    async def _receive_into(self, target: memoryview, within_s: float, held: HeldBody | None) -> None:
        more = True
        async with asyncio.timeout(within_s) as limit:
            _end_when_given_up(limit, held)
            while more and self.received_bytes <= len(target):
                chunk, more = self._chunk(await self._receive(), held)
                if self.received_bytes <= len(target):
                    target[self.received_bytes - len(chunk) : self.received_bytes] = chunk

    async def _receive_unknown(self, limit_bytes: int, within_s: float, held: HeldBody | None) -> memoryview:
        body, more = bytearray(), True
        async with asyncio.timeout(within_s) as limit:
            _end_when_given_up(limit, held)
            while more:
                chunk, more = self._chunk(await self._receive(), held)
                if self.received_bytes > limit_bytes:
                    raise too_large(limit_bytes)
                body += chunk
        return memoryview(body)

    def _chunk(self, message: Message, held: HeldBody | None) -> tuple[bytes, bool]:
        if message["type"] != "http.request":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        self.received_bytes += len(chunk)
        if held is not None:
            held.grow(len(chunk))
        return chunk, message.get("more_body", False)

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Have *gone* called if the client goes away, until told None; only after its body was received."""
        if self._tell_when_gone is not None:
            self._tell_when_gone(gone)
        elif gone is not None:
            self._waits = asyncio.ensure_future(self._disconnected())
            self._waits.add_done_callback(lambda task: None if task.cancelled() else gone())
        elif self._waits is not None:
            self._waits.cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], *parts: Buffer) -> None:
        """Send an answer; large parts are sent as they are, small ones together."""
        self.status = status
        if self._also is not None:
            headers = (*headers, self._also())
        encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        pieces = [] if self.method == "HEAD" else _joined(parts)
        for piece in pieces[:-1]:
            await self._send_part(piece, more=True)
        await self._send_part(pieces[-1] if pieces else b"", more=False)

    async def _send_part(self, part: Buffer, *, more: bool) -> None:
        self.sent_bytes += len(part)
        body = part if self._views else bytes(part)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer_json(
        self, status: int, content: object, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send *content* as JSON."""
        text = json.dumps(content).encode()
        kind = [("content-type", "application/json"), ("content-length", str(len(text)))]
        await self.answer(status, [*kind, *headers], text)


def too_large(limit_bytes: int) -> Refusal:
    """The answer to a body of more than *limit_bytes*."""
    return Refusal(413, "size", f"the body is larger than the {limit_bytes} bytes that are allowed")


def no_room(*, closes: bool = False) -> Refusal:
    """The answer to a body for which there is no memory."""
    sentence = "too many requests are being received; try again"
    return Refusal(503, "memory", sentence, closes=closes, retry_after=1)


def _end_when_given_up(limit: asyncio.Timeout, held: HeldBody | None) -> None:
    if held is not None:
        loop = asyncio.get_running_loop()
        held.on_give_up = lambda: limit.reschedule(loop.time())


def _path(scope: Scope) -> bytes:
    """The path below the place where the application is mounted, percent-encoded as it came."""
    raw: bytes | None = scope.get("raw_path")
    root = scope.get("root_path", "").encode()
    path = raw.partition(b"?")[0] if raw else scope["path"].encode()
    return path.removeprefix(root) if root else path


def _aligned(size_bytes: int, aligned_at: int) -> memoryview:
    """Untouched memory: the system provides its pages only when bytes arrive, so a false size costs nothing."""
    memory = np.empty(size_bytes + _ALIGNMENT, np.uint8)
    # numpy's own functions for the address take several times as long.
    start = -(ctypes.addressof(ctypes.c_char.from_buffer(memory.data)) + aligned_at) % _ALIGNMENT
    return memory[start : start + size_bytes].data


def _joined(parts: Iterable[Buffer]) -> list[Buffer]:
    """The bytes of *parts*, with neighbours put together while they are small."""
    pieces: list[Buffer] = []
    for part in parts:
        view = memoryview(part).cast("B")
        if pieces and len(pieces[-1]) + len(view) <= _JOINED_BYTES:
            pieces[-1] = b"".join((pieces[-1], view))
        else:
            pieces.append(view)
    return pieces
