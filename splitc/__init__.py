"""splitc: split ONNX models between a device and the cloud."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from splitc.bundle.decide import Conditions, Decision, decide
from splitc.bundle.folder import Bundle, read_bundle
from splitc.common.errors import SplitcError

if TYPE_CHECKING:
    from splitc.runtime.aio import AsyncSession
    from splitc.runtime.session import Outcome, Session

__all__ = [
    "AsyncSession",
    "Bundle",
    "Conditions",
    "Decision",
    "Outcome",
    "Session",
    "SplitcError",
    "decide",
    "read_bundle",
]

# Whoever only reads a bundle and decides needs neither numpy nor ONNX Runtime.
_LATER = {
    "AsyncSession": "splitc.runtime.aio",
    "Outcome": "splitc.runtime.session",
    "Session": "splitc.runtime.session",
}


def __getattr__(name: str) -> Any:
    """Import what runs models when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module 'splitc' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
