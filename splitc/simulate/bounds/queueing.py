"""The effect of a steady load on workers that run all waiting requests as one batch."""

import math
from dataclasses import dataclass

import numpy as np

from splitc.simulate.scenario import Curve

_FEW = 2  # up to so many workers, the shorter of two drawn queues is the shortest of all
_POWERS = 12
_FINE = 64  # steps from one batch size to the next


@dataclass(frozen=True, slots=True)
class Load:
    """The cloud under a load.

    Attributes:
        waits: share of requests that do not find a free worker.
        queue_s: their mean wait; infinite without workers.
        longer: the time of a run divided by the time of one request alone.
        accepted: share of requests that are accepted.
        busy: share of time in which a worker computes.
    """

    waits: float
    queue_s: float
    longer: float
    accepted: float
    busy: float


IDLE = Load(0.0, 0.0, 1.0, 1.0, 0.0)
GONE = Load(1.0, math.inf, 1.0, 0.0, 0.0)


def load_of(work: float, run_s: float, *, curve: Curve, workers: float, max_queue: int) -> Load:
    """The cloud under requests of *run_s*, with *work* seconds of work arriving per second and worker."""
    best = len(curve) / curve[-1]
    if work > best:
        return Load(1.0, run_s * max_queue / best, curve[-1], best / work, 1.0)
    size = _batch(work, curve)
    longer = float(np.interp(size, range(1, len(curve) + 1), curve))
    most_s = run_s * longer if len(curve) > 1 else run_s * max_queue
    waits, runs = waiting(work, workers)
    return Load(waits, min(run_s * runs, most_s), longer, 1.0, min(work * longer / size, 1.0))


def waiting(work: float, workers: float) -> tuple[float, float]:
    """The share of requests that wait, and their mean wait in units of a run, if all runs take equally long.

    The wait is half of that with exponential runs. It is the longer one of two: of one queue for all workers (Erlang's C
    formula), or of the shorter of two queues among many (Mitzenmacher's limit: a request waits with probability load
    squared, on average for the sum of load ** (2 ** i - 2) runs over i >= 2). Two workers are nearly a single queue.
    """
    if work <= 0:
        return 0.0, 0.0
    if work >= 1:
        return 1.0, math.inf
    count = max(round(workers), 1)
    offered, blocked = work * count, 1.0
    for number in range(1, count + 1):  # Erlang B, by recursion
        blocked = offered * blocked / (number + offered * blocked)
    waits = blocked / (1 - work * (1 - blocked))
    pooled = waits, 1 / (2 * count * (1 - work))
    if count <= _FEW:
        return pooled
    of_two = math.fsum(math.pow(work, 2**power - 2) for power in range(2, _POWERS)) / 2
    apart = work * work, of_two / (work * work)
    return max(pooled, apart, key=math.prod)


def _batch(work: float, curve: Curve) -> float:
    """The batch size n at which n requests arrive while a batch of n runs."""
    if work <= 1:
        return 1.0
    sizes = np.linspace(1.0, len(curve), _FINE * len(curve))
    fits = work * np.interp(sizes, range(1, len(curve) + 1), curve) <= sizes
    return float(sizes[np.argmax(fits)]) if fits.any() else float(len(curve))
