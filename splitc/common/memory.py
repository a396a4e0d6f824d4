"""Check whether this machine has enough memory to run a model."""

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
