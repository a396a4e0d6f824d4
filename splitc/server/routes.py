"""The endpoints and their paths. Names of models are looked up, never used as paths of files."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_to_bytes

Endpoint = Literal["server", "live", "ready", "metrics", "probe", "model", "model ready", "infer"]

METHODS: dict[Endpoint, tuple[str, ...]] = {
    "server": ("GET", "HEAD"),
    "live": ("GET", "HEAD"),
    "ready": ("GET", "HEAD"),
    "metrics": ("GET", "HEAD"),
    "probe": ("POST",),
    "model": ("GET", "HEAD"),
    "model ready": ("GET", "HEAD"),
    "infer": ("POST",),
}
OPEN: tuple[Endpoint, ...] = ("live", "ready")  # without the token
VERSION = "1"
_ESCAPED = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*")


_FIXED: dict[tuple[str, ...], Endpoint] = {
    ("v2",): "server",
    ("v2", "health", "live"): "live",
    ("v2", "health", "ready"): "ready",
    ("metrics",): "metrics",
    ("splitc", "probe"): "probe",
}
_OF_MODEL: dict[tuple[str, ...], Endpoint] = {(): "model", ("ready",): "model ready", ("infer",): "infer"}


@dataclass(frozen=True, slots=True)
class Route:
    """The requested endpoint and model."""

    endpoint: Endpoint
    model: str = ""


@lru_cache(maxsize=128)
def find_route(path: bytes) -> Route | None:
    """What *path*, still percent-encoded, asks for; None if there is nothing."""
    model = ""
    match _segments(path):
        case ["v2", "models", str(model), "versions", "1", *rest] | ["v2", "models", str(model), *rest]:
            endpoint = _OF_MODEL.get(tuple(rest))
        case segments:
            endpoint = _FIXED.get(tuple(segments))
    return Route(endpoint, model) if endpoint is not None else None


def _segments(path: bytes) -> list[str]:
    """The parts between slashes, each decoded by itself: an encoded slash separates nothing."""
    if not path.startswith(b"/") or not _ESCAPED.fullmatch(path):
        return []
    try:
        return [unquote_to_bytes(segment).decode() for segment in path[1:].split(b"/")]
    except UnicodeDecodeError:
        return []
