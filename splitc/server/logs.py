"""Logs each event as one line of JSON on stderr.

A thread writes the lines. If nobody reads stderr, a write blocks; the server then goes on, and drops lines.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from logging.handlers import QueueHandler
from typing import Any

LOGGER = logging.getLogger("splitc.server")
_OTHERS = ("uvicorn.error", "asyncio")
_SHOWN_CHARACTERS = 300
_MAX_WAITING = 10_000  # lines
_FLUSH_S = 1.0
_RETRY_S = 0.1


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


class LogWriter(QueueHandler):
    """Has a thread write lines with *write*, which may block; lines beyond those that wait are dropped and counted."""

    def __init__(self, write: Callable[[str], None], *, max_waiting: int = _MAX_WAITING) -> None:
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(max_waiting)
        super().__init__(self._lines)
        self.setFormatter(JsonLines())
        self._write = write
        self._dropped = 0
        threading.Thread(target=self._work, name="splitc-log", daemon=True).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Let *record* wait to be written, or drop it."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1  # logging holds the lock of this handler

    def flush(self) -> None:
        """Wait until all is written, for at most a second."""
        done = self._lines.all_tasks_done
        with done:
            done.wait_for(lambda: not self._lines.unfinished_tasks, _FLUSH_S)

    def _work(self) -> None:
        while True:
            self._write(self._lines.get().msg)
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write(self._about(dropped))
            self._lines.task_done()

    def _about(self, dropped: int) -> str:
        record = logging.LogRecord(LOGGER.name, logging.WARNING, "", 0, "dropped", None, None)
        record.fields = {"lines": dropped}
        return self.format(record)


def _to_stderr(line: str) -> None:
    """Write *line*, to the file descriptor itself: a thread that blocks in `sys.stderr` would hold its lock for ever."""
    try:
        number = sys.stderr.fileno()
    except (OSError, AttributeError):  # a stand-in for the real one
        print(line, file=sys.stderr, flush=True)  # noqa: T201
        return
    rest = memoryview(f"{line}\n".encode())
    while rest:
        try:
            rest = rest[os.write(number, rest) :]
        except BlockingIOError:
            time.sleep(_RETRY_S)
        except OSError:  # closed: there is no place to say so
            return


def _is_new(once: "Once", record: logging.LogRecord) -> bool:
    """Whether *record* is the server's own, which repeats nothing, or the first of its kind for a while."""
    if record.name == LOGGER.name:
        return True
    error = record.exc_info[0] if record.exc_info else None
    return once.first(record.name, str(record.msg)[:_SHOWN_CHARACTERS], error.__name__ if error else "")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the server's events, and errors of uvicorn and asyncio, to stderr."""
    handler = LogWriter(_to_stderr)
    handler.addFilter(partial(_is_new, Once()))
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
