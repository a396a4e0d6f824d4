"""A server of your own that serves the cloud's parts of a bundle beside other routes.

    python own_server.py regnet-pixel7 --port 8471

`splitc.server.app.application` is a plain ASGI application. This file mounts it in a small application that has a
route of its own, `/hello`. A framework such as Starlette or FastAPI can mount it in the same way. Two things
matter: splitc must see the paths as the client sent them, without a prefix taken off, and it must get the ASGI
lifespan events, because it ends its thread when the server shuts down.
"""

import argparse
import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

from splitc.server import ServerOptions, application, open_parts

SPLITC_PATHS = ("/v2", "/splitc/", "/metrics")


class OwnServer:
    """Answers `/hello` itself and hands the paths of splitc on."""

    def __init__(self, splitc_app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._splitc = splitc_app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or the life of the server."""
        if scope["type"] == "lifespan" or scope["path"].startswith(SPLITC_PATHS):
            await self._splitc(scope, receive, send)
        elif scope["path"] == "/hello":
            await answer(send, 200, {"hello": "from your own route"})
        else:
            await answer(send, 404, {"error": "not found"})


async def answer(send: Any, status: int, content: dict[str, str]) -> None:
    """Send *content* as JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def main() -> None:
    """Open the bundle's parts, and serve them until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a bundle beside a route of its own.")
    parser.add_argument("bundle", type=Path, help="folder that `splitc compile` wrote")
    parser.add_argument("--port", type=int, default=8471, help="0 for any that is free")
    parser.add_argument(
        "--cache-dir", type=Path, default=Path("~/.cache/own-server"), help="where prepared files are kept"
    )
    given = parser.parse_args()
    parts = open_parts(
        [given.bundle],
        threads=len(os.sched_getaffinity(0)),
        max_batch=8,
        memory_limit_bytes=None,
        cache_folder=given.cache_dir.expanduser().absolute(),
        say=print,
    )
    app = OwnServer(application(parts, ServerOptions()))
    listener = socket.create_server(("127.0.0.1", given.port))
    print(f"serving at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
