"""Wait for what comes to hold, and see where processes are."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 20.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether *condition* comes to hold."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True


def network_of(pid: int) -> int:
    """The number of the network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
