"""The cloud of a simulation: workers that each behave as `splitc.server.batching` does.

A worker computes one batch at a time. It takes the oldest request and those that wait for the same part, up to that
part's largest batch. A request that finds the queue full is refused and told when to retry; a late request is dropped.
Requests go to the shorter queue of two workers drawn at random, as in Ray Serve (Mitzenmacher, "The power of
two choices in randomized load balancing", IEEE Trans. Parallel Distrib. Syst. 12(10), 2001).
"""

import math
import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from splitc.bundle.price import Price
from splitc.simulate.events import Events

# The weight of the last run in the estimate of the next, as in `splitc.server.batching`.
_NEWEST = 0.25
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class CloudWork:
    """The work that a request asks for.

    Attributes:
        key: requests with equal keys can run as one batch.
        run_s: the times of batches of 1, 2, ... requests, up to the largest.
        work_s: the least cost of a request, in the best batch: its share of the machine, for the price.
    """

    key: Hashable
    run_s: tuple[float, ...]
    work_s: float


class SimulatedClient(Protocol):
    """A client that waits for a result until `deadline_s`."""

    deadline_s: float

    def computed(self, queue_s: float, compute_s: float, now_s: float) -> None:
        """The result is ready."""
        ...

    def broke(self, now_s: float) -> None:
        """The worker went down."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    client: SimulatedClient
    part: CloudWork
    since_s: float


class Worker:
    """One queue, its compute thread, and its price.

    Args:
        on_run: called with the start and the duration of each run; negative for the rest of a run that broke off.
    """

    def __init__(
        self, events: Events, *, max_queue: float, price: Price, on_run: Callable[[float, float], None]
    ) -> None:
        self._events, self._max_queue, self._on_run = events, max_queue, on_run
        self.price = price
        self._queue: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        self._free_s = 0.0
        self._epoch = 0  # of the current run: a worker that went down forgets it
        self._expected_s: dict[Hashable, float] = {}
        self.is_up = True
        self.refused = 0

    def __len__(self) -> int:
        """The number of requests that wait or run."""
        return len(self._queue) + len(self._running)

    def submit(self, client: SimulatedClient, part: CloudWork, now_s: float) -> float | None:
        """Queue a request; return None if it is accepted, else the whole seconds until it may retry."""
        self.price.arrived(part.work_s, now_s)
        if len(self._queue) >= self._max_queue:
            self.refused += 1
            return max(1, math.ceil(math.fsum(self.job_s(item.part) for item in self._queue)))
        self._queue.append(_Waiting(client, part, now_s))
        if not self._running:
            self._next(now_s)
        return None

    def job_s(self, part: CloudWork) -> float:
        """The recent time of a request for *part*: its share of a batch."""
        return self._expected_s.get(part.key, part.run_s[0])

    def wait_s(self, now_s: float) -> float:
        """The approximate wait of a new request."""
        running_s = max(self._free_s - now_s, 0.0) if self._running else 0.0
        return running_s + math.fsum(self.job_s(item.part) for item in self._queue)

    def stop(self, now_s: float) -> None:
        """Go down and lose all requests that wait or run."""
        lost = [*self._running, *self._queue]
        if self._running:
            self._on_run(self._free_s, now_s - self._free_s)  # it did not run to its end
        self._queue.clear()
        self._running, self.is_up = [], False
        self._epoch += 1
        for item in lost:
            item.client.broke(now_s)

    def start(self, now_s: float) -> None:  # noqa: ARG002 - an event
        """Come up again with an empty queue."""
        self.is_up = True

    def _next(self, now_s: float) -> None:
        batch = self._take(now_s)
        self._running = batch
        if not batch:
            return
        part = batch[0].part
        took_s = part.run_s[len(batch) - 1]
        self._free_s = now_s + took_s
        self._on_run(now_s, took_s)
        epoch = self._epoch
        self._events.at(self._free_s, lambda then_s: self._done(epoch, batch, now_s, then_s))

    def _take(self, now_s: float) -> list[_Waiting]:
        """The oldest request that is not late, and those that run with it, in order."""
        waiting = [item for item in self._queue if item.client.deadline_s > now_s]
        if not waiting:
            self._queue.clear()
            return []
        part = waiting[0].part
        batch, others = list[_Waiting](), deque[_Waiting]()
        for item in waiting:
            joins = len(batch) < len(part.run_s) and item.part.key == part.key
            (batch if joins else others).append(item)
        self._queue = others
        return batch

    def _done(self, epoch: int, batch: list[_Waiting], began_s: float, now_s: float) -> None:
        if epoch != self._epoch:
            return
        took_s = now_s - began_s
        part = batch[0].part
        self._expected_s[part.key] = self.job_s(part) + _NEWEST * (took_s / len(batch) - self.job_s(part))
        self._next(now_s)
        for item in batch:
            item.client.computed(began_s - item.since_s, took_s, now_s)


class SimulatedCloud:
    """All workers, and the choice between them."""

    def __init__(self, workers: Sequence[Worker], *, seed: int) -> None:
        self.workers = tuple(workers)
        self._random = random.Random(seed)  # noqa: S311 - spreads load, keeps no secret

    def worker(self) -> Worker | None:
        """The worker for the next request; None if all are down."""
        up = [worker for worker in self.workers if worker.is_up]
        if len(up) > _FEW:
            up = self._random.sample(up, _FEW)
        return min(up, key=len, default=None)

    def wait_s(self, now_s: float) -> float:
        """The approximate wait of a new request; infinite if all workers are down."""
        waits_s = [worker.wait_s(now_s) for worker in self.workers if worker.is_up]
        return math.fsum(waits_s) / len(waits_s) if waits_s else math.inf

    def price(self, now_s: float) -> float:
        """The mean price of the workers; infinite if all are down."""
        prices = [worker.price.now(now_s) for worker in self.workers if worker.is_up]
        return math.fsum(prices) / len(prices) if prices else math.inf
