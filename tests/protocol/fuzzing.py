"""How long fuzz tests look: SPLITC_FUZZ=1 makes it ten thousand examples, new ones each time."""

import os

from hypothesis import HealthCheck, settings

LONG = bool(os.environ.get("SPLITC_FUZZ"))
SETTINGS = settings(
    max_examples=10_000 if LONG else 300,
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
