"""The server of the cloud's parts of cuts, as an ASGI application: the Open Inference Protocol v2 over HTTP."""

import asyncio
import hmac
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version

from splitc.bundle.manifest import TensorEntry
from splitc.protocol.tensors import datatype
from splitc.server import routes
from splitc.server.batching import Batcher
from splitc.server.exchange import ClientGone, Exchange, Receive, Refusal, Scope, Send
from splitc.server.infer import REFUSED, Inference, ServedCut, refusal, serve_part
from splitc.server.logs import LOGGER, Once, tell
from splitc.server.metrics import Metrics
from splitc.server.options import ServerOptions
from splitc.server.pricing import Meter
from splitc.server.request_limits import MAX_HEAD_BYTES
from splitc.server.routes import Endpoint, Route, find_route
from splitc.server.tails.part import ServedPart

_PROBE_BYTES = 256 << 10
_PROBE_QUERY = re.compile(rb"(?:bytes=(\d{1,9}))?")
_NAMED_MODELS = 8
# How long the compute thread may take to end, after all requests are answered or given up.
_CLOSING_S = 1.0
# Reasons that tell about the client or this server, not only about the current load.
_LOGGED = {"token", "malformed", "size", "slow", "bundle", "input", "failed", "head"}


def application(
    parts: Sequence[ServedPart], options: ServerOptions, *, clock: Callable[[], float] = time.monotonic
) -> "Application":
    """Make the ASGI application that serves *parts*.

    Args:
        clock: monotonic seconds, by which the price changes.

    Raises:
        ProtocolError: a part has a tensor that the protocol lacks.
    """
    return Application(parts, options, clock)


class Application:
    """Serves the cloud's parts of cuts; after `drain` it accepts no new requests.

    Attributes:
        parts: what is served now; see `replace`.
    """

    def __init__(
        self, parts: Sequence[ServedPart], options: ServerOptions, clock: Callable[[], float]
    ) -> None:
        self._options = options
        self._draining = False
        self._in_flight = 0
        self._once = Once()
        self._meter = Meter(parts, options.utilisation, clock) if options.utilisation is not None else None
        self._metrics = Metrics(
            queued=lambda: len(self._batcher),
            in_flight=lambda: self._in_flight,
            price=self._meter.price if self._meter is not None else None,
        )
        self._batcher = Batcher(max_queue=options.max_queue, on_run=self._metrics.ran)
        self._inference = Inference(options, self._batcher, self._metrics, self._meter)
        self.parts: tuple[ServedPart, ...] = ()
        self._named: dict[str, ServedCut] = {}
        self._paired: dict[str, ServedCut] = {}
        self.replace(parts)
        self._noise = os.urandom(_PROBE_BYTES)  # random, so that nothing on the way can compress it
        self._handlers: dict[Endpoint, Callable[[Exchange, Route], Awaitable[None]]] = {
            "server": self._server,
            "live": self._live,
            "ready": self._ready,
            "metrics": self._show_metrics,
            "probe": self._probe,
            "model": self._model,
            "model ready": self._model_ready,
            "infer": self._infer,
        }

    @property
    def in_flight(self) -> int:
        """Number of requests that have begun and are not answered yet."""
        return self._in_flight

    def drain(self) -> None:
        """Refuse new requests from now on, and report that the server is not ready."""
        self._draining = True

    def replace(self, parts: Sequence[ServedPart]) -> None:
        """Serve *parts* from now on; requests that have begun are answered by the parts before.

        Where two have one name, clients that send no digest get the first.

        Raises:
            ProtocolError: a part has a tensor that the protocol lacks.
        """
        served = [serve_part(part, self._options) for part in reversed(parts)]
        self.parts = tuple(parts)
        self._named = {item.part.name: item for item in served}
        self._paired = {item.part.pairing: item for item in served}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            await self._live_and_die(receive, send)
        elif scope["type"] == "http":
            self._in_flight += 1
            try:
                header = self._meter.header if self._meter is not None else None
                await self._serve(Exchange(scope, receive, send, header))
            finally:
                self._in_flight -= 1
        else:
            raise ValueError(f"this application does not speak {scope['type']}")

    async def _live_and_die(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await asyncio.to_thread(self._batcher.close, _CLOSING_S)
        await send({"type": "lifespan.shutdown.complete"})

    # --- any request ---

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._handled(exchange)
        except Refusal as found:
            await self._refuse(exchange, found)
        except REFUSED as error:
            await self._refuse(exchange, refusal(error))
        except ClientGone:
            self._metrics.refused("gone")
            return
        except asyncio.CancelledError:
            if not self._draining or exchange.status:
                raise
            await self._refuse(exchange, _ends())  # the time for draining is over
        except Exception as error:  # whatever failed, the server must go on serving
            if self._once.first("failure", exchange.model, type(error).__name__):
                tell(logging.ERROR, "failure", error=error, model=exchange.model, peer=exchange.peer)
            if exchange.status:
                raise  # a part of the answer was sent: only closing the connection can show the error
            await self._refuse(exchange, Refusal(500, "failure", "this server failed; see its log"))
        self._metrics.answered(
            exchange.model,
            exchange.status,
            received_bytes=exchange.received_bytes,
            sent_bytes=exchange.sent_bytes,
        )
        if LOGGER.isEnabledFor(logging.DEBUG):
            tell(logging.DEBUG, "answered", model=exchange.model, status=exchange.status, peer=exchange.peer)

    def _handled(self, exchange: Exchange) -> Awaitable[None]:
        """What answers it, to be awaited."""
        if exchange.head_bytes > MAX_HEAD_BYTES:
            raise Refusal(431, "head", f"the headers are larger than {MAX_HEAD_BYTES} bytes", closes=True)
        route = find_route(exchange.path)
        if route is None or route.endpoint not in routes.OPEN:
            self._check_token(exchange)
        if route is None:
            raise Refusal(404, "path", "there is nothing at this path; /v2 tells what this server is")
        methods = routes.METHODS[route.endpoint]
        if exchange.method not in methods:
            allowed = ", ".join(methods)
            raise Refusal(405, "method", f"this path takes {allowed} only", allow=allowed)
        return self._handlers[route.endpoint](exchange, route)

    def _check_token(self, exchange: Exchange) -> None:
        if self._options.token is None:
            return
        scheme, _, token = exchange.headers.get(b"authorization", b"").partition(b" ")
        known = hmac.compare_digest(token.strip(), self._options.token.encode())
        if not known or scheme.lower() != b"bearer":
            sentence = "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'"
            raise Refusal(401, "token", sentence, www_authenticate='Bearer realm="splitc"')

    async def _refuse(self, exchange: Exchange, found: Refusal) -> None:
        self._metrics.refused(found.reason)
        if found.reason in _LOGGED and self._once.first(exchange.peer, found.reason):
            tell(
                logging.WARNING,
                "refused",
                reason=found.reason,
                status=found.status,
                said=found,
                model=exchange.model,
                peer=exchange.peer,
            )
        headers = [*found.headers.items(), *([("connection", "close")] if found.closes else [])]
        await exchange.answer_json(found.status, {"error": str(found)}, headers)

    def _find(self, exchange: Exchange, route: Route) -> ServedCut:
        """The part that has the digest that is asked for, whatever it is called here; without a digest, by name."""
        asked = exchange.header("splitc-pairing")
        named = self._named.get(route.model)
        served = named if asked is None else self._paired.get(asked.strip().lower())
        if served is None and named is not None:
            exchange.model = route.model
            raise Refusal(
                412,
                "bundle",
                f"no part of '{route.model}' here computes what the request is for; "
                "serve the bundle that the app was built with, too",
                splitc_pairing=named.part.pairing,
            )
        if served is None:
            names = sorted(self._named)
            more = ", ..." if len(names) > _NAMED_MODELS else ""
            raise Refusal(
                404, "model", f"there is no such model here, but {', '.join(names[:_NAMED_MODELS])}{more}"
            )
        exchange.model = served.part.name
        return served

    def _check_open(self) -> None:
        if self._draining:
            raise _ends()

    # --- what a path asks for ---

    async def _server(self, exchange: Exchange, _: Route) -> None:
        content = {"name": "splitc", "version": version("splitc"), "extensions": ["binary_tensor_data"]}
        await exchange.answer_json(200, content)

    async def _live(self, exchange: Exchange, _: Route) -> None:
        await exchange.answer_json(200, {"live": True})

    async def _ready(self, exchange: Exchange, _: Route) -> None:
        self._check_open()
        await exchange.answer_json(200, {"ready": True})

    async def _show_metrics(self, exchange: Exchange, _: Route) -> None:
        text, kind = self._metrics.text(exchange.header("accept") or "")
        await exchange.answer(200, [("content-type", kind), ("content-length", str(len(text)))], text)

    async def _probe(self, exchange: Exchange, _: Route) -> None:
        """Receive and send random bytes, for a client that measures the link."""
        self._check_open()
        query = _PROBE_QUERY.fullmatch(exchange.query)
        wanted = int(query[1] or 0) if query else -1
        if not 0 <= wanted <= _PROBE_BYTES:
            raise Refusal(400, "malformed", f"ask for bytes=N, N from 0 to {_PROBE_BYTES}")
        await exchange.body(limit_bytes=_PROBE_BYTES, within_s=self._options.receive_s)
        kind = [("content-type", "application/octet-stream"), ("content-length", str(wanted))]
        timing = ("server-timing", f"recv;dur={1e3 * exchange.receive_s:.3f}")
        await exchange.answer(200, [*kind, timing], memoryview(self._noise)[:wanted])

    async def _model(self, exchange: Exchange, route: Route) -> None:
        part = self._find(exchange, route).part
        await exchange.answer_json(200, _metadata(part), [("splitc-pairing", part.pairing)])

    async def _model_ready(self, exchange: Exchange, route: Route) -> None:
        self._find(exchange, route)
        self._check_open()
        await exchange.answer_json(200, {"name": route.model, "ready": True})

    def _infer(self, exchange: Exchange, route: Route) -> Awaitable[None]:
        served = self._find(exchange, route)
        self._check_open()
        return self._inference.serve(exchange, served)


def _ends() -> Refusal:
    return Refusal(503, "drain", "this server is about to end", closes=True, retry_after=1)


def _metadata(part: ServedPart) -> dict[str, object]:
    return {
        "name": part.name,
        "versions": [routes.VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [_described(entry) for entry in part.inputs],
        "outputs": [_described(entry) for entry in part.outputs],
    }


def _described(entry: TensorEntry) -> dict[str, object]:
    shape = [-1 if isinstance(dim, str) else dim for dim in entry.shape]
    return {"name": entry.name, "datatype": datatype(entry.dtype), "shape": shape}
