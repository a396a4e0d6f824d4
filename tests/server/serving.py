"""Servers to test: parts made up or of a bundle, a server in a thread, and plain clients."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, TensorEntry, part_files
from splitc.bundle.pairing import pairing
from splitc.common import ort
from splitc.common.values import Array
from splitc.protocol.messages import Message, decode_response, encode_request
from splitc.server.app import Application, application
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.serve import Server
from splitc.server.tails.part import File, Run, ServedPart
from tests import manifests

LIMIT_S = 60.0  # nothing takes that long, unless something hangs
DIGEST = "ab" * 32
X = TensorEntry("x", "float32", ("batch", 3), 12)


def double(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    """The stand-in for a model: y = 2 x."""
    return dict.fromkeys(outputs, 2 * inputs["x"])


def make_part(
    name: str = "made.c1",
    run: Run = double,
    *,
    inputs: tuple[TensorEntry, ...] = (X,),
    outputs: tuple[TensorEntry, ...] | None = None,
    max_batch: int = 8,
    cut: CutEntry = manifests.CUTS[1],
) -> ServedPart:
    """A part of one file; its output is like its first input, unless others are given."""
    made = (replace(inputs[0], name="y"),) if outputs is None else outputs
    model, _, cut_id = name.rpartition(".")
    file = File(name, max_batch, run)
    return ServedPart(model, DIGEST, DIGEST, replace(cut, id=cut_id), inputs, made, file)


@dataclass
class Gated:
    """Doubles its input, but each run waits for the gate; remembers the rows of each run."""

    gate: threading.Event = field(default_factory=threading.Event)
    rows: list[int] = field(default_factory=list)

    def __call__(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.rows.append(len(inputs["x"]))
        assert self.gate.wait(LIMIT_S)
        return double(inputs, outputs)


def parts_of(bundle: Bundle) -> tuple[ServedPart, ...]:
    """What the cloud does of every cut of *bundle*, one file each, in the plainest way."""
    return tuple(_part_of(bundle, cut) for cut in bundle.manifest.cuts if cut.cloud is not None)


def _part_of(bundle: Bundle, cut: CutEntry) -> ServedPart:
    assert cut.cloud is not None
    session = ort.session(bundle.path(part_files(cut.cloud)[0]), threads=1)
    inputs = tuple(TensorEntry(item.name, item.dtype, item.shape, item.bytes) for item in cut.sent)
    made = {item.name for item in session.get_outputs()}
    outputs = tuple(item for item in bundle.manifest.model.outputs if item.name in made)

    def run(feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        return ort.run(session, feeds, names)

    model, key = bundle.manifest.model.name, pairing(bundle.manifest, cut)
    file = File(f"{model}.{cut.id}", 1, run)
    return ServedPart(model, bundle.digest, key, cut, inputs, outputs, file)


@dataclass(frozen=True)
class Running:
    """A server in a thread."""

    app: Application
    server: Server
    thread: threading.Thread

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=LIMIT_S)

    def dial(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=LIMIT_S)

    def queued(self) -> int:
        return len(self.app._batcher)

    def value(self, name: str, **labels: str) -> float:
        """A value of the metrics; 0 where there is none yet."""
        return self.app._metrics._registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(
    *parts: ServedPart,
    options: ServerOptions | None = None,
    listen: ListenOptions | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Running]:
    """Serve *parts* on a port that is free, and see that the server ends when it should."""
    app = application(parts, options or ServerOptions(), clock=clock)
    listens = threading.Event()
    server = Server(app, listen or ListenOptions(port=0), lambda _: listens.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert listens.wait(LIMIT_S)
        yield Running(app, server, thread)
    finally:
        server.drain()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        text = self.json["error"]
        assert isinstance(text, str)
        return text

    def outputs(self) -> dict[str, Array]:
        assert self.status == 200, self.body
        size = self.headers.get("inference-header-content-length")
        return decode_response(self.body, None if size is None else int(size))


def read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection.request(method, path, body, dict(headers or {}))
    return read(connection)


def once(server: Running, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Ask on a connection of its own; headers have _ for -."""
    connection = server.connect()
    try:
        return ask(
            connection, method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
    finally:
        connection.close()


def joined(message: Message) -> bytes:
    return b"".join([message.json, *map(bytes, message.buffers)])


def infer(
    connection: http.client.HTTPConnection,
    model: str,
    inputs: Mapping[str, Array],
    *,
    outputs: Sequence[str] = (),
    timeout_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask for *outputs* of *model* as splitc's own clients do."""
    message = encode_request(inputs, outputs, timeout_s=timeout_s)
    return ask(
        connection,
        "POST",
        f"/v2/models/{model}/infer",
        joined(message),
        {**message.headers(), **(headers or {})},
    )


def infer_once(server: Running, model: str, inputs: Mapping[str, Array], **options: Any) -> Answer:
    connection = server.connect()
    try:
        return infer(connection, model, inputs, **options)
    finally:
        connection.close()


class Asking:
    """Requests in threads, and what came of each."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.answers: dict[int, Answer] = {}

    def start(self, server: Running, model: str, inputs: Mapping[str, Array], **options: Any) -> None:
        number = len(self.threads)

        def go() -> None:
            self.answers[number] = infer_once(server, model, inputs, **options)

        self.threads.append(threading.Thread(target=go))
        self.threads[-1].start()

    def finish(self) -> list[Answer]:
        for thread in self.threads:
            thread.join(LIMIT_S)
        return [self.answers[number] for number in range(len(self.threads))]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition*, as long as something that works may take."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, f"never came to pass: {what}"
        time.sleep(0.002)


def ones(rows: int = 1, value: float = 1.0) -> dict[str, Array]:
    return {"x": np.full((rows, 3), value, np.float32)}


def receive_all(sock: socket.socket) -> bytes:
    """What the server sends until it closes the connection, in whichever way."""
    received = b""
    try:
        while piece := sock.recv(1 << 16):
            received += piece
    except ConnectionResetError:
        pass
    return received


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()
