"""splitc: split ONNX models between a device and the cloud.

Two packages are public: `splitc`, for apps and schedulers, and `splitc.server`, for running the cloud side
in another ASGI server. Each lists its names in `__all__`. All other packages and modules are internal and
may change in any release. `schemas/*.json` describe the JSON that programs in other languages read.

Importing `splitc` needs the standard library only. `Session` and `AsyncSession` also need numpy and ONNX
Runtime, which are imported when either class is first used.
"""

from typing import TYPE_CHECKING

from splitc.common.lazy import importer

if TYPE_CHECKING:
    from splitc.bundle.decide import Conditions, Decision, decide
    from splitc.bundle.folder import Bundle, read_bundle
    from splitc.bundle.manifest import CutEntry, Manifest
    from splitc.common.errors import (
        BundleError,
        DeadlineExceeded,
        InputError,
        ModelError,
        NoFeasibleCut,
        ProtocolError,
        RuntimeFailure,
        ServerRefused,
        SplitcError,
        TransportError,
    )
    from splitc.common.version import __version__
    from splitc.runtime.aio import AsyncSession
    from splitc.runtime.session import Outcome, Session
else:  # hidden from type checkers, which would take any name for one of splitc's
    __getattr__ = importer(
        __name__,
        {
            "AsyncSession": "splitc.runtime.aio",
            "Bundle": "splitc.bundle.folder",
            "BundleError": "splitc.common.errors",
            "Conditions": "splitc.bundle.decide",
            "CutEntry": "splitc.bundle.manifest",
            "DeadlineExceeded": "splitc.common.errors",
            "Decision": "splitc.bundle.decide",
            "InputError": "splitc.common.errors",
            "Manifest": "splitc.bundle.manifest",
            "ModelError": "splitc.common.errors",
            "NoFeasibleCut": "splitc.common.errors",
            "Outcome": "splitc.runtime.session",
            "ProtocolError": "splitc.common.errors",
            "RuntimeFailure": "splitc.common.errors",
            "ServerRefused": "splitc.common.errors",
            "Session": "splitc.runtime.session",
            "SplitcError": "splitc.common.errors",
            "TransportError": "splitc.common.errors",
            "__version__": "splitc.common.version",
            "decide": "splitc.bundle.decide",
            "read_bundle": "splitc.bundle.folder",
        },
    )

__all__ = [
    "AsyncSession",
    "Bundle",
    "BundleError",
    "Conditions",
    "CutEntry",
    "DeadlineExceeded",
    "Decision",
    "InputError",
    "Manifest",
    "ModelError",
    "NoFeasibleCut",
    "Outcome",
    "ProtocolError",
    "RuntimeFailure",
    "ServerRefused",
    "Session",
    "SplitcError",
    "TransportError",
    "__version__",
    "decide",
    "read_bundle",
]
