"""The interface to the network, and its HTTP implementation: kept connections, TLS, one deadline for each exchange.

It uses the standard library only, because apps ship it. Redirects are not followed: a request goes to the address
that the app gave, and to no other.
"""

import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from splitc.common.errors import DeadlineExceeded, ProtocolError, RuntimeFailure, TransportError
from splitc.runtime.http.connection import Buffer, Connection, Reply, remaining_s

__all__ = ["DEFAULT_MAX_REPLY_BYTES", "HttpTransport", "Reply", "Transport"]

DEFAULT_MAX_REPLY_BYTES = 1 << 26
MAX_IDLE = 4
# Routers between forget silent connections without telling either end, some after a minute.
MAX_IDLE_S = 50.0
# One packet less: what is small goes out with the head.
_JOINED_BYTES = 1 << 14


class Transport(Protocol):
    """A connection to one server, which several threads may use at once."""

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Sequence[Buffer],
        *,
        deadline_s: float,
    ) -> Reply:
        """Send a request and return the answer, whatever its status.

        Args:
            deadline_s: when to give up, on the clock of `time.monotonic()`.

        Raises:
            TransportError: the server cannot be reached, or the connection broke.
            DeadlineExceeded: no answer came before *deadline_s*.
            ProtocolError: the answer is not valid HTTP.
        """
        ...

    def close(self) -> None:
        """End the exchanges that are running, and refuse new ones."""
        ...


class _ConnectionPool:
    """The connections of one process. Deques and sets change atomically, so no lock is needed that a fork could copy."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.idle: deque[Connection] = deque()
        self.busy: set[Connection] = set()


class HttpTransport:
    """HTTP/1.1 to the server at a URL; may be used from several threads, and after a fork.

    Args:
        url: http://HOST:PORT or https://HOST, optionally with a path, which is put before the path of each request.
        token: sent as "Authorization: Bearer".
        ca_file: PEM file of the certificate authorities to trust instead of the system's.
        max_reply_bytes: the largest body of an answer that is accepted.

    Raises:
        TransportError: *url*, *token* or *ca_file* is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_reply_bytes: int = DEFAULT_MAX_REPLY_BYTES,
    ) -> None:
        self._host, self._port, self._prefix, secure = _address(url)
        self._tls = _tls(ca_file) if secure else None
        self._max_reply_bytes = max_reply_bytes
        name = f"[{self._host}]" if ":" in self._host else self._host
        self._headers = f"Host: {name}:{self._port}\r\nUser-Agent: splitc\r\nAccept-Encoding: identity\r\n"
        if token is not None:
            self._headers += f"Authorization: Bearer {_checked_token(token)}\r\n"
        self._closed = False
        self._pool = _ConnectionPool()

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Sequence[Buffer],
        *,
        deadline_s: float,
    ) -> Reply:
        """See `Transport.exchange`."""
        pool = self._pool_here()
        request = self._request(method, path, headers, body)
        kept = self._kept(pool)
        if kept is not None:
            try:
                return self._exchange_on(kept, pool, method, request, deadline_s)
            except TransportError:
                # Servers close idle connections. Without any byte of an answer, the request is sent once more.
                if kept.answered:
                    raise
        return self._exchange_on(self._connected(deadline_s), pool, method, request, deadline_s)

    def close(self) -> None:
        """End the exchanges that are running, and refuse new ones. Closing again does nothing."""
        self._closed = True
        pool = self._pool_here()
        for connection in tuple(pool.busy):
            connection.shut()
        _close_all(pool.idle)

    def _pool_here(self) -> _ConnectionPool:
        """Return the pool of this process: two processes that share a connection would read each other's answers."""
        if self._pool.process != os.getpid():
            inherited, self._pool = self._pool, _ConnectionPool()
            for connection in (*inherited.idle, *inherited.busy):
                connection.close()
        return self._pool

    def _kept(self, pool: _ConnectionPool) -> Connection | None:
        """Return the connection that was used last, if it is usable, because its TCP window is the widest."""
        oldest_s = time.monotonic() - MAX_IDLE_S
        while pool.idle:
            try:
                connection = pool.idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.idle_since_s > oldest_s and connection.is_usable():
                return connection
            connection.close()
        return None

    def _connected(self, deadline_s: float) -> Connection:
        self._refuse_if_closed()
        try:
            return Connection(_connect(self._host, self._port, self._tls, deadline_s))
        except (OSError, UnicodeError) as error:  # UnicodeError: the name of the host is not valid
            raise self._failure(error, deadline_s, sent=False) from error

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise TransportError("the session was closed", sent=False)

    def _exchange_on(
        self,
        connection: Connection,
        pool: _ConnectionPool,
        method: str,
        request: Sequence[Buffer],
        deadline_s: float,
    ) -> Reply:
        """Exchange on *connection*, and close the connection if anything interrupts the exchange, such as Ctrl-C."""
        reusable = False
        pool.busy.add(connection)
        try:
            self._refuse_if_closed()  # checked after `busy.add`: an earlier `close` has not seen this connection
            reply = connection.exchange(
                method, request, deadline_s=deadline_s, max_reply_bytes=self._max_reply_bytes
            )
            reusable = connection.reusable
        except ProtocolError as error:
            raise ProtocolError(f"{self._host}:{self._port}: {error}") from error
        except OSError as error:
            _close_all(pool.idle)  # if the network is gone, the idle connections are broken, too
            raise self._failure(error, deadline_s, sent=connection.sent) from error
        finally:
            pool.busy.discard(connection)
            if reusable and len(pool.idle) < MAX_IDLE:
                pool.idle.append(connection)
            else:
                connection.close()
            if self._closed:
                _close_all(pool.idle)
        return reply

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: Sequence[Buffer]
    ) -> list[Buffer]:
        """Put head and body into few buffers, without copying a large one."""
        length = {"Content-Length": str(sum(memoryview(part).nbytes for part in body))} if body else {}
        own = "".join([f"{name}: {value}\r\n" for name, value in {**headers, **length}.items()])
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}{own}\r\n".encode("latin-1")
        if body and memoryview(body[0]).nbytes <= _JOINED_BYTES:
            return [head + bytes(body[0]), *body[1:]]
        return [head, *body]

    def _failure(self, error: Exception, deadline_s: float, *, sent: bool) -> RuntimeFailure:
        """Translate *error* into the error that the caller gets."""
        server = f"{self._host}:{self._port}"
        if isinstance(error, TimeoutError) and time.monotonic() >= deadline_s:
            return DeadlineExceeded(f"{server} did not answer in time")
        what = "broke the connection" if sent else "cannot be reached"
        return TransportError(f"{server} {what} ({_reason(error)})", sent=sent)


def _connect(host: str, port: int, tls: ssl.SSLContext | None, deadline_s: float) -> socket.socket:
    """Connect to the first address of *host* that answers; the time is shared out among the addresses."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError = ConnectionRefusedError("the host has no address")
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(remaining_s(deadline_s) / (len(addresses) - position))
            opened.connect(address)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None:
                return opened
            opened.settimeout(remaining_s(deadline_s))
            return tls.wrap_socket(opened, server_hostname=host)
        except OSError as error:
            opened.close()
            failed = error
        except BaseException:  # Ctrl-C
            opened.close()
            raise
    try:
        raise failed
    finally:
        del failed  # the error refers to this frame: break the cycle


def _close_all(idle: deque[Connection]) -> None:
    while idle:
        with suppress(IndexError):  # another thread was faster, and uses it now
            idle.pop().close()


def _address(url: str) -> tuple[str, int, str, bool]:
    """Split *url* into host, port, path prefix, and whether to use TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not printable:
        raise TransportError(
            f"'{url}' is not the address of a server; write http://HOST:PORT or https://HOST", sent=False
        )
    secure = parts.scheme == "https"
    return parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/"), secure


def _tls(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise TransportError(
            f"{ca_file}: cannot be read as certificates ({_reason(error)}); give a PEM file", sent=False
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _checked_token(token: str) -> str:
    """Refuse a token that does not fit in a header, such as one with a line break."""
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise TransportError(
            "the token is empty or holds characters that a header cannot; check its file", sent=False
        )
    return token


def _reason(error: Exception) -> str:
    """Return the text of *error* on one line and without control characters, as parts may come from the server."""
    text = " ".join(str(error).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text) or type(error).__name__
