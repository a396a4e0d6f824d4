"""The cloud side: what it does of the cuts of bundles, served over the Open Inference Protocol v2.

Public, for use in another ASGI server: `application(open_parts(...), ServerOptions(...))`.
"""

from typing import TYPE_CHECKING

from splitc.common.lazy import importer

if TYPE_CHECKING:
    from splitc.server.app import application
    from splitc.server.options import ServerOptions
    from splitc.server.tails.open import open_parts
else:  # hidden from type checkers, which would take any name for one of splitc's
    __getattr__ = importer(
        __name__,
        {
            "ServerOptions": "splitc.server.options",
            "application": "splitc.server.app",
            "open_parts": "splitc.server.tails.open",
        },
    )

__all__ = ["ServerOptions", "application", "open_parts"]
