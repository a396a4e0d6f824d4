"""File descriptors: as many as the system allows, and no more connections than there are descriptors for."""

import resource
from contextlib import suppress
from pathlib import Path

from splitc.server.options import TOLD_CONNECTIONS

# For model files that are opened later, pipes, and what libraries open.
_RESERVED = 32
_USED_AT_MOST = 64  # where the system does not tell


def raise_limit() -> int:
    """Raise this process's limit of open descriptors as far as it may, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems refuse an infinite limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def most_connections(wanted: int, limit: int) -> int:
    """Return how many connections the server may keep at once: *wanted*, or as many as *limit* descriptors allow.

    Besides these, there is room for the connections that are told that there are too many.
    """
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, limit - _used() - _RESERVED - TOLD_CONNECTIONS))


def _used() -> int:
    with suppress(OSError):
        return len(list(Path("/proc/self/fd").iterdir()))
    return _USED_AT_MOST
