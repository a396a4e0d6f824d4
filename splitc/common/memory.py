"""Check whether this machine has enough memory to run a model, and limit what a step may take."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from splitc.common.formatting import format_bytes

# Sessions hold weights twice, as loaded and as packed for the kernels, for the whole model and for one pair.
_MEMORY_FACTOR = 4.0


def memory_shortage(model_bytes: int, allowed_bytes: int | None = None) -> str | None:
    """Return why a model of that size cannot run in *allowed_bytes* (default: free memory), or None if it can.

    The sentence does not contain the amount of free memory, because it is stored in the manifest.
    """
    needed = int(model_bytes * _MEMORY_FACTOR)
    if allowed_bytes is None:
        allowed_bytes, has = psutil.virtual_memory().available, "is free here"
    else:
        has = "--build-memory allows"
    if needed <= allowed_bytes:
        return None
    return f"running the whole model and a pair takes about {format_bytes(needed)}, more memory than {has}"


@contextmanager
def at_most(more_bytes: int) -> Iterator[None]:
    """Let allocations in the block fail with MemoryError once they exceed *more_bytes*; no limit except on Linux."""
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    limits = [pages * resource.getpagesize() + more_bytes, soft, hard]
    resource.setrlimit(
        resource.RLIMIT_DATA, (min(limit for limit in limits if limit != resource.RLIM_INFINITY), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
