"""The application as a Ray Serve deployment: a replica is a process that opens its files for itself.

How many replicas there are, on which machines, and which of them answers is Ray's business.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from ray import serve

from splitc.common.errors import RuntimeFailure
from splitc.server.app import Application, application
from splitc.server.logs import log_to_stderr, tell
from splitc.server.memory import keep_freed_memory
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.ray.cluster import ADDRESS, free_port, ray_serve
from splitc.server.tails.open import Say
from splitc.server.tails.part import ServedPart

_NAME = "splitc"
_ANY = "0.0.0.0"  # noqa: S104 - to compare with
_LOOPBACK = ("127.0.0.1", "localhost")
# More than ever come: the application's own queue refuses what is too much, and tells when to try again.
_AT_ONCE = 4096


class Opening(Protocol):
    """Opens the parts in the process that calls it; can be pickled."""

    def __call__(self, *, say: Say) -> Sequence[ServedPart]:
        """Open them; *say* is told what is prepared and what is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many replicas there are.

    Attributes:
        least, most: Ray chooses between them by how many requests each has.
        threads: of the one file that runs in a replica; so many cores are reserved for it.
    """

    least: int
    most: int
    threads: int


def serve_on_ray(
    opening: Opening,
    options: ServerOptions,
    listen: ListenOptions,
    scale: Scale,
    *,
    log_level: int,
    say: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was begun; a second signal does not wait for that.

    Args:
        say: told the address once clients can connect.

    Raises:
        RuntimeFailure: the address cannot be used, or Ray does not start, or no replica.
    """
    _check_host(listen.host)
    port = _usable_port(listen.host, listen.port)
    cores = scale.most * scale.threads
    with ray_serve(host=listen.host, port=port, idle_s=listen.idle_s, cores=cores) as quiet:
        deployment = _deployment(opening, options, listen, scale, log_level)
        serve.run(deployment, name=_NAME, route_prefix="/", logging_config=quiet)
        with _told_to_end() as told:
            url = f"http://{listen.host}:{port}"
            tell(logging.INFO, "start", url=url)
            say(url)
            told.wait()
        tell(logging.INFO, "stop")
        with suppress(TimeoutError):  # what takes longer is cut off
            serve.delete(_NAME)


def _deployment(
    opening: Opening, options: ServerOptions, listen: ListenOptions, scale: Scale, log_level: int
) -> serve.Application:
    def build() -> Application:
        log_to_stderr(log_level)
        keep_freed_memory()
        return application(opening(say=_unheard), options)

    return (
        serve.deployment(serve.ingress(build)())
        .options(
            name="parts",
            max_ongoing_requests=_AT_ONCE,
            graceful_shutdown_timeout_s=listen.drain_s,
            ray_actor_options={"num_cpus": scale.threads},
            **_replicas(scale),
        )
        .bind()
    )


def _replicas(scale: Scale) -> dict[str, object]:
    if scale.least == scale.most:
        return {"num_replicas": scale.most}
    return {"autoscaling_config": {"min_replicas": scale.least, "max_replicas": scale.most}}


def _unheard(_: str) -> None:
    """What a replica finds, the process that started it has found and told before."""


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Yield an event that the first signal sets; the next signal has its former effect."""
    told = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the address ---


def _check_host(host: str) -> None:
    """See that replicas, which listen there, too, are found: on this machine Ray looks for them at 127.0.0.1."""
    if host not in (_ANY, *_LOOPBACK):
        raise RuntimeFailure(f"Ray Serve cannot listen at {host} alone; give --host 127.0.0.1 or {_ANY}")
    if host != _ANY and ADDRESS in os.environ:
        raise RuntimeFailure(
            f"the machines of a cluster ({ADDRESS} is set) do not reach each other at {host}; give --host {_ANY}"
        )


def _usable_port(host: str, port: int) -> int:
    """*port*, or one that is free for 0."""
    if port == 0:
        return free_port(host)
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise RuntimeFailure(
            f"cannot listen on port {port} of {host}: {error.strerror}; choose another with --port"
        ) from error
    return port
