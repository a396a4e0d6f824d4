"""Threads for what goes on beside the caller."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

from splitc.common.errors import RuntimeFailure

T = TypeVar("T")


def beside(task: Callable[[], T]) -> Future[T]:
    """Run *task*, which ends by itself, in a thread of its own.

    An exit of the program waits for it: a thread that is inside ONNX Runtime then would abort the process.
    """
    future: Future[T] = Future()
    Thread(target=_run, args=(task, future), name="splitc-here").start()
    return future


class Workers:
    """As many threads as there are tasks at once, kept for the next ones.

    Unlike those of an executor they are daemons: an exchange with a dead server does not delay an exit.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._idle = 0
        self._closed = False

    def start(self, task: Callable[[], T]) -> Future[T]:
        """Run *task*, at once, in another thread; after `close` the future fails with RuntimeFailure."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(RuntimeFailure("the session was closed"))
                return future
            if self._idle:
                self._idle -= 1
            else:
                thread = Thread(target=self._work, name="splitc", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._tasks.put(partial(_run, task, future, self._one_more_idle))
        return future

    def close(self, timeout_s: float) -> None:
        """End the threads after their tasks; wait up to *timeout_s* for that."""
        until_s = time.monotonic() + timeout_s
        with self._lock:
            if not self._closed:
                for _ in self._threads:
                    self._tasks.put(None)
            self._closed = True
        for thread in self._threads:
            thread.join(max(until_s - time.monotonic(), 0.0))

    def _work(self) -> None:
        while (run := self._tasks.get()) is not None:
            run()
            del run  # what it holds may be large, and the next one far off

    def _one_more_idle(self) -> None:
        with self._lock:
            self._idle += 1


def _run(task: Callable[[], T], future: Future[T], ended: Callable[[], None] = lambda: None) -> None:
    """Run *task*; call *ended* before the result is told, since whoever hears of it may have another task."""
    try:
        result = task()
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        ended()
        future.set_exception(error)
        # The error holds this frame: if that held the future, which holds the error, all that the task had in
        # its hands would stay until the next garbage collection.
        del future
    else:
        ended()
        future.set_result(result)
