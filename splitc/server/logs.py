"""Logs each event as one line of JSON on stderr."""

import json
import logging
import sys
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("splitc.server")
_OTHERS = ("uvicorn.error", "asyncio")
_SHOWN_CHARACTERS = 300


def tell(level: int, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
    """Log *event*, with the traceback of *error* if there is one."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=error)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, then the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= {key: _short(value) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _short(value: object) -> object:
    return value if isinstance(value, int | float | None) else str(value)[:_SHOWN_CHARACTERS]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the server's events, and errors of uvicorn and asyncio, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name == LOGGER.name else logging.ERROR)


class Once:
    """Suppresses repeated log events, so that a faulty client does not fill the disk.

    Args:
        period_s: seconds during which an event is not repeated.
        most: how many different events are remembered.
    """

    def __init__(self, *, period_s: float = 60.0, most: int = 4096) -> None:
        self._period_s = period_s
        self._most = most
        self._told_s: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def first(self, *thing: str) -> bool:
        """Tell whether *thing* should be logged now: it was not within the period."""
        now_s = time.monotonic()
        if now_s - self._told_s.get(thing, -self._period_s) < self._period_s:
            return False
        self._told_s[thing] = now_s
        self._told_s.move_to_end(thing)
        if len(self._told_s) > self._most:
            self._told_s.popitem(last=False)
        return True
