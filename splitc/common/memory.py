"""Whether a model of some size can be run here."""

import psutil

from splitc.common.formatting import format_bytes

# Sessions hold weights as loaded and as pre-packed for the kernels, for the whole and for one pair.
_MEMORY_FACTOR = 4.0


def memory_shortage(model_bytes: int, allowed_bytes: int | None = None) -> str | None:
    """Why a model of that size cannot be run in *allowed_bytes* (default: what is free), or None.

    The sentence names no momentary figure, because it goes into the manifest.
    """
    needed = int(model_bytes * _MEMORY_FACTOR)
    if allowed_bytes is None:
        allowed_bytes, has = psutil.virtual_memory().available, "is free here"
    else:
        has = "--build-memory allows"
    if needed <= allowed_bytes:
        return None
    return f"running the whole model and a pair takes about {format_bytes(needed)}, more memory than {has}"
