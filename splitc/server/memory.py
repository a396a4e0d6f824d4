"""The memory of a server's process: how much it uses, and how much it keeps for the next request."""

import ctypes
import gc
from contextlib import suppress

import psutil

# Options of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BYTES = 32 << 20  # a piece; larger ones are returned at once, as by default
_KEPT_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Keep up to 64 MiB of freed memory.

    By default, glibc returns large pieces to the system at once, so that each page of the next request's body is a
    page fault, and is cleared: for 1.2 MB on one core, half of what receiving them takes.
    """
    with suppress(OSError, AttributeError):  # no glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def memory_bytes() -> int:
    """The memory that this process uses: its own pages, and its share of pages that other processes map, too."""
    gc.collect()
    with suppress(OSError, AttributeError):  # no glibc: then what was freed may count as well
        ctypes.CDLL(None).malloc_trim(0)
    taken: int = psutil.Process().memory_full_info().pss
    return taken
