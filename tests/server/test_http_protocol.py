"""Clients that are slow, loud, too many, or no HTTP clients at all."""

import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np
import pytest

from splitc.bundle.manifest import TensorEntry
from splitc.common.values import Array
from splitc.protocol.messages import encode_request
from splitc.server.http_protocol import Protocol
from splitc.server.options import ListenOptions, ServerOptions
from tests.server.serving import (
    LIMIT_S,
    Running,
    head,
    infer_once,
    joined,
    make_part,
    once,
    ones,
    receive_all,
    running,
    until,
)

INFER = "/v2/models/made.c1/infer"
SHORT = ListenOptions(port=0, head_s=1.0, request_s=1.5, idle_s=30)


def asked(*lines: str) -> bytes:
    """A request, whole, with further *lines* in its head."""
    message = encode_request(ones(), [])
    return head(
        "POST", INFER, *(f"{name}: {value}" for name, value in message.headers().items()), *lines
    ) + joined(message)


def test_a_head_that_does_not_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitc.server")
    with running(make_part(), listen=SHORT) as server:
        with server.dial() as silent, server.dial() as trickling:
            for byte in b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nX: " + 1000 * b"x":
                try:
                    trickling.sendall(bytes([byte]))
                except OSError:
                    break  # cut off
                time.sleep(0.01)
            else:
                pytest.fail("a client that trickles its head was never cut off")
            assert receive_all(silent) == b""
        assert once(server, "GET", "/v2/health/live").status == 200
    told = [record for record in caplog.records if getattr(record, "fields", {}).get("said") == "is too slow"]
    assert len(told) == 1  # of two, from one peer


def test_a_second_head_that_does_not_come() -> None:
    with running(make_part(), listen=SHORT) as server, server.dial() as sock:
        sock.sendall(head("GET", "/v2/health/live") + b"GET /v2")
        assert receive_all(sock).count(b"HTTP/1.1 200 OK") == 1


def test_a_body_that_does_not_come_is_told_so() -> None:
    options = ServerOptions(receive_s=0.2)
    with running(make_part(), options=options) as server, server.dial() as sock:
        sock.sendall(head("POST", INFER, "Content-Length: 100") + b"x")
        answer = receive_all(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.2 s" in answer


def test_a_limit_that_is_shorter_than_what_was_allowed_before() -> None:
    options, listen = ServerOptions(receive_s=0.2), ListenOptions(port=0, head_s=1000, request_s=1000)
    with running(make_part(), options=options, listen=listen) as server, server.dial() as sock:
        sock.sendall(asked())
        sock.sendall(head("POST", INFER, "Content-Length: 100") + b"x")
        assert b"HTTP/1.1 408 " in receive_all(sock)
        assert server.value("splitc_refusals_total", reason="slow") == 1


def test_a_body_in_pieces_and_requests_that_do_not_wait_for_answers() -> None:
    last = asked("Connection: close")
    with running(make_part()) as server, server.dial() as sock:
        first = asked()
        for start in range(0, len(first), 97):
            sock.sendall(first[start : start + 97])
            time.sleep(0.005)
        sock.sendall(asked() + asked() + last)
        answers = receive_all(sock)
        assert answers.count(b"HTTP/1.1 200 OK") == 4
        assert answers.count((2 * ones()["x"]).tobytes()) == 4
        body_bytes = len(joined(encode_request(ones(), [])))
        assert server.value("splitc_received_bytes_total", model="made.c1") == 4 * body_bytes


def test_a_request_right_behind_the_end_of_a_body() -> None:
    with running(make_part()) as server, server.dial() as sock:
        first = asked()
        sock.sendall(first[:-1])
        until(lambda: server.app.in_flight == 1, "the request has come")
        time.sleep(0.05)  # for its body to be waited for
        sock.sendall(first[-1:] + asked("Connection: close"))
        answers = receive_all(sock)
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert answers.count((2 * ones()["x"]).tobytes()) == 2


def test_a_large_body_goes_right_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little but its first bytes, which come with the head, passes through the parser; what follows it does."""
    parsed: list[int] = []
    parse = Protocol.on_body

    def counted(protocol: Protocol, body: bytes) -> None:
        parsed.append(len(body))
        parse(protocol, body)

    monkeypatch.setattr(Protocol, "on_body", counted)
    wide = (TensorEntry("x", "float32", ("n", 3), 1_200_000),)
    inputs = {"x": np.arange(300_000, dtype=np.float32).reshape(-1, 3)}
    with running(make_part(inputs=wide)) as server, server.dial() as sock:
        message = encode_request(inputs, [])
        large = head("POST", INFER, *(f"{name}: {value}" for name, value in message.headers().items()))
        sock.sendall(large + joined(message) + large + joined(message) + asked("Connection: close"))
        answers = receive_all(sock)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count((2 * inputs["x"]).tobytes()) == 2
    assert sum(parsed) < 50_000  # of 2.4 MB


def test_a_body_that_was_given_up_is_no_request() -> None:
    """What still comes of it, and looks like one, is not read as one."""
    hidden = head("GET", "/v2/health/live")
    with running(make_part(), options=ServerOptions(receive_s=0.2)) as server, server.dial() as sock:
        sock.sendall(head("POST", INFER, f"Content-Length: {2 * len(hidden)}") + hidden)
        until(lambda: server.value("splitc_refusals_total", reason="slow") == 1, "the body was given up")
        with suppress(OSError):
            sock.sendall(hidden)
        assert receive_all(sock).count(b"HTTP/1.1 ") == 1


def test_a_client_that_leaves_within_a_body() -> None:
    with running(make_part()) as server:
        with server.dial() as sock:
            sock.sendall(asked()[:-1])
            until(lambda: server.app.in_flight == 1, "the request has come")
        until(lambda: server.value("splitc_refusals_total", reason="gone") == 1, "the server sees it")
        assert server.app.in_flight == 0
        np.testing.assert_array_equal(infer_once(server, "made.c1", ones()).outputs()["y"], 2 * ones()["x"])


def test_an_answer_is_one_piece() -> None:
    with running(make_part()) as server, server.dial() as sock:
        sock.sendall(asked())
        assert sock.recv(1 << 16).endswith((2 * ones()["x"]).tobytes())
        information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        segments_with_data: int = struct.unpack_from("I", information, 152)[0]  # tcpi_data_segs_in
        assert segments_with_data == 1


def test_a_body_that_trickles_after_it_was_refused() -> None:
    with running(make_part(), listen=SHORT) as server, server.dial() as sock:
        sock.sendall(head("POST", "/nothing", "Content-Length: 1000000"))
        end_s = time.monotonic() + LIMIT_S
        try:
            while time.monotonic() < end_s:
                sock.sendall(b"x")
                time.sleep(0.01)
            pytest.fail("a client that trickles its body was never cut off")
        except OSError:
            pass  # cut off
        until(lambda: not server.server.server_state.connections, "a closed connection")


def test_a_client_that_does_not_read() -> None:
    wide = (TensorEntry("x", "float32", ("n", 3), 12_000_000),)
    with running(make_part(inputs=wide, max_batch=1), listen=SHORT) as server:
        message = encode_request(ones(1_000_000), [])
        lines = [f"{name}: {value}" for name, value in message.headers().items()]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            sock.connect(server.address)
            sock.sendall(head("POST", INFER, *lines) + joined(message))
            until(lambda: server.app.in_flight == 1, "the request")
            until(lambda: server.app.in_flight == 0, "the end of it")
        assert infer_once(server, "made.c1", ones()).status == 200


def test_a_connection_may_be_idle_longer_than_a_head_may_take() -> None:
    with running(make_part(), listen=SHORT) as server, server.dial() as sock:
        for _ in range(2):
            sock.sendall(head("GET", "/v2/health/live"))
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            time.sleep(2 * SHORT.head_s)


def test_an_idle_connection_is_closed_in_the_end() -> None:
    with running(make_part(), listen=ListenOptions(port=0, idle_s=0)) as server, server.dial() as sock:
        sock.sendall(head("GET", "/v2/health/live"))
        assert receive_all(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"\0" * 1000,
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://example.org HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\0\r\n\r\n",
    ],
    ids=range(14),
)
def test_what_is_not_http(garbage: bytes) -> None:
    with running(make_part()) as server:
        with server.dial() as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            answer = receive_all(sock)
        assert not answer or re.match(rb"HTTP/1.1 4\d\d ", answer), answer
        assert infer_once(server, "made.c1", ones()).status == 200


def test_what_is_not_http_is_answered_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitc.server")
    with running(make_part()) as server:
        for _ in range(3):
            with server.dial() as sock:
                sock.sendall(b"hello\r\n\r\n")
                answer = receive_all(sock)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answer.endswith(b'\r\n\r\n{"error": "Invalid HTTP request received."}')
    assert [record.message for record in caplog.records if record.name == "splitc.server"] == [
        "start",
        "refused",
        "stop",
    ]


@pytest.mark.parametrize(
    "piece",
    [lambda number: f"X-{number}: {'x' * 1000}\r\n".encode(), lambda _: 1000 * b"x"],
    ids=["headers", "one header"],
)
def test_a_head_without_end(piece: Callable[[int], bytes]) -> None:
    with running(make_part()) as server:
        with server.dial() as sock:
            sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: ")
            for number in range(1000):
                try:
                    sock.sendall(piece(number))
                except OSError:
                    break
            assert receive_all(sock).startswith(b"HTTP/1.1 431 ")
        assert once(server, "GET", "/v2").status == 200


def test_too_many_connections() -> None:
    with running(make_part(), listen=ListenOptions(port=0, max_connections=2)) as server:
        kept = [_greeted(server) for _ in range(2)]
        try:
            answer = once(server, "GET", "/v2/health/live")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.error == "this server has too many connections; try again"
            more = [server.dial() for _ in range(80)]
            try:
                assert receive_all(more[-1]) == b""  # cut off without a word
                kept[0].sendall(head("GET", "/v2/health/live"))
                assert kept[0].recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            finally:
                for sock in more:
                    sock.close()
        finally:
            for sock in kept:
                sock.close()
        until(lambda: not server.server.server_state.connections, "closed connections")
        assert once(server, "GET", "/v2/health/live").status == 200


def test_the_connection_that_is_idle_for_longest_makes_room() -> None:
    listen = ListenOptions(port=0, max_connections=2, least_idle_s=0.0)
    with running(make_part(), listen=listen) as server, ExitStack() as stack:
        first = stack.enter_context(_greeted(server))
        time.sleep(0.05)  # more than the clock's resolution
        second = stack.enter_context(_greeted(server))
        assert once(server, "GET", "/v2/health/live").status == 200
        assert receive_all(first) == b""
        second.sendall(head("GET", "/v2/health/live"))
        assert second.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_connections_with_a_request_under_way_make_no_room() -> None:
    listen = ListenOptions(port=0, max_connections=2, least_idle_s=0.0)
    with running(make_part(), listen=listen) as server, ExitStack() as stack:
        within_head, within_body = (stack.enter_context(_greeted(server)) for _ in range(2))
        within_head.sendall(b"GET /v2/health")
        within_body.sendall(head("POST", INFER, "Content-Length: 100"))
        until(lambda: server.app.in_flight == 1, "the head has come")
        time.sleep(0.05)  # for the other as well
        assert once(server, "GET", "/v2/health/live").status == 503


def _greeted(server: Running) -> socket.socket:
    """A connection that the server has seen."""
    sock = server.dial()
    sock.sendall(head("GET", "/v2/health/live"))
    assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    return sock


def test_an_upgrade_is_not_made() -> None:
    with running(make_part()) as server:
        answer = once(server, "GET", "/v2/health/live", Connection="Upgrade", Upgrade="websocket")
        assert answer.status == 200


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def test_a_wish_for_another_protocol_is_ignored() -> None:
    with running(make_part()) as server, server.dial() as sock:
        sock.sendall(asked(*H2C) + asked(*H2C) + head("GET", "/v2/health/live", *H2C))
        sock.sendall(asked("Connection: close", *H2C))
        answers = receive_all(sock)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"200"] * 4
    assert answers.count((2 * ones()["x"]).tobytes()) == 3


@pytest.mark.parametrize("framing", ["Content-Length: 53", "Transfer-Encoding: chunked"])
def test_the_body_of_a_request_that_wishes_another_protocol_is_no_request(framing: str) -> None:
    hidden = head("GET", "/v2/health/live")
    hidden += b" " * (53 - len(hidden))
    body = b"35\r\n" + hidden + b"\r\n0\r\n\r\n" if "chunked" in framing else hidden
    with running(make_part()) as server, server.dial() as sock:
        sock.sendall(head("POST", INFER, *H2C, framing))
        until(lambda: server.app.in_flight == 1, "its head has come")
        sock.sendall(body + head("GET", "/v2/health/ready", "Connection: close"))
        answers = receive_all(sock)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"400", b"200"]
    assert b'"ready"' in answers
    assert b'"live"' not in answers


@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        (["Transfer-Encoding: gzip, chunked"], [b"501"]),
        (["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], [b"501"]),
        (["Transfer-Encoding: chunked, identity, chunked"], [b"400"]),
        (["Transfer-Encoding: chunked", *H2C], [b"400", b"200"]),
    ],
)
def test_other_transfer_codings_are_refused(lines: list[str], statuses: list[bytes]) -> None:
    with running(make_part()) as server, server.dial() as sock:
        sock.sendall(
            head("POST", INFER, *lines) + b"2\r\n{}\r\n0\r\n\r\n" + head("GET", "/v2", "Connection: close")
        )
        assert re.findall(rb"HTTP/1.1 (\d+) ", receive_all(sock)) == statuses


def test_http_1_0_has_no_transfer_coding() -> None:
    with running(make_part()) as server, server.dial() as sock:
        sock.sendall(b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert receive_all(sock).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (head("GET", "/v2/health/live") + b"\x16\x03\x01\r\n\r\n", [b"200", b"400"]),
        (head("GET", "/v2") + head("GET", "/v2/health/live") + b"GET \xff", [b"401", b"200", b"400"]),
        (head("POST", "/v2", "Transfer-Encoding: chunked") + b"zz\r\n", [b"400"]),
        (
            head("GET", "/v2") + head("POST", "/v2", "Transfer-Encoding: chunked") + b"zz\r\n",
            [b"401", b"400"],
        ),
        (
            head("GET", "/v2/health/live") + head("POST", "/v2", "Transfer-Encoding: gzip, chunked"),
            [b"200", b"501"],
        ),
    ],
    ids=range(5),
)
def test_what_is_not_http_is_answered_in_its_turn(
    caplog: pytest.LogCaptureFixture, data: bytes, statuses: list[bytes]
) -> None:
    with running(make_part(), options=ServerOptions(token="t")) as server:
        with server.dial() as sock:
            sock.sendall(data)
            assert re.findall(rb"HTTP/1.1 (\d+) ", receive_all(sock)) == statuses
        until(lambda: server.app.in_flight == 0, "nothing is left")
    assert not [record for record in caplog.records if record.exc_info]


def test_headers_after_the_last_chunk_are_limited_and_say_nothing() -> None:
    first = head("POST", "/splitc/probe?bytes=1", "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n"
    with running(make_part(), options=ServerOptions(token="t")) as server:
        with server.dial() as sock:
            sock.sendall(first + b"Authorization: Bearer t\r\n\r\n" + head("GET", "/v2", "Connection: close"))
            assert re.findall(rb"HTTP/1.1 (\d+) ", receive_all(sock)) == [b"401", b"401"]
        with server.dial() as sock:
            sock.sendall(first.replace(b"Host:", b"Authorization: Bearer t\r\nHost:"))
            with suppress(OSError):
                for number in range(1000):
                    sock.sendall(f"X-{number}: {'x' * 1000}\r\n".encode())
            assert b"HTTP/1.1 431 " in receive_all(sock)


def test_requests_that_wait_for_answers_are_limited() -> None:
    """A client that sends requests without end, and reads no faster than they are answered."""
    many = head("GET", "/v2/health/live") * 20_000
    with running(make_part()) as server, server.dial() as sock:
        sender = threading.Thread(target=lambda: sock.sendall(many))
        sender.start()
        longest = answers = 0
        while answers < 20_000:
            answers += sock.recv(1 << 16).count(b"HTTP/1.1 200 OK")
            connections: Any = server.server.server_state.connections
            longest = max(longest, *(len(kept.pipeline) for kept in connections))
        sender.join(LIMIT_S)
    assert longest < 1000


def test_the_size_of_a_chunk_may_come_alone() -> None:
    with running(make_part(), options=ServerOptions(receive_s=5.0)) as server, server.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head("POST", "/splitc/probe?bytes=1", "Connection: close", "Transfer-Encoding: chunked"))
        for piece in (b"1\r\n", b"a", b"\r\n", b"2;note=x\r\n", b"bc\r\n", b"0\r\n", b"X: y\r\n", b"\r\n"):
            time.sleep(0.05)  # for the server to see it alone
            sock.sendall(piece)
        assert receive_all(sock).startswith(b"HTTP/1.1 200 ")


def test_what_clients_do_not_read_is_limited() -> None:
    """Who has not read for longest is cut off."""
    wide = (TensorEntry("x", "float32", ("n", 3), 12),)
    large = TensorEntry("y", "float32", ("?", "?"), 12)

    def run(_: object, __: object) -> dict[str, Array]:
        return {"y": np.zeros((1 << 20, 8), np.float32)}  # 32 MiB, more than sockets keep

    def answered(server: Running, times: int) -> bool:
        return server.value("splitc_requests_total", model="made.c1", status="200") == times

    listen = ListenOptions(port=0, max_unread_bytes=80 << 20)
    with (
        running(make_part(run=run, inputs=wide, outputs=(large,)), listen=listen) as server,
        ExitStack() as stack,
    ):
        socks = [stack.enter_context(server.dial()) for _ in range(4)]
        for number, sock in enumerate(socks, 1):
            sock.sendall(asked("Connection: close"))
            until(partial(answered, server, number), "one more answer")
        assert [len(receive_all(sock)) > 32 << 20 for sock in socks] == [False, False, True, True]
