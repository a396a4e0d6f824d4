"""Runs the application on uvicorn, uvloop and httptools, in a process that shuts down in an orderly way."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType

import uvicorn

from splitc.common.errors import RuntimeFailure, SplitcError
from splitc.server.app import Application
from splitc.server.descriptors import most_connections, raise_limit
from splitc.server.http_protocol import protocol_factory
from splitc.server.logs import Once, tell
from splitc.server.memory import keep_freed_memory
from splitc.server.options import ListenOptions
from splitc.server.tails.part import ServedPart

_BACKLOG = 1024
_HANDSHAKE_S = 10.0
# How long connections may take to close after the last answer.
_CLOSING_S = 2


def serve(
    app: Application,
    listen: ListenOptions,
    say: Callable[[str], None],
    reopen: Callable[[], Sequence[ServedPart]] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests that are running; a second signal ends it at once.

    Args:
        say: called with the URL of the server as soon as clients can connect.
        reopen: called in a thread after SIGHUP, for the parts to serve from then on.

    Raises:
        RuntimeFailure: the address or the certificate cannot be used.
    """
    limit = raise_limit()
    most = most_connections(listen.max_connections, limit)
    if most < listen.max_connections:
        tell(logging.WARNING, "descriptors", limit=limit, connections=most)
    server = Server(app, replace(listen, max_connections=most), say, reopen)
    keep_freed_memory()
    gc.collect()
    gc.freeze()  # objects that exist now stay: later garbage collections, during requests, need not visit them
    server.run()


class Server(uvicorn.Server):
    """uvicorn's server with limits on slow clients, which finishes running requests before it ends.

    Attributes:
        url: the URL at which clients reach it.
    """

    def __init__(
        self,
        app: Application,
        listen: ListenOptions,
        say: Callable[[str], None],
        reopen: Callable[[], Sequence[ServedPart]] | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(listen.idle_s),
            timeout_graceful_shutdown=_CLOSING_S,
        )
        super().__init__(config)
        self._tls = _tls(listen)
        self._app = app
        self._listen = listen
        self._say = say
        self._reopen = reopen
        self._reloading: asyncio.Task[None] | None = None
        self._drained_by_s: float | None = None
        self._once = Once()
        self._socket = _bind(listen)
        self.url = _url(self._socket, tls=self._tls is not None)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to end."""
        super().run(sockets or [self._socket])

    def drain(self) -> None:
        """Accept no new requests, and end when the running ones are answered; may be called from any thread."""
        if self._drained_by_s is None:
            self._drained_by_s = time.monotonic() + self._listen.drain_s
            self._app.drain()

    # --- what uvicorn calls ---

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets=[])
        make = protocol_factory(
            self.config, self.server_state, self.lifespan.state, self._listen, self._complain
        )
        handshake_s = _HANDSHAKE_S if self._tls is not None else None
        for sock in sockets or []:
            server = await asyncio.get_running_loop().create_server(
                make, sock=sock, ssl=self._tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake_s
            )
            self.servers.append(server)
        if self._reopen is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        tell(logging.INFO, "start", url=self.url)
        self._say(self.url)

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end now; called ten times a second."""
        return await super().on_tick(counter) or self._is_drained()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open."""
        tell(logging.INFO, "stop", unanswered=self._app.in_flight)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain on the first signal, and remove the handlers, so that the next signal ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self.drain()

    def _reload(self) -> None:
        """Begin to open the bundles again; what was asked for while that goes on is done after it."""
        before = self._reloading
        self._reloading = asyncio.get_running_loop().create_task(self._reloaded(before))

    async def _reloaded(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        assert self._reopen is not None, "the signal is only heard if there is something to do"
        try:
            parts = await asyncio.to_thread(self._reopen)
            self._app.replace(parts)
        except (SplitcError, OSError) as error:  # what is open goes on
            tell(logging.ERROR, "reload", failed=str(error))
        else:
            tell(logging.INFO, "reload", parts=len(parts))

    def _is_drained(self) -> bool:
        return self._drained_by_s is not None and (
            not self._app.in_flight or time.monotonic() > self._drained_by_s
        )

    def _complain(self, peer: str, what: str) -> None:
        if self._once.first(peer, what):
            tell(logging.WARNING, "refused", reason="connection", peer=peer, said=what)


def _tls(listen: ListenOptions) -> ssl.SSLContext | None:
    if listen.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password to try, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(listen.tls_cert, listen.tls_key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = " and ".join(sorted({str(file) for file in (listen.tls_cert, listen.tls_key) if file}))
        raise RuntimeFailure(
            f"the certificate and key in {files} cannot be used ({error}); "
            "give PEM files that belong together, the key without a password"
        ) from error
    return context


def _bind(listen: ListenOptions) -> socket.socket:
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise RuntimeFailure(
            f"cannot listen on port {listen.port} of {listen.host}: {error.strerror}; choose others with --host and --port"
        ) from error


def _url(sock: socket.socket, *, tls: bool) -> str:
    host, port = sock.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
