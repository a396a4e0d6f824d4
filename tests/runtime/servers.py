"""Servers on the loopback for tests of the device side: one that serves tails, and many that misbehave.

Plain sockets and threads, so that every byte is under control. What a server does with a connection is a
function; `serve` runs it in a thread for each connection until the block ends.
"""

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import part_files
from splitc.bundle.pairing import pairing
from splitc.common import ort
from splitc.protocol import messages

LONGEST_S = 20.0  # no test waits longer for anything


@dataclass
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Loopback:
    """A server that runs: where it is, and who came."""

    port: int
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Behaviour = Callable[[socket.socket, Loopback], None]


def exit_status(child: int) -> int:
    """How a forked child ended; one that hangs is killed."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def serve(behave: Behaviour, *, port: int = 0) -> Iterator[Loopback]:
    """Let *behave* handle each connection, in its own thread; it may raise OSError when the client goes."""
    listener = socket.create_server(("127.0.0.1", port))
    server = Loopback(listener.getsockname()[1])
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            behave(connection, server)

    def accept() -> None:
        with suppress(OSError):  # the listener is closed
            while not server.ended.is_set():
                connection, _ = listener.accept()
                connection.settimeout(LONGEST_S)
                server.connections += 1
                opened.append(connection)
                threads.append(threading.Thread(target=handle, args=(connection,), name="served"))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, name="acceptor")
    acceptor.start()
    try:
        yield server
    finally:
        server.ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(LONGEST_S)
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(LONGEST_S)


def receive(connection: socket.socket, server: Loopback) -> Request:
    """Read one request.

    Raises:
        EOFError: the client closed.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += _more(connection)
    method, path, _ = first.split()
    server.requests.append(Request(method, path, headers, body))
    return server.requests[-1]


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    if not piece:
        raise EOFError
    return piece


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def reset(connection: socket.socket) -> None:
    """Close so that the client gets ECONNRESET."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- behaviours ---


def answering(*answers: bytes) -> Behaviour:
    """Give the answers in turn, the last one to all further requests."""
    left = list(answers)

    def behave(connection: socket.socket, server: Loopback) -> None:
        while True:
            receive(connection, server)
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return behave


def echoing(connection: socket.socket, server: Loopback) -> None:
    """Answer the request's own body."""
    while True:
        connection.sendall(reply(200, receive(connection, server).body))


def closing_after(answer: bytes) -> Behaviour:
    """Answer one request, then close without a word."""

    def behave(connection: socket.socket, server: Loopback) -> None:
        receive(connection, server)
        connection.sendall(answer)

    return behave


def resetting_upload(connection: socket.socket, _: Loopback) -> None:
    """Break the connection after the first bytes of a request."""
    connection.recv(100)
    reset(connection)


def resetting_download(connection: socket.socket, server: Loopback) -> None:
    """Break the connection inside the answer."""
    receive(connection, server)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(1000))
    time.sleep(0.05)  # so that the client has read that
    reset(connection)


def black_hole(connection: socket.socket, server: Loopback) -> None:
    """Take everything, answer nothing."""
    while not server.ended.is_set():
        _more(connection)


def stuck(_: socket.socket, server: Loopback) -> None:
    """Take nothing, answer nothing."""
    server.ended.wait(LONGEST_S)


def trickling(connection: socket.socket, server: Loopback) -> None:
    """Answer so slowly that no single read ever times out."""
    receive(connection, server)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.ended.wait(0.02):
        connection.sendall(b"x")


def endless(first: bytes, then: bytes = bytes(1 << 16)) -> Behaviour:
    """Answer with what never ends."""

    def behave(connection: socket.socket, server: Loopback) -> None:
        receive(connection, server)
        connection.sendall(first)
        while not server.ended.is_set():
            connection.sendall(then)

    return behave


def endless_continues(connection: socket.socket, server: Loopback) -> None:
    receive(connection, server)
    while not server.ended.wait(0.001):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


# --- a server of tails ---

Change = Callable[[Request], bytes | None]


@dataclass
class Tails:
    """Serves what the cloud does of each cut, which must be one file, as the protocol has it, with ONNX Runtime.

    Attributes:
        instead: asked first; the answer it returns is given instead of the right one.
        delay_s: before each answer to an inference.
        price: of a second of it, said with each answer to an inference.
        probes: whether it knows /splitc/probe.
    """

    bundle: Bundle
    instead: Change = lambda _: None
    delay_s: float = 0.0
    probes: bool = True
    price: float | None = None

    def __post_init__(self) -> None:
        name = self.bundle.manifest.model.name
        self._tails = {
            f"/v2/models/{name}.{cut.id}/infer": ort.session(
                self.bundle.path(part_files(cut.cloud)[0]), threads=1
            )
            for cut in self.bundle.manifest.cuts
            if cut.cloud is not None
        }
        self._pairings = {
            f"/v2/models/{name}.{cut.id}/infer": pairing(self.bundle.manifest, cut)
            for cut in self.bundle.manifest.cuts
        }

    def __call__(self, connection: socket.socket, server: Loopback) -> None:
        while True:
            request = receive(connection, server)
            answer = self.instead(request)
            connection.sendall(self._answer(request) if answer is None else answer)

    def _answer(self, request: Request) -> bytes:
        if request.path == "/v2/health/live":
            return reply(200)
        if request.path.startswith("/splitc/probe") and self.probes:
            return reply(200, bytes(int(request.path.rpartition("=")[2])), {"Server-Timing": "recv;dur=0.1"})
        if request.path not in self._tails:
            return reply(404, json.dumps({"error": "no such model"}).encode())
        if request.headers["splitc-pairing"] != self._pairings[request.path]:
            return reply(412, json.dumps({"error": "another bundle"}).encode())
        return self._infer(request)

    def _infer(self, request: Request) -> bytes:
        asked = messages.decode_request(
            request.body, messages.json_size(request.headers.get(messages.JSON_SIZE.lower()))
        )
        began = time.monotonic()
        outputs = ort.run(self._tails[request.path], asked.inputs, asked.outputs)
        compute_ms = 1e3 * (time.monotonic() - began)
        time.sleep(self.delay_s)
        message = messages.encode_response("a tail", outputs, asked)
        timing = f"recv;dur=0.01, queue;dur=0.02, compute;dur={compute_ms:.3f}"
        headers = {
            **message.headers(),
            "Server-Timing": timing,
            "Splitc-Pairing": self._pairings[request.path],
        }
        if self.price is not None:
            headers["Splitc-Price"] = str(self.price)
        del headers["Content-Length"]
        return reply(200, b"".join([message.json, *map(bytes, message.buffers)]), headers)
