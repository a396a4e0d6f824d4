"""What the application makes of any ASGI server, also one that is not uvicorn."""

import asyncio
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from splitc.protocol.messages import decode_response, encode_request
from splitc.server.app import Application, application
from splitc.server.exchange import VIEWS, ClientGone, Exchange, Refusal
from splitc.server.options import ServerOptions
from tests.server.serving import Gated, joined, make_part, ones, until

BODY = joined(encode_request(ones(), []))


class Served:
    """An ASGI server for one request: gives *messages*, keeps what is sent."""

    def __init__(self, *messages: dict[str, Any], **scope: Any) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v2/models/made.c1/infer",
            "headers": [],
            **scope,
        }
        self.messages = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.scope, self.receive, self.send)


def pieces(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": number < last}
        for number, body in enumerate(bodies)
    ]


def serve(served: Served, *, app: Application | None = None) -> None:
    app = app or application([make_part()], ServerOptions())
    asyncio.run(app(served.scope, served.receive, served.send))


def length(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % size)]


@pytest.mark.parametrize("views", [False, True])
def test_only_who_takes_views_gets_them(views: bool) -> None:
    json_size = len(encode_request(ones(), []).json)
    headers = [*length(len(BODY)), (b"inference-header-content-length", b"%d" % json_size)]
    served = Served(*pieces(BODY), headers=headers, extensions={VIEWS: {}} if views else {})
    serve(served)
    start, *rest = served.sent
    assert start["status"] == 200
    assert all(isinstance(message["body"], (bytes, memoryview) if views else bytes) for message in rest)
    got = dict(start["headers"])
    body = b"".join(bytes(message["body"]) for message in rest)
    assert int(got[b"content-length"]) == len(body)
    outputs = decode_response(body, int(got[b"inference-header-content-length"]))
    np.testing.assert_array_equal(outputs["y"], 2 * ones()["x"])


@pytest.mark.parametrize(
    ("bodies", "declared", "sentence"),
    [
        ([b"ab", b"cd"], 3, "the body is longer than Content-Length says"),
        ([b"ab", b""], 3, "the body is shorter than Content-Length says"),
    ],
)
def test_servers_that_do_not_count(bodies: list[bytes], declared: int, sentence: str) -> None:
    exchange = Served(*pieces(*bodies), headers=length(declared)).exchange
    with pytest.raises(Refusal, match=sentence) as caught:
        asyncio.run(exchange.body(limit_bytes=10, within_s=10))
    assert caught.value.status == 400
    assert caught.value.closes


@pytest.mark.parametrize("value", [b"", b"-1", b"1_0", b"0x1", b"9" * 20, "٣".encode()])
def test_a_content_length_that_is_none(value: bytes) -> None:
    with pytest.raises(Refusal, match="Content-Length is not a number of bytes"):
        Served(headers=[(b"content-length", value)]).exchange.declared_bytes()


@pytest.mark.parametrize("headers", [[], length(4)], ids=["unknown", "declared"])
def test_bodies_in_pieces(headers: Iterable[tuple[bytes, bytes]]) -> None:
    exchange = Served(*pieces(b"a", b"", b"bcd"), headers=headers).exchange
    body = asyncio.run(exchange.body(limit_bytes=4, within_s=10))
    assert bytes(body) == b"abcd"
    assert exchange.received_bytes == 4


def test_the_limit_holds_while_the_body_comes() -> None:
    exchange = Served(*pieces(b"abc", b"de")).exchange
    with pytest.raises(Refusal, match="larger than the 4 bytes"):
        asyncio.run(exchange.body(limit_bytes=4, within_s=10))


def test_a_body_that_stops() -> None:
    served = Served({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"})
    with pytest.raises(ClientGone):
        asyncio.run(served.exchange.body(limit_bytes=4, within_s=10))
    slow = Served({"type": "http.request", "body": b"a", "more_body": True}).exchange
    with pytest.raises(Refusal, match=r"did not arrive within 0\.01 s"):
        asyncio.run(slow.body(limit_bytes=4, within_s=0.01))


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 100])
def test_the_tensors_of_a_body_are_aligned(offset: int) -> None:
    exchange = Served(*pieces(bytes(200)), headers=length(200)).exchange
    body = asyncio.run(exchange.body(limit_bytes=200, within_s=10, aligned_at=offset))
    assert np.frombuffer(body[offset:], np.uint8).ctypes.data % 64 == 0


def test_small_parts_are_sent_together_and_large_ones_as_they_are() -> None:
    served = Served(extensions={VIEWS: {}})
    small, large = bytes(1000), bytes(100_000)
    asyncio.run(served.exchange.answer(200, [], small, small, large, small, small))
    sent = [message["body"] for message in served.sent[1:]]
    assert [len(body) for body in sent] == [2000, 100_000, 2000]
    assert sent[1].obj is large
    assert [message["more_body"] for message in served.sent[1:]] == [True, True, False]


@pytest.mark.parametrize(
    "scope",
    [
        {"path": "/v2/health/live"},
        {"path": "/below/v2/health/live", "root_path": "/below"},
        {"path": "/other", "raw_path": b"/v2/health/live"},
        {"path": "/below/other", "raw_path": b"/below/v2/health/live?a=b", "root_path": "/below"},
    ],
)
def test_where_the_application_is_mounted(scope: dict[str, Any]) -> None:
    served = Served(method="GET", **scope)
    serve(served)
    assert served.sent[0]["status"] == 200


def test_who_leaves_the_queue_of_any_server_costs_no_work() -> None:
    gated = Gated()
    app = application([make_part(run=gated, max_batch=1)], ServerOptions())
    size = len(encode_request(ones(), []).json)
    headers = [(b"inference-header-content-length", b"%d" % size)]

    async def go() -> list[Served]:
        stays = Served(*pieces(BODY), headers=headers)
        leaves = Served(*pieces(BODY), {"type": "http.disconnect"}, headers=headers)
        first = asyncio.ensure_future(app(stays.scope, stays.receive, stays.send))
        await asyncio.to_thread(until, lambda: bool(gated.rows), "the first run")
        await app(leaves.scope, leaves.receive, leaves.send)
        gated.gate.set()
        await first
        return [stays, leaves]

    stays, leaves = asyncio.run(go())
    assert stays.sent[0]["status"] == 200
    assert not leaves.sent
    assert gated.rows == [1]


def test_the_life_of_a_server() -> None:
    app = application([make_part()], ServerOptions())
    served = Served({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, type="lifespan")
    serve(served, app=app)
    assert [message["type"] for message in served.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    late = Served(*pieces(BODY))
    serve(late, app=app)
    assert late.sent[0]["status"] == 503


def test_nothing_but_http() -> None:
    with pytest.raises(ValueError, match="does not speak websocket"):
        serve(Served(type="websocket"))


def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    served = Served(
        *pieces(BODY),
        headers=[(b"inference-header-content-length", b"%d" % len(encode_request(ones(), []).json))],
    )

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionError("broken")

    with pytest.raises(ConnectionError, match="broken"):
        asyncio.run(application([make_part()], ServerOptions())(served.scope, served.receive, send))


def test_a_server_that_cancels_is_obeyed() -> None:
    app = application([make_part()], ServerOptions())

    async def go(served: Served) -> None:
        task = asyncio.ensure_future(app(served.scope, served.receive, served.send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    served = Served()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(go(served))
    assert not served.sent
    assert app.in_flight == 0
