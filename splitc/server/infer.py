"""One inference: from the head of a request to its answer."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from splitc.errors import DeadlineExceeded, InputError, ModelError, ProtocolError
from splitc.runtime.wire import InferRequest, Message, decode_request, encode_response, json_size
from splitc.server.batching import Batcher, QueueFull, too_late
from splitc.server.exchange import ClientGone, Exchange, Refusal
from splitc.server.jobs import Job, Ran
from splitc.server.limits import SizeLimits, check_inputs, size_limits, wanted_outputs
from splitc.server.metrics import Metrics
from splitc.server.options import ServerOptions
from splitc.server.parts import Part
from splitc.server.pricing import Meter

# More JSON than this is read and written beside the event loop, which would stand still meanwhile.
_QUICK_JSON_BYTES = 32 << 10
_NUMBER_BYTES = 16  # about, in JSON
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Served:
    """What the cloud does of a cut, and how large requests for it may be."""

    part: Part
    limits: SizeLimits


def serve_part(part: Part, options: ServerOptions) -> Served:
    """Prepare *part*.

    Raises:
        ProtocolError: it has a tensor that the protocol lacks.
    """
    return Served(part, size_limits(part, options.max_request_bytes))


class Inference:
    """What inferences share: the queue, and memory for bodies."""

    def __init__(
        self, options: ServerOptions, batcher: Batcher, metrics: Metrics, meter: Meter | None
    ) -> None:
        self._options = options
        self._batcher = batcher
        self._metrics = metrics
        self._meter = meter
        self._held_bytes = 0
        # Of long JSON, one at a time: while it is parsed it takes many times its bytes.
        self._long_json = asyncio.Lock()

    async def serve(self, exchange: Exchange, served: Served) -> None:
        """Receive a request, have it computed, and answer.

        Raises:
            Refusal: it cannot be served.
            ClientGone: nobody waits for the answer.
        """
        part = served.part
        _check_bundle(exchange, part)
        if self._meter is not None:
            self._meter.asked(part.name)
        with _refusals():
            self._batcher.check_room()
            json_bytes = json_size(exchange.header("inference-header-content-length"))
            limit_bytes = served.limits.body_bytes(json_bytes)
            declared = exchange.declared_bytes()
            with self._holding(limit_bytes if declared is None else min(declared, limit_bytes)):
                request = await self._request(exchange, json_bytes, limit_bytes)
                check_inputs(part, request.inputs)
                ran = await self._run(exchange, part, request)
            message = await self._encode(part, ran, request)
        await exchange.answer(
            200,
            [*message.headers().items(), ("splitc-bundle", part.bundle), _timing(exchange, ran)],
            message.json,
            *message.buffers,
        )
        self._metrics.served(part.name, receive_s=exchange.receive_s, queue_s=ran.queue_s)

    async def _request(self, exchange: Exchange, json_bytes: int | None, limit_bytes: int) -> InferRequest:
        if exchange.header("content-encoding") not in (None, "identity"):
            raise Refusal(415, "malformed", "compressed bodies are not supported; send it as it is")
        body = await exchange.body(
            limit_bytes=limit_bytes, within_s=self._options.receive_s, aligned_at=json_bytes or 0
        )
        return await self._decode(body, json_bytes)

    @contextmanager
    def _holding(self, size_bytes: int) -> Iterator[None]:
        if self._held_bytes + size_bytes > self._options.max_held_bytes:
            raise Refusal(503, "memory", "too many requests are being received; try again", retry_after=1)
        self._held_bytes += size_bytes
        try:
            yield
        finally:
            self._held_bytes -= size_bytes

    async def _decode(self, body: memoryview, json_bytes: int | None) -> InferRequest:
        if (len(body) if json_bytes is None else json_bytes) <= _QUICK_JSON_BYTES:
            return decode_request(body, json_bytes)
        async with self._long_json:
            return await asyncio.to_thread(decode_request, body, json_bytes)

    async def _encode(self, part: Part, ran: Ran, request: InferRequest) -> Message:
        binary = request.binary
        as_text = [
            array.size for name, array in ran.outputs.items() if binary is not None and name not in binary
        ]
        if sum(as_text) <= _QUICK_JSON_BYTES // _NUMBER_BYTES:
            return encode_response(part.name, ran.outputs, request)
        async with self._long_json:
            return await asyncio.to_thread(encode_response, part.name, ran.outputs, request)

    async def _run(self, exchange: Exchange, part: Part, request: InferRequest) -> Ran:
        outputs = wanted_outputs(part, request.outputs)
        deadline_s = _FOREVER if request.timeout_s is None else exchange.began_s + request.timeout_s
        job = self._batcher.submit(part, request.inputs, outputs, deadline_s)
        # If it neither waits nor goes on after this run, it is too late to take it back.
        outcome = await (self._watch(exchange, job) if job.waits or job.is_series else job.future)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _watch(self, exchange: Exchange, job: Job) -> Ran | Exception:
        """Wait for *job*, and take it back once nobody else waits for it."""

        def withdraw(reason: Callable[[], Exception]) -> None:
            if not job.future.done() and self._batcher.withdraw(job):
                job.future.set_result(reason())

        timer = None
        if job.deadline_s != _FOREVER:
            remaining_s = job.deadline_s - time.monotonic()
            timer = asyncio.get_running_loop().call_later(remaining_s, withdraw, lambda: too_late(job))
        try:
            with exchange.watched(lambda: withdraw(ClientGone)):
                return await job.future
        finally:
            if timer is not None:
                timer.cancel()


def _check_bundle(exchange: Exchange, part: Part) -> None:
    asked = exchange.header("splitc-bundle")
    if asked is not None and asked.strip().lower() != part.bundle:
        raise Refusal(
            412,
            "bundle",
            f"model '{part.name}' is of bundle {part.bundle}, not of the one that the request is for",
            splitc_bundle=part.bundle,
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what may go wrong with a request into its answer."""
    try:
        yield
    except ProtocolError as error:
        raise Refusal(error.status, "malformed", str(error)) from error
    except InputError as error:
        raise Refusal(400, "input", str(error)) from error
    except QueueFull as error:
        raise Refusal(503, "queue", str(error), retry_after=error.retry_after_s) from error
    except DeadlineExceeded as error:
        raise Refusal(504, "late", str(error)) from error
    except ModelError as error:
        raise Refusal(400, "failed", str(error)) from error


def _timing(exchange: Exchange, ran: Ran) -> tuple[str, str]:
    """The W3C header, in milliseconds."""
    spans = (("recv", exchange.receive_s), ("queue", ran.queue_s), ("compute", ran.compute_s))
    return "server-timing", ", ".join(f"{name};dur={1e3 * seconds:.3f}" for name, seconds in spans)
