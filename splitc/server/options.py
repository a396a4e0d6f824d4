"""The options of a server."""

from dataclasses import dataclass, field
from pathlib import Path

from splitc.common.errors import RuntimeFailure

TOLD_CONNECTIONS = 64
"""This many connections above the limit get an answer that says so; any more are closed without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of the application, whichever ASGI server runs it.

    Attributes:
        token: what clients must know; None to serve anyone.
        max_queue: how many requests may wait for the compute thread to begin with them.
        max_request_bytes: a limit on bodies besides those that follow from the manifests.
        max_held_bytes: how much the bodies of all requests may take together, as far as they have arrived.
        receive_s: how long a body may take to arrive.
        utilisation: the share of its time that the compute thread shall be busy, to which the price brings it; None
            for no price.
    """

    token: str | None = field(default=None, repr=False)
    max_queue: int = 64
    max_request_bytes: int | None = None
    max_held_bytes: int = 1 << 30
    receive_s: float = 60.0
    utilisation: float | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token):
            raise RuntimeFailure(
                "the token is empty or holds characters that a header cannot; use printable ASCII characters"
            )
        if self.token is not None and self.token != self.token.strip():
            raise RuntimeFailure("the token begins or ends with spaces; remove them")
        if self.max_queue < 1:
            raise RuntimeFailure(f"the queue must have at least one place, not {self.max_queue}")
        if self.utilisation is not None and not 0 < self.utilisation <= 1:
            raise RuntimeFailure(f"the utilisation must be above 0 and at most 1, not {self.utilisation:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where and how to listen.

    Attributes:
        port: 0 for one that is free.
        tls_cert, tls_key: PEM files of the certificate chain and its key; None for plain HTTP.
        max_connections: more are told to come back later. `serve` lowers it if the system allows too few descriptors.
        head_s: how long the head of a request may take to arrive.
        request_s: how long a whole request may take; the application's own limit should come first.
        max_unread_bytes: how much of answers is kept for clients that do not read; beyond that, who has not read for
            longest is cut off.
        idle_s: how long a connection is kept for another request.
        least_idle_s: how long it is kept if others need its place.
        drain_s: how long requests may take after the server was told to end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 1024
    max_unread_bytes: int = 1 << 30
    least_idle_s: float = 5.0
    head_s: float = 10.0
    request_s: float = 90.0
    idle_s: float = 120.0
    drain_s: float = 30.0
