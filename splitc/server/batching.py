"""One thread that computes, and the bounded queue before it.

The thread never waits for a batch to fill. Requests queue up while it computes; when it is free, it takes the request
that has waited longest, and batches it with queued requests for the same file and shape. A request of one run waits
at most for the earlier requests and one batch. A request of many runs returns to the queue after each run, before
the thread takes the next batch, so that different iterations of several requests can run as one batch (Yu et al., "Orca: a distributed
serving system for transformer-based generative models", OSDI 2022, section 3).
"""

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence

from splitc.common.errors import DeadlineExceeded, RuntimeFailure
from splitc.common.values import Array
from splitc.server.jobs import OnRun, Ran, ServerJob, next_batch, run_batch
from splitc.server.tails.part import ServedPart

# Weight of the last run in the estimate of the next one.
_NEWEST = 0.25


class QueueFull(RuntimeFailure):
    """The queue is full; the requests in it should be done in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue of this server is full; try again later, or run on the device")
        self.retry_after_s = retry_after_s


class Batcher:
    """The queue and its thread, which starts with the first request.

    Args:
        max_queue: how many requests may wait to begin.
        on_run: called after each run.
    """

    def __init__(self, *, max_queue: int, on_run: OnRun) -> None:
        self._max_queue = max_queue
        self._on_run = on_run
        self._changed = threading.Condition()
        self._queue: list[ServerJob] = []
        self._busy = self._closed = False
        self._expected_s: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many requests wait to begin."""
        return sum(not job.has_begun for job in self._queue)

    def check_room(self) -> None:
        """Check that the queue has a place, before the body of a request is read.

        Raises:
            QueueFull: the queue is full.
        """
        with self._changed:
            self._check_room()

    def submit(
        self,
        part: ServedPart,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        deadline_s: float = math.inf,
    ) -> ServerJob:
        """Queue a request; call it on the event loop that awaits the job's future, which is never cancelled.

        Raises:
            QueueFull: the queue is full.
            BundleError: the part cannot begin.
        """
        future: asyncio.Future[Ran | Exception] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._check_room()
            waits = self._busy or bool(self._queue)
            job = ServerJob(part, inputs, outputs, deadline_s, waits, future)
            self._queue.append(job)
            self._start()
            self._changed.notify()
        return job

    def withdraw(self, job: ServerJob) -> bool:
        """Take *job* out of the queue, or have it end with the run that it is part of; False if it would end anyway."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                return True
            job.is_given_up = job.is_series
            return job.is_given_up

    def close(self, within_s: float = math.inf) -> None:
        """Finish the queued requests, for at most *within_s* seconds; nothing may be submitted any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(min(within_s, threading.TIMEOUT_MAX))

    # --- under the lock ---

    def _check_room(self) -> None:
        if self._closed or (len(self._queue) >= self._max_queue and len(self) >= self._max_queue):
            raise QueueFull(max(1, math.ceil(math.fsum(map(self._left_s, self._queue)))))

    def _left_s(self, job: ServerJob) -> float:
        """The estimated computing time that the job still needs."""
        return max(self._job_s(job) - job.share_s, 0.0)

    def _job_s(self, job: ServerJob) -> float:
        """Recent computing time of a request to this part; before the first one, the time in the manifest."""
        return self._expected_s.get(job.part.name, job.part.cut.cloud_s)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="splitc-compute", daemon=True)
            self._thread.start()

    # --- the thread ---

    def _work(self) -> None:
        while self._run_next():
            pass  # between two batches, nothing holds on to the tensors of the last one

    def _run_next(self) -> bool:
        batch = self._take()
        if not batch:
            return False
        again: list[ServerJob] = []
        done: list[tuple[ServerJob, Ran | Exception]] = []
        for job, ran in zip(batch, run_batch(batch, self._on_run), strict=True):
            outcome = job.go_on(ran, len(batch))
            if outcome is None:
                again.append(job)
            else:
                done.append((job, outcome))
        self._queue_again(again)
        # Without the lock: only this thread writes, and a late estimate does no harm.
        self._learn(done)
        _deliver(done)
        return True

    def _queue_again(self, jobs: Sequence[ServerJob]) -> None:
        if jobs:
            with self._changed:
                self._queue = [*self._queue, *(job for job in jobs if not job.is_given_up)]

    def _take(self) -> list[ServerJob]:
        """Wait for the next batch; it is empty when the queue is closed."""
        with self._changed:
            self._busy = False
            self._drop_late()
            while not self._queue and not self._closed:
                self._changed.wait()
                self._drop_late()
            batch = next_batch(self._queue)
            self._queue = [job for job in self._queue if job not in batch]
            self._busy = bool(batch)
            for job in batch:
                job.has_begun = True
            return batch

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        late = [job for job in self._queue if job.deadline_s <= now_s]
        if late:
            self._queue = [job for job in self._queue if job.deadline_s > now_s]
            _deliver([(job, too_late(job)) for job in late])

    def _learn(self, done: Sequence[tuple[ServerJob, Ran | Exception]]) -> None:
        for job, outcome in done:
            if isinstance(outcome, Ran):
                before_s = self._job_s(job)
                self._expected_s[job.part.name] = before_s + _NEWEST * (job.share_s - before_s)


def too_late(job: ServerJob) -> DeadlineExceeded:
    """The error for a request whose deadline has passed."""
    end = "was done" if job.has_begun else "began"
    return DeadlineExceeded(f"the time that the request allows passed before its computation {end}")


def _deliver(done: Sequence[tuple[ServerJob, Ran | Exception]]) -> None:
    """Hand over all outcomes at once: waking the event loop costs more than the rest."""
    if not done:
        return

    def tell() -> None:
        for job, outcome in done:
            if not job.future.done():
                job.future.set_result(outcome)

    try:
        done[0][0].future.get_loop().call_soon_threadsafe(tell)
    except RuntimeError:
        return  # the loop is closed: the server was ended by force
