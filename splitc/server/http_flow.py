"""What passes over a connection: answers that go out, bodies that come in, and when to read on."""

import asyncio
from collections.abc import Callable, Sized

from uvicorn.protocols.http.flow_control import FlowControl

from splitc.protocol.tensors import Buffer
from splitc.server.body_memory import HeldBody

_INTERIM = b"HTTP/1.1 1"


class AnswerWriter:
    """A transport that collects an answer and sends it with one system call, so that head and body arrive together."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[Buffer] = []
        self.is_closing = transport.is_closing

    def write(self, data: Buffer) -> None:
        """Keep *data* until `flush`; an interim answer, such as 100 Continue, is sent at once."""
        is_first = not self._parts
        self._parts.append(data)
        if is_first and data[: len(_INTERIM)] == _INTERIM:
            self.flush()

    def flush(self) -> None:
        """Send what was written."""
        parts, self._parts = self._parts, []
        if parts:
            self._transport.writelines(parts)

    def close(self) -> None:
        """Send what was written, then close the connection."""
        self.flush()
        self._transport.close()


class PlacedBody:
    """The body of a request, which is received directly into *target*.

    Attributes:
        came: number of bytes received so far; bytes beyond *target* are counted but not kept.
        whole: a future that is done when all of the body has arrived; None if nobody waits for it.
    """

    def __init__(self, target: memoryview, held: HeldBody | None) -> None:
        self._target = target
        self._held = held
        self.whole: asyncio.Future[None] | None = None
        self.came = 0

    @property
    def left(self) -> memoryview:
        """The part of *target* that is still to be filled."""
        return self._target[self.came :]

    def add(self, piece: Buffer) -> None:
        """Append the received *piece*; see `grow` for errors."""
        before = self.came
        self.grow(len(piece))
        if self.came <= len(self._target):
            self._target[before : self.came] = piece

    def grow(self, count: int) -> None:
        """Record that *count* bytes more lie in *target*.

        Raises:
            NoRoom: its memory is given up.
        """
        self.came += count
        if self._held is not None:
            self._held.grow(count)

    def end(self, error: Exception | None = None) -> None:
        """Record that the body is complete, or that it failed with *error*."""
        if self.whole is not None and not self.whole.done():
            if error is None:
                self.whole.set_result(None)
            else:
                self.whole.set_exception(error)


class UnreadAnswers:
    """What clients have not read yet of their answers, and how much of that the server keeps for all together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: dict[asyncio.Transport, Callable[[], None]] = {}  # who has waited longest is first

    def wait(self, transport: asyncio.Transport, cut_off: Callable[[], None]) -> None:
        """Record that *transport* waits for its client to read. If all keep too much, cut off who has waited longest."""
        self._waiting[transport] = cut_off
        sizes = {each: each.get_write_buffer_size() for each in self._waiting}
        too_many_bytes = sum(sizes.values()) - self._limit_bytes
        for each, size in sizes.items():
            if too_many_bytes <= 0:
                return
            too_many_bytes -= size
            self._waiting.pop(each)()

    def end(self, transport: asyncio.Transport) -> None:
        """Record that the client has read, or is gone."""
        self._waiting.pop(transport, None)


class PipelineFlow(FlowControl):
    """Does not read on while requests wait for the answers before theirs, so that these cannot become too many."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on if no request waits."""
        if not self._pipeline:
            super().resume_reading()
