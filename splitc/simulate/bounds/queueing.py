"""What a steady load does to workers that run whatever waits as one batch."""

import math
from dataclasses import dataclass

import numpy as np

from splitc.simulate.scenario import Curve

_FEW = 2  # queues of which the shorter is taken: with so many, it is the shortest
_POWERS = 12
_FINE = 64  # steps from one batch size to the next


@dataclass(frozen=True, slots=True)
class Load:
    """The cloud under a load.

    Attributes:
        waits: share of requests that do not find a worker free.
        queue_s: mean wait of those; infinite where there is no worker.
        longer: how long a run is, over that of one request alone.
        accepted: share of requests for which there is a place.
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
    """The cloud where requests of *run_s* come, of which *work* seconds come per second and worker."""
    best = len(curve) / curve[-1]
    if work > best:
        return Load(1.0, run_s * max_queue / best, curve[-1], best / work, 1.0)
    size = _batch(work, curve)
    longer = float(np.interp(size, range(1, len(curve) + 1), curve))
    most_s = run_s * longer if len(curve) > 1 else run_s * max_queue
    waits, runs = waiting(work, workers)
    return Load(waits, min(run_s * runs, most_s), longer, 1.0, min(work * longer / size, 1.0))


def waiting(work: float, workers: float) -> tuple[float, float]:
    """The share of requests that wait, and the mean wait of those in runs, where all runs take as long.

    Half of what exponential runs give: of one queue for all workers (Erlang's C formula), or of the shorter of two
    queues among many (Mitzenmacher's limit: a request waits with probability load squared, on average for the sum of
    load ** (2 ** i - 2) runs over i from 2 on); whichever is longer, since two workers are a single queue, nearly.
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
    of_two = sum(math.pow(work, 2**power - 2) for power in range(2, _POWERS)) / 2
    apart = work * work, of_two / (work * work)
    return max(pooled, apart, key=math.prod)


def _batch(work: float, curve: Curve) -> float:
    """How many requests come while so many run."""
    if work <= 1:
        return 1.0
    sizes = np.linspace(1.0, len(curve), _FINE * len(curve))
    fits = work * np.interp(sizes, range(1, len(curve) + 1), curve) <= sizes
    return float(sizes[np.argmax(fits)]) if fits.any() else float(len(curve))
