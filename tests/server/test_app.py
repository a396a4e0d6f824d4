"""The application behind a real server: what is there, who may ask, and what is refused."""

import json
import logging
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from splitc.bundle.manifest import TensorEntry
from splitc.common.errors import ProtocolError, RuntimeFailure
from splitc.protocol.messages import encode_request
from splitc.server.app import application
from splitc.server.options import ServerOptions
from tests.server.serving import (
    DIGEST,
    Running,
    ask,
    head,
    infer_once,
    joined,
    make_part,
    once,
    ones,
    receive_all,
    running,
)

INFER = "/v2/models/made.c1/infer"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    fixed = (TensorEntry("x", "float32", (1, 3), 12),)
    with running(make_part(), make_part("made.c2", inputs=fixed)) as started:
        yield started


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/made.c1/ready", {"name": "made.c1", "ready": True}),
        (
            "/v2/models/made.c1/versions/1",
            {
                "name": "made.c1",
                "versions": ["1"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
            },
        ),
    ],
)
def test_what_can_be_asked(server: Running, path: str, content: object) -> None:
    got, headed = once(server, "GET", path), once(server, "HEAD", path)
    assert (got.status, got.json) == (200, content)
    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert headed.headers["content-type"] == "application/json"


def test_the_server_says_what_it_is(server: Running) -> None:
    content = once(server, "GET", "/v2").json
    assert content["name"] == "splitc"
    assert content["extensions"] == ["binary_tensor_data"]


def test_a_models_bundle_is_told(server: Running) -> None:
    assert once(server, "GET", "/v2/models/made.c1").headers["splitc-pairing"] == DIGEST


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", INFER, "POST"),
        ("GET", INFER, "POST"),
        ("HEAD", INFER, "POST"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/models/made.c1", "GET, HEAD"),
        ("OPTIONS", "/splitc/probe", "POST"),
    ],
)
def test_other_methods(server: Running, method: str, path: str, allowed: str) -> None:
    answer = once(server, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/made.c3/infer",
        "/v2/models//infer",
        "/v2/models/../../etc/passwd/infer",
        "/v2/models/..%2F..%2Fetc%2Fpasswd/infer",
        "/v2/models/%2e%2e/infer",
        "/v2/models/made.c1%00/infer",
        "/v2/models/made.c1%/infer",
        "/v2/models/%ff/infer",
        "/v2/models/MADE.C1/infer",
        "/v2/models/made.c1/versions/2/infer",
        "/v2/models/made.c1/infer/",
        "/v2/models/" + "x" * 10_000 + "/infer",
        "/",
        "/favicon.ico",
    ],
)
def test_no_such_model_or_path(server: Running, path: str) -> None:
    answer = once(server, "POST", path, b"{}")
    assert answer.status == 404, answer
    assert answer.error in {
        "there is no such model here, but made.c1, made.c2",
        "there is nothing at this path; /v2 tells what this server is",
    }


def test_a_name_in_escapes_is_the_name(server: Running) -> None:
    assert once(server, "GET", "/v2/models/%6dade%2Ec1").status == 200


def test_only_those_who_know_the_token_are_served(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitc.server")
    with running(make_part(), options=ServerOptions(token="correct horse")) as server:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert once(server, "GET", path).status == 200
        for authorization in (
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            "Bearer correct horsf",
            "Basic correct horse",
        ):
            for method, path in (("GET", "/metrics"), ("GET", "/nothing"), ("PUT", INFER), ("POST", INFER)):
                answer = once(server, method, path, Authorization=authorization)
                assert answer.status == 401, (authorization, path)
                assert answer.headers["www-authenticate"] == 'Bearer realm="splitc"'
        for authorization in ("Bearer correct horse", "bearer correct horse"):
            assert (
                infer_once(server, "made.c1", ones(), headers={"Authorization": authorization}).status == 200
            )
        assert server.value("splitc_refusals_total", reason="token") == 24
        assert server.value("splitc_requests_total", model="", status="401") == 24
    told = [record for record in caplog.records if getattr(record, "fields", {}).get("reason") == "token"]
    assert len(told) == 1  # of 24, from one peer
    assert "correct horse" not in caplog.text
    assert "correct horse" not in repr(ServerOptions(token="correct horse"))


@pytest.mark.parametrize("token", ["", " ", "a\n", "ä", " a"])
def test_tokens_that_cannot_be(token: str) -> None:
    with pytest.raises(RuntimeFailure, match="the token"):
        ServerOptions(token=token)


def test_a_queue_needs_a_place() -> None:
    with pytest.raises(RuntimeFailure, match="at least one place, not 0"):
        ServerOptions(max_queue=0)


@pytest.mark.parametrize("utilisation", [0.0, -0.1, 1.01, float("nan")])
def test_a_utilisation_that_cannot_be(utilisation: float) -> None:
    with pytest.raises(RuntimeFailure, match="above 0 and at most 1"):
        ServerOptions(utilisation=utilisation)


def test_a_part_that_the_protocol_cannot_carry() -> None:
    odd = (TensorEntry("x", "complex64", (1,), 8),)
    with pytest.raises(ProtocolError, match="complex64"):
        application([make_part(inputs=odd)], ServerOptions())


# --- the body ---


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"", {}, 400, "the message does not begin with JSON that can be read"),
        (b"{", {}, 400, "the message does not begin with JSON that can be read"),
        (b"[" * 10_000, {}, 400, "the message does not begin with JSON that can be read"),
        (b'{"a": 1}', {}, 400, "the message has no inputs"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "Inference-Header-Content-Length"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400, "Inference-Header-Content-Length"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "compressed bodies are not supported"),
        (
            b"{}",
            {"Splitc-Pairing": "cd" * 32},
            412,
            "no part of 'made.c2' here computes what the request is for",
        ),
        (b"x" * 200_000, {}, 413, "larger than the 65920 bytes that are allowed"),
    ],
)
def test_malformed(server: Running, body: bytes, headers: dict[str, str], status: int, error: str) -> None:
    connection = server.connect()
    try:
        answer = ask(connection, "POST", "/v2/models/made.c2/infer", body, headers)
        assert answer.status == status
        assert error in answer.error
        assert ask(connection, "GET", "/v2/health/live").status == 200  # the connection is still good
    finally:
        connection.close()


def test_wrong_inputs(server: Running) -> None:
    for inputs, error in (
        ({"x": np.zeros((1, 3))}, "is FP64 [1, 3], but FP32 [batch, 3] is wanted"),
        ({"x": np.zeros((1, 4), np.float32)}, "is FP32 [1, 4], but FP32 [batch, 3] is wanted"),
        ({"z": np.zeros((1, 3), np.float32)}, "has no input 'z'; give 'x' FP32 [batch, 3]"),
    ):
        answer = infer_once(server, "made.c1", inputs)
        assert answer.status == 400
        assert error in answer.error
    answer = infer_once(server, "made.c1", ones(), outputs=["z"])
    assert (answer.status, answer.error) == (400, "model 'made.c1' has no output 'z'")


def test_bytes_that_do_not_fill_the_shape(server: Running) -> None:
    message = encode_request(ones(), [])
    headers = {**message.headers(), "Content-Length": str(message.nbytes - 4)}
    answer = once(server, "POST", INFER, joined(message)[:-4], **headers)
    assert answer.status == 400


def test_too_large_is_told_before_the_body_comes(server: Running) -> None:
    with server.dial() as sock:
        sock.sendall(
            head("POST", INFER, "Content-Length: 123456789012", "Inference-Header-Content-Length: 10")
        )
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_asks_first_is_told_before_it_sends(server: Running) -> None:
    with server.dial() as sock:
        sock.sendall(head("POST", INFER, "Content-Length: 123456789012", "Expect: 100-continue"))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    message = encode_request(ones(), [])
    lines = [f"{name}: {value}" for name, value in message.headers().items()]
    with server.dial() as sock:
        sock.sendall(head("POST", INFER, *lines, "Expect: 100-continue", "Connection: close"))
        assert sock.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(joined(message))
        assert receive_all(sock).startswith(b"HTTP/1.1 200 ")


def test_chunks_without_end(server: Running) -> None:
    with server.dial() as sock:
        sock.sendall(head("POST", "/v2/models/made.c2/infer", "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sock.settimeout(0.05)
        for _ in range(1000):
            sock.sendall(piece)
            try:
                answer = sock.recv(1 << 16)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_chunks_with_an_end(server: Running) -> None:
    message = encode_request(ones(), [])
    lines = [f"{name}: {value}" for name, value in message.headers().items() if name != "Content-Length"]
    pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in map(bytes, [message.json, *message.buffers])]
    with server.dial() as sock:
        sock.sendall(head("POST", INFER, *lines, "Transfer-Encoding: chunked", "Connection: close"))
        sock.sendall(b"".join([*pieces, b"0\r\n\r\n"]))
        assert receive_all(sock).startswith(b"HTTP/1.1 200 ")


def test_headers_beyond_measure(server: Running) -> None:
    assert once(server, "GET", "/v2", Big="x" * 70_000).status == 431


def test_memory_for_bodies_is_bounded() -> None:
    with running(make_part(), options=ServerOptions(max_held_bytes=100)) as server:
        answer = infer_once(server, "made.c1", ones())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error == "too many requests are being received; try again"


# --- the probe ---


def test_a_probe_takes_and_gives_bytes(server: Running) -> None:
    answer = once(server, "POST", "/splitc/probe?bytes=1000", b"x" * 100_000)
    assert (answer.status, len(answer.body)) == (200, 1000)
    assert answer.headers["server-timing"].startswith("recv;dur=")
    assert once(server, "POST", "/splitc/probe").body == b""
    assert len(once(server, "POST", f"/splitc/probe?bytes={256 << 10}").body) == 256 << 10


@pytest.mark.parametrize(
    "query", ["bytes=262145", "bytes=-1", "bytes=x", "bytes=1&bytes=2", "rows=1", "bytes=" + "9" * 99]
)
def test_a_probe_gives_so_much_only(server: Running, query: str) -> None:
    assert once(server, "POST", f"/splitc/probe?{query}").status == 400


def test_a_probe_takes_so_much_only(server: Running) -> None:
    assert once(server, "POST", "/splitc/probe", b"x" * ((256 << 10) + 1)).status == 413


# --- connections ---


def test_one_connection_for_many_requests(server: Running) -> None:
    connection = server.connect()
    try:
        for method, path, status in (
            ("GET", "/v2", 200),
            ("POST", INFER, 400),
            ("HEAD", "/v2", 200),
            ("PUT", "/v2", 405),
            ("GET", "/x", 404),
            ("GET", "/v2/health/live", 200),
        ):
            assert ask(connection, method, path).status == status
            assert connection.sock is not None  # kept open
    finally:
        connection.close()


def test_requests_one_after_the_other_without_waiting(server: Running) -> None:
    message = encode_request(ones(), [])
    lines = [f"{name}: {value}" for name, value in message.headers().items()]
    request = head("POST", INFER, *lines) + joined(message)
    with server.dial() as sock:
        sock.sendall(3 * request + head("GET", "/v2/health/live", "Connection: close"))
        received = receive_all(sock)
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert received.endswith(b'{"live": true}')


def test_a_client_that_leaves_halfway(server: Running) -> None:
    before = server.value("splitc_refusals_total", reason="gone")
    with server.dial() as sock:
        sock.sendall(head("POST", INFER, "Content-Length: 50") + b"x")
    for _ in range(1000):
        if server.value("splitc_refusals_total", reason="gone") > before:
            break
        assert once(server, "GET", "/v2/health/live").status == 200
    assert server.value("splitc_refusals_total", reason="gone") == before + 1


def test_metrics_can_be_parsed(server: Running) -> None:
    assert infer_once(server, "made.c1", ones()).status == 200
    answer = once(server, "GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    models = {sample.labels["model"] for sample in families["splitc_requests"].samples}
    assert models <= {"made.c1", "made.c2", ""}
    assert {"splitc_queue_seconds", "splitc_compute_seconds", "splitc_batch_size"} <= set(families)
    openmetrics = once(server, "GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")


@pytest.mark.parametrize("version", ["abc", "1.a.0", "", "9" * 30])
def test_metrics_for_clients_that_accept_nonsense(server: Running, version: str) -> None:
    answer = once(server, "GET", "/metrics", Accept=f"application/openmetrics-text;version={version}")
    assert answer.status == 200
    assert b"splitc_requests_total" in answer.body


def test_a_failure_of_ours_is_logged_once_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        raise ZeroDivisionError("secret")

    caplog.set_level(logging.INFO, "splitc.server")
    with running(make_part(run=fail)) as server:
        for _ in range(3):
            answer = infer_once(server, "made.c1", ones())
            assert (answer.status, answer.json) == (500, {"error": "this server failed; see its log"})
        assert once(server, "GET", "/v2/health/live").status == 200
    failures = [record for record in caplog.records if record.message == "failure"]
    assert len(failures) == 1
    assert failures[0].exc_info is not None


def test_every_answer_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "splitc.server")
    with running(make_part()) as server:
        assert infer_once(server, "made.c1", ones()).status == 200
    fields = [getattr(record, "fields", {}) for record in caplog.records if record.message == "answered"]
    assert fields == [{"model": "made.c1", "status": 200, "peer": "127.0.0.1"}]


def test_no_line_for_what_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitc.server")
    with running(make_part()) as server:
        assert infer_once(server, "made.c1", ones()).status == 200
        assert once(server, "GET", "/v2").status == 200
    assert [record.message for record in caplog.records if record.name == "splitc.server"] == [
        "start",
        "stop",
    ]


def test_errors_are_json_whatever_is_in_them(server: Running) -> None:
    answer = infer_once(server, "made.c1", {'x"\n\u2028ü': np.zeros((1, 3), np.float32)})
    assert answer.status == 400
    assert "no input 'x\"\n\u2028ü'" in answer.error
    assert json.loads(answer.body)


def test_half_closed_is_gone(server: Running) -> None:
    with server.dial() as sock:
        sock.sendall(head("POST", INFER, "Content-Length: 50"))
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b""
