"""A server that anybody can reach serves those it should and outlives all others; a device believes no server."""

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from splitc.protocol import messages
from splitc.runtime.session import Session
from tests.runtime import servers
from tests.system.serving import (
    BUSY_S,
    FAST,
    LIMIT_S,
    SOAK,
    App,
    Held,
    Server,
    device,
    serving,
    times,
    until,
)

TOKEN = "only-for-tests"
# What ListenOptions and ServerOptions have, and `splitc serve` does not change.
HEAD_S, BODY_S = 10.0, 60.0


@dataclass
class Guarded:
    """A server with a token, and clients that are in no hurry."""

    app: App
    server: Server
    slow: "Loris"

    @property
    def path(self) -> str:
        return f"/v2/models/{self.app.tail('all-tail')}/infer"

    def events(self, reason: str) -> list[dict[str, object]]:
        return [line for line in self.server.log() if line.get("reason") == reason]

    def serves(self) -> bool:
        """Whether those who may still get the right answer."""
        with Session(
            self.app.bundle.folder,
            server=self.server.url,
            token=TOKEN,
            start=FAST,
            cut=self.app.cut("all-tail").id,
        ) as session:
            outcome = session.request(self.app.input(3), deadline_s=LIMIT_S)
        return outcome.finished == "cloud" and self.app.is_right(3, outcome.outputs)


@dataclass
class Loris:
    """Connections on which a byte comes now and then, and how long the server puts up with each."""

    address: tuple[str, int]
    ended: threading.Event = field(default_factory=threading.Event)
    lasted_s: dict[str, list[float]] = field(default_factory=lambda: {"head": [], "body": []})
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, kind: str, first: bytes) -> None:
        self.threads.append(threading.Thread(target=self._trickle, args=(kind, first)))
        self.threads[-1].start()

    def _trickle(self, kind: str, first: bytes) -> None:
        began_s = time.monotonic()
        with socket.create_connection(self.address, LIMIT_S) as connection:
            try:
                connection.sendall(first)
                while not self.ended.wait(0.1):
                    connection.sendall(b"x")
            except OSError:
                self.lasted_s[kind].append(time.monotonic() - began_s)

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(LIMIT_S)


@pytest.fixture(scope="module")
def guarded(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Twenty slow connections of each kind are there during all tests of this file."""
    secret = tmp_path_factory.mktemp("secret") / "token"
    secret.write_text(TOKEN + "\n")
    with serving(app.bundle.folder, "--token-file", secret, token=TOKEN) as server:
        found = Guarded(app, server, Loris(server.address))
        for _ in range(20):
            found.slow.start("head", b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            found.slow.start("body", head("POST", found.path, "Content-Length: 100000", *RIGHT))
        yield found
        found.slow.end()
        assert server.process.poll() is None


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1")


RIGHT = (f"Authorization: Bearer {TOKEN}",)


def talk(server: Server, data: bytes) -> tuple[int, str]:
    """Send *data*; the status and the sentence of the answer."""
    with socket.create_connection(server.address, LIMIT_S) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has said what it had to say
            connection.sendall(data)
        response = receive(connection)
    first, _, rest = response.partition(b"\r\n")
    status = int(first.split()[1])
    body = rest.partition(b"\r\n\r\n")[2]
    assert body.decode("ascii").isprintable()
    return status, json.loads(body)["error"] if status >= 400 else ""


def receive(connection: socket.socket) -> bytes:
    """One answer with a Content-Length, or what comes until the end."""
    data = b""
    while True:
        start, found, body = data.partition(b"\r\n\r\n")
        if found:
            length = int(start.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) >= length:
                return data
        piece = connection.recv(1 << 16)
        assert piece, f"the connection ended after {data!r}"
        data += piece


def inference_of(app: App, array: object, **changes: object) -> bytes:
    """The body of an inference, after its JSON was changed; *array* is what follows it."""
    description = {"name": "x", "shape": [1, 3, 128, 128], "datatype": "FP32", **changes}
    raw = np.asarray(array, np.float32).tobytes()
    description["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [description]}).encode()
    lines = (f"Content-Length: {len(text) + len(raw)}", f"Inference-Header-Content-Length: {len(text)}")
    return head("POST", f"/v2/models/{app.tail('all-tail')}/infer", *RIGHT, *lines) + text + raw


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization: Bearer wrong",),
        ("Authorization: Bearer",),
        ("Authorization: Basic " + TOKEN,),
        (f"Authorization: Bearer {TOKEN}x",),
        ("Authorization: Bearer \xff\xfe",),
        (f"Authorization: Bearer {TOKEN}, Bearer {TOKEN}",),
    ],
)
@pytest.mark.parametrize("path", ["/v2", "/metrics", "/splitc/probe", "/v2/models/pictures.c0/infer", "/etc"])
def test_who_has_no_token_sees_nothing(guarded: Guarded, lines: tuple[str, ...], path: str) -> None:
    status, sentence = talk(guarded.server, head("GET", path, *lines))
    assert status == 401
    assert "token" in sentence
    assert "pictures" not in sentence


def test_wrong_tokens_are_logged_once(guarded: Guarded) -> None:
    for _ in range(5):
        assert talk(guarded.server, head("GET", "/v2"))[0] == 401
    assert len(guarded.events("token")) == 1
    assert TOKEN not in json.dumps(guarded.server.log())
    assert guarded.serves()


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2fmanifest.json",
        "pictures.c0%00",
        "pictures.c0%0d%0aX-Evil:%20yes",
        "%ff%fe",
        "%zz",
        "a" * 5000,
        "pictures.c99",
        "",
        "pictures.c2/versions/2",
        "pictures.c2/versions/1/../1",
    ],
)
def test_names_of_models_are_no_paths(guarded: Guarded, name: str) -> None:
    for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        status, sentence = talk(guarded.server, head(method, f"/v2/models/{name}{end}", *RIGHT))
        assert status == 404
        assert "passwd" not in sentence
        assert "root:" not in sentence


def cases(app: App) -> dict[str, tuple[bytes, int]]:
    """What a client may send, and the status that it should get."""
    path = f"/v2/models/{app.tail('all-tail')}/infer"
    picture = np.zeros((1, 3, 128, 128))
    many = [f"X-{number}: {'y' * 1000}" for number in range(100)]
    return {
        "huge body announced": (head("POST", path, *RIGHT, "Content-Length: 99999999999"), 413),
        "length of nonsense": (head("POST", path, *RIGHT, "Content-Length: -5"), 400),
        "two lengths": (head("POST", path, *RIGHT, "Content-Length: 5", "Content-Length: 6") + b"12345", 400),
        "huge headers": (head("POST", path, *RIGHT, *many), 431),
        "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", 400),
        "binary noise": (np.random.default_rng(0).bytes(500) + b"\r\n\r\n", 400),
        "wrong method": (head("PUT", path, *RIGHT), 405),
        "no JSON": (head("POST", path, *RIGHT, "Content-Length: 4") + b"nope", 400),
        "deep JSON": (head("POST", path, *RIGHT, "Content-Length: 50000") + 50000 * b"[", 400),
        "JSON longer than the body": (
            head("POST", path, *RIGHT, "Content-Length: 4", "Inference-Header-Content-Length: 999") + b"{}{}",
            400,
        ),
        "compressed": (
            head("POST", path, *RIGHT, "Content-Length: 4", "Content-Encoding: gzip") + b"1234",
            415,
        ),
        "wrong dtype": (inference_of(app, picture, datatype="INT32"), 400),
        "unknown dtype": (inference_of(app, picture, datatype="FP99"), 400),
        "wrong shape": (inference_of(app, np.zeros((1, 3, 64, 64)), shape=[1, 3, 64, 64]), 400),
        "shape beyond the bytes": (inference_of(app, np.zeros(5)), 400),
        "negative shape": (inference_of(app, picture, shape=[-1, 3, 128, 128]), 400),
        "vast shape": (inference_of(app, picture, shape=[2**62, 3, 128, 128]), 400),
        "unknown input": (inference_of(app, picture, name="z\x1b[31m"), 400),
        "bytes too many": (inference_of(app, np.zeros((1, 3, 128, 140))), 413),
    }


CASES = """huge body announced,length of nonsense,two lengths,huge headers,no HTTP,binary noise,wrong method,no JSON,
deep JSON,JSON longer than the body,compressed,wrong dtype,unknown dtype,wrong shape,shape beyond the bytes,
negative shape,vast shape,unknown input,bytes too many""".replace("\n", "").split(",")


@pytest.mark.parametrize("name", CASES)
def test_what_makes_no_sense_is_refused(guarded: Guarded, app: App, name: str) -> None:
    data, status = cases(app)[name]
    for _ in range(3):
        found, sentence = talk(guarded.server, data)
        assert found == status, sentence
    assert guarded.server.is_well()


def test_all_of_that_was_logged_once_a_kind(guarded: Guarded, app: App) -> None:
    known = cases(app)
    assert list(known) == CASES
    for data, _ in known.values():
        talk(guarded.server, data)
    refused = [line for line in guarded.server.log() if line["event"] == "refused"]
    told = Counter(
        (line["reason"], line["said"] if line["reason"] == "connection" else "") for line in refused
    )
    assert {"size", "malformed", "input"} <= {reason for reason, _ in told}
    assert max(told.values()) == 1
    assert guarded.serves()


@pytest.mark.slow
def test_slow_clients_do_not_hinder_others_and_are_dropped(guarded: Guarded) -> None:
    assert guarded.serves()
    until(lambda: len(guarded.slow.lasted_s["head"]) == 20, "slow heads are given up")
    assert min(guarded.slow.lasted_s["head"]) > HEAD_S - 1
    assert len(guarded.events("connection")) >= 1
    if SOAK:
        until(lambda: len(guarded.slow.lasted_s["body"]) == 20, "slow bodies are given up")
        assert min(guarded.slow.lasted_s["body"]) > BODY_S - 1
        assert len(guarded.events("slow")) == 1
    assert guarded.serves()


# --- a server that is not to be trusted ---

# What may be larger afterwards: an allocator keeps pages for the next time.
_KEPT_BYTES = 32 << 20


@contextmanager
def evil(app: App) -> Iterator[servers.Loopback]:
    """A server that tries one thing after the other."""
    name = app.tail("all-tail")
    right = messages.decode_request(*_parts(messages.encode_request(app.input(0), ["y"])))
    wrong = messages.encode_response(name, {"y": np.zeros((1, 8, 64, 63), np.float32)}, right)
    lies = f"Inference-Header-Content-Length: {len(wrong.json)}".encode()
    tricks: list[servers.Behaviour] = [
        servers.answering(b"\x00\xff garbage\r\n\r\n"),
        servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n"),
        servers.endless(b"HTTP/1.1 200 OK\r\n\r\n"),
        servers.endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + bytes(65535) + b"\r\n"
        ),
        servers.endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: more\r\n"),
        servers.endless_continues,
        servers.trickling,
        servers.closing_after(servers.reply(200, b'{"outputs": ' + 20_000 * b"[")),
        servers.closing_after(
            servers.reply(200, bytes(wrong.json), {"Inference-Header-Content-Length": "-3"})
        ),
        servers.closing_after(b"HTTP/1.1 200 OK\r\n" + lies + b"\r\nContent-Length: 10\r\n\r\n0123456789"),
        servers.closing_after(servers.reply(503, b"{}", {"Retry-After": "1e308"})),
        servers.closing_after(
            servers.reply(200, b"{}", {"Server-Timing": "compute;dur=-1e300, recv;dur=nan"})
        ),
    ]
    turn = iter(range(10**9))

    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        tricks[next(turn) % len(tricks)](connection, server)

    with servers.serve(behave) as server:
        yield server


def _parts(message: messages.Message) -> tuple[bytes, int]:
    return b"".join([message.json, *map(bytes, message.buffers)]), len(message.json)


def test_a_malicious_server_is_not_believed(headless: App, tmp_path: Path) -> None:
    """Without an all-head cut, each request is tried, and the error is the caller's."""
    samples = headless.save_samples(tmp_path / "samples.npz")
    options = {"deadline_s": 0.3, "cut": headless.cut("all-tail").id}
    with (
        evil(headless) as server,
        device(headless.bundle.folder, samples, server=server.url, **options) as process,
    ):
        process.request(1)
        before = Held.by(process.process.pid)
        count = times(24, 500)
        done = process.request(count)
        assert done["nowhere"] == count
        assert done["slowest_s"] < 0.3 + BUSY_S
        kinds = Counter(reason.partition(":")[0] for reason in done["reasons"])
        assert {"ProtocolError", "DeadlineExceeded", "ServerRefused"} <= kinds.keys()
        assert all(reason.isprintable() for reason in done["reasons"])
        assert server.connections >= count
        after = Held.by(process.process.pid)
        sys.stdout.write(f"{kinds}; {before} before, {after} after\n")
        assert after.memory_bytes < before.memory_bytes + _KEPT_BYTES
        assert after.files <= before.files + 8
        assert after.threads <= before.threads + 4
        assert process.end() == 0
