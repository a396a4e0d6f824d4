"""One inference: from the head of a request to its answer."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from splitc.common.errors import DeadlineExceeded, InputError, ModelError, ProtocolError
from splitc.protocol.messages import InferRequest, decode_request, encode_response, json_size
from splitc.server.batching import Batcher, QueueFull, too_late
from splitc.server.body_memory import BodyMemory, HeldBody, NoRoom
from splitc.server.exchange import ClientGone, Exchange, Refusal, no_room
from splitc.server.jobs import Ran, ServerJob
from splitc.server.metrics import Metrics
from splitc.server.options import ServerOptions
from splitc.server.pricing import Meter
from splitc.server.request_limits import SizeLimits, check_inputs, check_made, size_limits, wanted_outputs
from splitc.server.tails.part import ServedPart

# JSON larger than this is read and written in another thread, so that it does not block the event loop.
_QUICK_JSON_BYTES = 32 << 10
_NUMBER_BYTES = 16  # about, in JSON
_FOREVER = float("inf")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedCut:
    """The cloud's part of a cut, how large requests for it may be, and what one takes at least."""

    part: ServedPart
    limits: SizeLimits
    work_s: float


def serve_part(part: ServedPart, options: ServerOptions) -> ServedCut:
    """Prepare *part*.

    Raises:
        ProtocolError: it has a tensor that the protocol lacks.
    """
    return ServedCut(part, size_limits(part, options.max_request_bytes), part.work_s)


class Inference:
    """State that all inferences share: the queue, and the memory for bodies."""

    def __init__(
        self, options: ServerOptions, batcher: Batcher, metrics: Metrics, meter: Meter | None
    ) -> None:
        self._options = options
        self._batcher = batcher
        self._metrics = metrics
        self._meter = meter
        self._memory = BodyMemory(options.max_held_bytes)
        # Long JSON is parsed one text at a time, because that takes many times its size in memory.
        self._long_json = asyncio.Lock()

    async def serve(self, exchange: Exchange, served: ServedCut) -> None:
        """Receive a request, have it computed, and answer.

        Raises:
            Refusal, *REFUSED: it cannot be served.
            ClientGone: the client has closed the connection.
        """
        part = served.part
        if self._meter is not None:
            self._meter.asked(served.work_s)
        self._batcher.check_room()
        json_bytes = json_size(exchange.header("inference-header-content-length"))
        limit_bytes = served.limits.body_bytes(json_bytes)
        declared = exchange.declared_bytes()
        held = self._hold(min(declared or 0, limit_bytes))
        try:
            request = await self._request(exchange, json_bytes, limit_bytes, held)
            sizes = check_inputs(part, request.inputs)
            ran = await self._run(exchange, part, request)
            _check_outputs(part, ran, sizes)
        finally:
            held.release()
        if _text_numbers(ran, request) <= _QUICK_JSON_BYTES // _NUMBER_BYTES:
            message = encode_response(part.name, ran.outputs, request)
        else:
            message = await self._beside(encode_response, part.name, ran.outputs, request)
        await exchange.answer(
            200,
            [*message.headers().items(), ("splitc-pairing", part.pairing), _timing(exchange, ran)],
            message.json,
            *message.buffers,
        )
        self._metrics.served(part.name, receive_s=exchange.receive_s, queue_s=ran.queue_s)

    async def _request(
        self, exchange: Exchange, json_bytes: int | None, limit_bytes: int, held: HeldBody
    ) -> InferRequest:
        if exchange.header("content-encoding") not in (None, "identity"):
            raise Refusal(415, "malformed", "compressed bodies are not supported; send the body uncompressed")
        body = await exchange.body(
            limit_bytes=limit_bytes,
            within_s=self._options.receive_s,
            aligned_at=json_bytes or 0,
            held=held,
        )
        if (len(body) if json_bytes is None else json_bytes) <= _QUICK_JSON_BYTES:
            return decode_request(body, json_bytes)
        return await self._beside(decode_request, body, json_bytes)

    def _hold(self, announced_bytes: int) -> HeldBody:
        try:
            return self._memory.hold(announced_bytes)
        except NoRoom as error:
            raise no_room() from error

    async def _beside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read or write long JSON in another thread."""
        async with self._long_json:
            return await asyncio.to_thread(function, *args, **kwargs)

    async def _run(self, exchange: Exchange, part: ServedPart, request: InferRequest) -> Ran:
        outputs = wanted_outputs(part, request.outputs)
        deadline_s = _FOREVER if request.timeout_s is None else exchange.began_s + request.timeout_s
        job = self._batcher.submit(part, request.inputs, outputs, deadline_s)
        # A job that is in its last run can no longer be withdrawn.
        outcome = await (self._watch(exchange, job) if job.waits or job.is_series else job.future)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _watch(self, exchange: Exchange, job: ServerJob) -> Ran | Exception:
        """Wait for *job*, and withdraw it as soon as nobody waits for it."""
        timer = None
        if job.deadline_s != _FOREVER:
            remaining_s = job.deadline_s - time.monotonic()
            timer = asyncio.get_running_loop().call_later(
                remaining_s, self._withdraw, job, partial(too_late, job)
            )
        exchange.watch(partial(self._withdraw, job, ClientGone))
        try:
            return await job.future
        finally:
            exchange.watch(None)
            if timer is not None:
                timer.cancel()

    def _withdraw(self, job: ServerJob, reason: Callable[[], Exception]) -> None:
        if not job.future.done() and self._batcher.withdraw(job):
            job.future.set_result(reason())


def _check_outputs(part: ServedPart, ran: Ran, sizes: dict[str, int]) -> None:
    """Check what the model made: a wrong shape is the fault of the model, not of the request."""
    try:
        check_made(part, ran.outputs, sizes)
    except ModelError as error:
        raise Refusal(500, "failed", str(error)) from error


REFUSED = (ProtocolError, InputError, QueueFull, DeadlineExceeded, ModelError)
"""Errors of a request, besides `Refusal`, that the server answers with a status and a message."""


def refusal(error: Exception) -> Refusal:
    """The answer to a request for which one of `REFUSED` was raised."""
    match error:
        case ProtocolError():
            return Refusal(error.status, "malformed", str(error))
        case InputError():
            return Refusal(400, "input", str(error))
        case QueueFull():
            return Refusal(503, "queue", str(error), retry_after=error.retry_after_s)
        case DeadlineExceeded():
            return Refusal(504, "late", str(error))
        case _:
            return Refusal(400, "failed", str(error))


def _text_numbers(ran: Ran, request: InferRequest) -> int:
    """How many numbers of its outputs are wanted as JSON."""
    binary = request.binary
    if binary is None:
        return 0
    return sum(array.size for name, array in ran.outputs.items() if name not in binary)


def _timing(exchange: Exchange, ran: Ran) -> tuple[str, str]:
    """The W3C header, in milliseconds."""
    recv_ms, queue_ms, compute_ms = 1e3 * exchange.receive_s, 1e3 * ran.queue_s, 1e3 * ran.compute_s
    return "server-timing", f"recv;dur={recv_ms:.3f}, queue;dur={queue_ms:.3f}, compute;dur={compute_ms:.3f}"
