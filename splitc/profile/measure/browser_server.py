"""A small server for one page: it serves files under an unguessable path and receives the page's messages."""

import hmac
import json
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from splitc.common.errors import ProfileError
from splitc.profile.document import Profile

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without letters that are easily confused
_LENGTH = 16
_REQUEST_S = 60.0
_RESULT_BYTES = 64 << 20
_MESSAGE_BYTES = 1 << 14
_SAID_CHARACTERS = 4000
_HEADERS = {
    # These two isolate the page: it gets finer clocks, and shared memory for threads if the origin is trusted.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src data:; base-uri 'none'; form-action 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file to serve, on disk or in memory."""

    content: Path | bytes
    kind: str = "application/octet-stream"

    def bytes(self) -> int:
        """Return its size in bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


@dataclass(frozen=True, slots=True)
class Beat:
    """The page is alive; `text` tells what it is doing."""

    text: str


@dataclass(frozen=True, slots=True)
class PageFailed:
    """The page failed; `sentence` tells why."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Result:
    """The page sent a profile; this happens at most once."""

    profile: Profile


Said: TypeAlias = Beat | PageFailed | Result


@dataclass(frozen=True, slots=True)
class Site:
    """A running server.

    Attributes:
        path: the secret path of the page, with slashes around it; all who know it can fetch the files and send results.
        said: messages of the page, in order.
    """

    port: int
    path: str
    said: "queue.SimpleQueue[Said]"


@contextmanager
def serving(
    files: Mapping[str, ServedFile], accept: Callable[[bytes], Profile], host: str, port: int
) -> Iterator[Site]:
    """Serve *files* by name ("" is the page itself) until the block ends.

    Args:
        accept: decodes the profile that the page sends; raises ProfileError if it is invalid.
        host: the address to listen at, "" for all addresses of this machine.
        port: 0 for any free port.

    Raises:
        ProfileError: the address or port is not available.
    """
    path = f"/{''.join(secrets.choice(_LETTERS) for _ in range(_LENGTH))}/"
    said: queue.SimpleQueue[Said] = queue.SimpleQueue()
    try:
        server = _Server((host, port), files, accept, path, said)
    except OSError as error:
        raise ProfileError(
            f"cannot serve a page at port {port} of {host or 'this machine'}: {error.strerror}; try another --port"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Site(server.server_port, path, said)
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a phone that has lost its connection must not keep the program running

    def __init__(
        self,
        address: tuple[str, int],
        files: Mapping[str, ServedFile],
        accept: Callable[[bytes], Profile],
        path: str,
        said: "queue.SimpleQueue[Said]",
    ) -> None:
        self.files, self.accept, self.path, self.said = files, accept, path, said
        self._lock = threading.Lock()
        self._taken = False
        super().__init__(address, _Handler)

    def take(self, body: bytes) -> Profile | None:
        """Return the profile in *body*; None if one was accepted before."""
        with self._lock:
            if self._taken:
                return None
            profile = self.accept(body)
            self._taken = True
            return profile

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a page whose connection breaks is noticed because it sends nothing more."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "splitc", ""
    timeout = _REQUEST_S  # for each read and write

    def do_GET(self) -> None:
        name = self._name()
        served = None if name is None else self.server.files.get(name)
        if served is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        self._begin(HTTPStatus.OK, served.kind, served.bytes())
        if isinstance(served.content, bytes):
            self.wfile.write(served.content)
        else:
            with served.content.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def do_POST(self) -> None:
        takers = {"progress": self._progress, "failure": self._failure, "result": self._result}
        taker = takers.get(self._name() or "")
        if taker is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        limit = _RESULT_BYTES if taker == self._result else _MESSAGE_BYTES
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif len(length) > len(str(limit)) or int(length) > limit:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                taker(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Print nothing: the terminal shows messages of the page."""

    # --- messages of the page ---

    def _progress(self, body: bytes) -> None:
        self._message(body, "text", Beat)

    def _failure(self, body: bytes) -> None:
        self._message(body, "sentence", PageFailed)

    def _message(self, body: bytes, key: str, kind: Callable[[str], Said]) -> None:
        text = _text(body, key)
        self._answer(HTTPStatus.BAD_REQUEST if text is None else HTTPStatus.NO_CONTENT)
        if text is not None:
            self.server.said.put(kind(text))

    def _result(self, body: bytes) -> None:
        try:
            profile = self.server.take(body)
        except ProfileError as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
            return
        if profile is None:
            self._answer(HTTPStatus.CONFLICT, "a result was already received")
            return
        try:
            self._answer(HTTPStatus.NO_CONTENT)
        finally:  # last, because the server then ends; always, because there will be no other result
            self.server.said.put(Result(profile))

    # --- the protocol ---

    def _name(self) -> str | None:
        """Return the requested name below the secret path; None for any other path."""
        path, asked = self.server.path, self.path.partition("?")[0]
        known = hmac.compare_digest(asked[: len(path)].encode(), path.encode())
        return asked[len(path) :] if known else None

    def _begin(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: HTTPStatus, text: str = "") -> None:
        body = b"" if status == HTTPStatus.NO_CONTENT else (text or status.phrase).encode()
        self._begin(status, "text/plain; charset=utf-8", len(body))
        self.wfile.write(body)


def _text(body: bytes, key: str) -> str | None:
    """Return the text under *key* of a JSON object, made safe for a terminal; None if there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return None
    words = " ".join(text.split())
    return "".join(letter for letter in words if letter.isprintable())[:_SAID_CHARACTERS]
