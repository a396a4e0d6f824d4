"""A TCP proxy on the loopback that fails on purpose: it cuts and stalls connections inside a request or an answer."""

import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

_PIECE_BYTES = 1 << 12
_PATIENCE_S = 20.0
_TICK_S = 0.02


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        way: in the request (up) or in its answer (down).
        after_bytes: how much still passes.
        then: reset the connection, close it in good order, or let nothing pass for *stall_s*.
    """

    way: Literal["up", "down"]
    after_bytes: int
    then: Literal["reset", "close", "stall"]
    stall_s: float = _PATIENCE_S


Plan = Callable[[int], Fault | None]


def every(nth: int, *faults: Fault) -> Plan:
    """Each *nth* request has one of *faults*, in turn."""

    def plan(number: int) -> Fault | None:
        return faults[number // nth % len(faults)] if number % nth == nth - 1 else None

    return plan


@dataclass
class Proxy:
    """A proxy that runs.

    Attributes:
        plan: asked for each request, numbered from 0.
        applied: the faults that happened.
    """

    port: int
    target: int
    plan: Plan
    applied: list[Fault] = field(default_factory=list)
    requests: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next_fault(self) -> Fault | None:
        with self.lock:
            self.requests += 1
            return self.plan(self.requests - 1)


class _BrokenError(Exception):
    """The connection was cut, as planned."""


@dataclass
class _Passage:
    """The bytes of one connection; requests and answers alternate on it, as in HTTP without pipelining."""

    proxy: Proxy
    client: socket.socket
    server: socket.socket
    way: Literal["up", "down"] = "down"
    fault: Fault | None = None
    passed: int = 0

    def run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self.client, selectors.EVENT_READ)
            ready.register(self.server, selectors.EVENT_READ)
            while not self.proxy.ended.is_set():
                for key, _ in ready.select(_TICK_S):
                    if not self._pass(key.fileobj is self.client):
                        return

    def _pass(self, is_up: bool) -> bool:
        source, target = (self.client, self.server) if is_up else (self.server, self.client)
        piece = source.recv(_PIECE_BYTES)
        if not piece:
            return False
        self._turn("up" if is_up else "down")
        if self.fault is not None and self.fault.way == self.way:
            piece = self._fail(self.fault, piece, target)
        target.sendall(piece)
        self.passed += len(piece)
        return True

    def _turn(self, way: Literal["up", "down"]) -> None:
        if way == self.way:
            return
        self.way, self.passed = way, 0
        if way == "up":
            self.fault = self.proxy.next_fault()

    def _fail(self, fault: Fault, piece: bytes, target: socket.socket) -> bytes:
        """Let pass what still may; what is left of *piece* passes after a stall, or never."""
        allowed = fault.after_bytes - self.passed
        if len(piece) <= allowed:
            return piece
        target.sendall(piece[:allowed])
        self.passed += allowed
        self.fault = None
        self.proxy.applied.append(fault)
        if fault.then == "stall":
            self.proxy.ended.wait(fault.stall_s)
            return piece[allowed:]
        if fault.then == "reset":
            for end in (self.client, self.server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _BrokenError


@contextmanager
def proxied(target: int, plan: Plan = lambda _: None) -> Iterator[Proxy]:
    """Run a proxy to the port *target* until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(_TICK_S)
    proxy = Proxy(listener.getsockname()[1], target, plan)
    threads: list[threading.Thread] = []

    def carry(client: socket.socket) -> None:
        with client, suppress(OSError, _BrokenError), _connected(target) as server:
            client.settimeout(_PATIENCE_S)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Passage(proxy, client, server).run()

    def accept() -> None:
        while not proxy.ended.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=carry, args=(client,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        acceptor.join(_PATIENCE_S)
        listener.close()
        for thread in threads:
            thread.join(_PATIENCE_S)


def _connected(port: int) -> socket.socket:
    """What comes in pieces leaves at once."""
    opened = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened
