"""One thread that computes, and the bounded queue before it.

Nothing waits for company: while the thread computes, requests pile up; once it is free it takes the oldest,
and with it what is queued for the same tail in the same shape. What a request waits for is then at most
what came before it and one batch.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from splitc.errors import DeadlineExceeded, ModelError, RuntimeFailure
from splitc.runtime.tensors import Array
from splitc.server.limits import rows
from splitc.server.tails import Tail

# How much the last run counts for the estimate of the next.
_NEWEST = 0.25


class QueueFull(RuntimeFailure):
    """The queue has no place; `retry_after_s` is when what is queued now will be done."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue of this server is full; try again later, or run on the device")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Ran:
    """What a request came to: its outputs, its time in the queue, and that of the run that it was part of."""

    outputs: Mapping[str, Array]
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A request that is queued or running.

    Attributes:
        deadline_s: when nobody waits for it any more, as `time.monotonic` has it; infinite if that is not known.
        waits: whether it found the thread busy.
        rows: how many of a batch it takes; all of them where it runs alone.
    """

    tail: Tail
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    deadline_s: float
    waits: bool
    rows: int
    future: asyncio.Future[Ran | Exception]
    queued_s: float = field(default_factory=time.monotonic)

    def joins(self, oldest: "Job") -> bool:
        """Whether it can be part of a batch with *oldest*."""
        return (
            self.tail is oldest.tail
            and self.outputs == oldest.outputs
            and all(array.shape[1:] == oldest.inputs[name].shape[1:] for name, array in self.inputs.items())
        )


class Batcher:
    """The queue and its thread, which starts with the first request.

    Args:
        max_queue: how many requests may wait.
        on_run: told the name of the tail, the requests and the seconds of each run.
    """

    def __init__(self, *, max_queue: int, on_run: Callable[[str, int, float], None]) -> None:
        self._max_queue = max_queue
        self._on_run = on_run
        self._changed = threading.Condition()
        self._queue: list[Job] = []
        self._busy = self._closed = False
        self._expected_s: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def check_room(self) -> None:
        """See whether there is a place, before a request is read for nothing.

        Raises:
            QueueFull: there is none.
        """
        with self._changed:
            self._check_room()

    def submit(
        self, tail: Tail, inputs: Mapping[str, Array], outputs: tuple[str, ...], deadline_s: float = math.inf
    ) -> Job:
        """Queue a request; call it on the event loop that awaits the job's future, which is never cancelled.

        Raises:
            QueueFull: there is no place.
        """
        future: asyncio.Future[Ran | Exception] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._check_room()
            waits = self._busy or bool(self._queue)
            job = Job(tail, inputs, outputs, deadline_s, waits, rows(tail, inputs), future)
            self._queue.append(job)
            self._start()
            self._changed.notify()
        return job

    def withdraw(self, job: Job) -> bool:
        """Take *job* out of the queue; False if it is too late for that."""
        with self._changed:
            if job not in self._queue:
                return False
            self._queue.remove(job)
            return True

    def close(self, within_s: float = math.inf) -> None:
        """Work off what is queued, as far as that takes no longer; nothing may be submitted from here on."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(min(within_s, threading.TIMEOUT_MAX))

    # --- under the lock ---

    def _check_room(self) -> None:
        if len(self._queue) >= self._max_queue or self._closed:
            raise QueueFull(max(1, math.ceil(sum(map(self._job_s, self._queue)))))

    def _job_s(self, job: Job) -> float:
        """What a request to that tail took lately; before the first, what the manifest says."""
        said = job.tail.cut.tail
        return self._expected_s.get(job.tail.name, said.latency_s if said is not None else 0.0)

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
        began_s = time.monotonic()
        outcomes = run_batch(batch, self._on_run)
        # Without the lock: only this thread writes, and a late estimate does no harm.
        self._learn(batch, time.monotonic() - began_s)
        _deliver(batch, outcomes)
        return True

    def _take(self) -> list[Job]:
        """Wait for the next batch; none is left when the queue is closed."""
        with self._changed:
            self._busy = False
            self._drop_late()
            while not self._queue and not self._closed:
                self._changed.wait()
                self._drop_late()
            batch = next_batch(self._queue)
            self._queue = [job for job in self._queue if job not in batch]
            self._busy = bool(batch)
            return batch

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        late = [job for job in self._queue if job.deadline_s <= now_s]
        if late:
            self._queue = [job for job in self._queue if job.deadline_s > now_s]
            _deliver(late, [too_late()] * len(late))

    def _learn(self, batch: Sequence[Job], took_s: float) -> None:
        share_s, before_s = took_s / len(batch), self._job_s(batch[0])
        self._expected_s[batch[0].tail.name] = before_s + _NEWEST * (share_s - before_s)


def too_late() -> DeadlineExceeded:
    """What becomes of a request that nobody waits for any more."""
    return DeadlineExceeded("the time that the request allows passed before its computation began")


def next_batch(queue: Sequence[Job]) -> list[Job]:
    """The oldest of *queue*, and those that run with it: as many rows as its tail takes, in order."""
    if not queue:
        return []
    oldest, *others = queue
    batch, total = [oldest], oldest.rows
    for job in others:
        if job.joins(oldest) and total + job.rows <= oldest.tail.max_batch:
            batch.append(job)
            total += job.rows
    return batch


def run_batch(batch: Sequence[Job], on_run: Callable[[str, int, float], None]) -> list[Ran | Exception]:
    """Run *batch* as one; one by one if that fails, so that a bad request harms no other."""
    began_s = time.monotonic()
    try:
        made = _run_together(batch)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this request
        if len(batch) == 1:
            return [error]
        return [outcome for job in batch for outcome in run_batch([job], on_run)]
    compute_s = time.monotonic() - began_s
    on_run(batch[0].tail.name, len(batch), compute_s)
    return [Ran(outputs, began_s - job.queued_s, compute_s) for job, outputs in zip(batch, made, strict=True)]


def _run_together(batch: Sequence[Job]) -> list[Mapping[str, Array]]:
    first = batch[0]
    if len(batch) == 1:
        return [first.tail.run(first.inputs, first.outputs)]
    joined = {name: np.concatenate([job.inputs[name] for job in batch]) for name in first.inputs}
    made = first.tail.run(joined, first.outputs)
    ends = np.cumsum([job.rows for job in batch]).tolist()
    for name, array in made.items():
        if array.ndim == 0 or array.shape[0] != ends[-1]:
            raise ModelError(f"output '{name}' of '{first.tail.name}' does not follow axis 0 of its inputs")
    # Slices along axis 0 are views, and lie in memory as they are sent.
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in made.items()}
        for start, end in zip(starts, ends, strict=True)
    ]


def _deliver(jobs: Sequence[Job], outcomes: Sequence[Ran | Exception]) -> None:
    """Hand over all outcomes at once: waking the event loop costs more than the rest."""

    def tell() -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.future.done():
                job.future.set_result(outcome)

    try:
        jobs[0].future.get_loop().call_soon_threadsafe(tell)
    except RuntimeError:
        return  # the loop is closed: the server was ended by force
