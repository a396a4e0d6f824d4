"""The cloud of a simulation: workers that each behave as `splitc.server.batching` does.

A worker computes one batch at a time. It takes the oldest request and those that wait for the same part, up to that
part's largest batch; what finds its queue full is refused, with a word when to come back; what is late is dropped.
Requests go to the shorter queue of two workers drawn at random, as Ray Serve has it (Mitzenmacher, "The power of
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

# How much the last run counts for the estimate of the next, as in `splitc.server.batching`.
_NEWEST = 0.25
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class CloudWork:
    """What a request wants to have run.

    Attributes:
        key: equal ones run as one.
        run_s: what batches of 1, 2, ... take, up to the largest.
        work_s: what a request costs at least, in the best batch: its share of the machine, for the price.
    """

    key: Hashable
    run_s: tuple[float, ...]
    work_s: float


class SimulatedClient(Protocol):
    """Who waits for a result; `deadline_s` is when nobody does any more."""

    deadline_s: float

    def computed(self, queue_s: float, compute_s: float, now_s: float) -> None:
        """The result is there."""
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
    """One queue, what computes, and the price of that.

    Args:
        on_run: told when each run begins and what it takes; less than nothing for what a run that broke off spared.
    """

    def __init__(
        self, events: Events, *, max_queue: float, price: Price, on_run: Callable[[float, float], None]
    ) -> None:
        self._events, self._max_queue, self._on_run = events, max_queue, on_run
        self.price = price
        self._queue: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        self._free_s = 0.0
        self._epoch = 0  # of what runs: a worker that went down forgets it
        self._expected_s: dict[Hashable, float] = {}
        self.is_up = True
        self.refused = 0

    def __len__(self) -> int:
        """How many wait or run."""
        return len(self._queue) + len(self._running)

    def submit(self, client: SimulatedClient, part: CloudWork, now_s: float) -> float | None:
        """Queue a request; None if it has a place, else how many whole seconds to stay away."""
        self.price.arrived(part.work_s, now_s)
        if len(self._queue) >= self._max_queue:
            self.refused += 1
            return max(1, math.ceil(sum(self.job_s(item.part) for item in self._queue)))
        self._queue.append(_Waiting(client, part, now_s))
        if not self._running:
            self._next(now_s)
        return None

    def job_s(self, part: CloudWork) -> float:
        """What a request for *part* took lately, its share of a batch."""
        return self._expected_s.get(part.key, part.run_s[0])

    def wait_s(self, now_s: float) -> float:
        """How long a new request would wait, about."""
        running_s = max(self._free_s - now_s, 0.0) if self._running else 0.0
        return running_s + sum(self.job_s(item.part) for item in self._queue)

    def stop(self, now_s: float) -> None:
        """Go down, with all that waits or runs."""
        lost = [*self._running, *self._queue]
        if self._running:
            self._on_run(self._free_s, now_s - self._free_s)  # it did not run to its end
        self._queue.clear()
        self._running, self.is_up = [], False
        self._epoch += 1
        for item in lost:
            item.client.broke(now_s)

    def start(self, now_s: float) -> None:  # noqa: ARG002 - an event
        """Come up again, with nothing to do."""
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
        """The oldest that is not late, and those that run with it, in order."""
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
    """All workers, and who gets what."""

    def __init__(self, workers: Sequence[Worker], *, seed: int) -> None:
        self.workers = tuple(workers)
        self._random = random.Random(seed)  # noqa: S311 - spreads load, keeps no secret

    def worker(self) -> Worker | None:
        """Where the next request goes; None if all are down."""
        up = [worker for worker in self.workers if worker.is_up]
        if len(up) > _FEW:
            up = self._random.sample(up, _FEW)
        return min(up, key=len, default=None)

    def wait_s(self, now_s: float) -> float:
        """How long a new request would wait, about; infinite if all workers are down."""
        waits_s = [worker.wait_s(now_s) for worker in self.workers if worker.is_up]
        return sum(waits_s) / len(waits_s) if waits_s else math.inf

    def price(self, now_s: float) -> float:
        """The mean of what workers ask for; infinite if all are down."""
        prices = [worker.price.now(now_s) for worker in self.workers if worker.is_up]
        return sum(prices) / len(prices) if prices else math.inf
