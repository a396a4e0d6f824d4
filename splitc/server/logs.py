"""One line of JSON for each event, on stderr."""

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
    """Makes one line of each record: time, level, event, then what belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= {key: _short(value) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _short(value: object) -> object:
    return value if isinstance(value, int | float | None) else str(value)[:_SHOWN_CHARACTERS]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the server's events, and what uvicorn and asyncio find worth an error, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name == LOGGER.name else logging.ERROR)


class Once:
    """Remembers what was told lately, so that a peer that errs all the time does not fill the disk.

    Args:
        period_s: how long the same is not told again.
        most: how many things are remembered.
    """

    def __init__(self, *, period_s: float = 60.0, most: int = 4096) -> None:
        self._period_s = period_s
        self._most = most
        self._told_s: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def first(self, *thing: str) -> bool:
        """Whether *thing* should be told now."""
        now_s = time.monotonic()
        if now_s - self._told_s.get(thing, -self._period_s) < self._period_s:
            return False
        self._told_s[thing] = now_s
        self._told_s.move_to_end(thing)
        if len(self._told_s) > self._most:
            self._told_s.popitem(last=False)
        return True
