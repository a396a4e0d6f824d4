"""Threads for work that runs in parallel to the caller."""

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
    """Run *task* in a thread of its own. The task must end by itself.

    The program waits for it at exit, because a thread that is then inside ONNX Runtime would abort the process.
    """
    future: Future[T] = Future()
    Thread(target=_run, args=(task, future), name="splitc-here").start()
    return future


class Workers:
    """A pool that grows to as many threads as tasks run at once, and keeps them for later tasks.

    Unlike the threads of an executor they are daemons, so an exchange with a dead server does not delay an exit.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._idle = 0
        self._closed = False

    def start(self, task: Callable[[], T]) -> Future[T]:
        """Run *task* in another thread, without waiting in a queue; after `close` the future fails with RuntimeFailure."""
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
        """End the threads after their current tasks, and wait up to *timeout_s* for them."""
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
            del run  # it may hold large tensors, and the next task may come much later

    def _one_more_idle(self) -> None:
        with self._lock:
            self._idle += 1


def _run(task: Callable[[], T], future: Future[T], ended: Callable[[], None] = lambda: None) -> None:
    """Run *task*; call *ended* before the result is set, because the caller may then start another task at once."""
    try:
        result = task()
    except BaseException as error:  # noqa: BLE001 - the future passes it on
        ended()
        future.set_exception(error)
        # The error refers to this frame. If the frame also referred to the future, the cycle would keep the task's
        # values until the next garbage collection.
        del future
    else:
        ended()
        future.set_result(result)
