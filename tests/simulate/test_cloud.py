"""Workers behave as the server's queue does, and as queueing theory says."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.price import Price
from splitc.server.jobs import ServerJob, next_batch
from splitc.server.tails.part import File
from splitc.simulate.bounds.queueing import load_of, waiting
from splitc.simulate.cloud import CloudWork, SimulatedCloud, Worker
from splitc.simulate.events import Events

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
BATCHES = 40  # of observations, for the standard error of a mean of what hangs together
ERRORS = 4.0  # standard errors that a mean may be off: 1 of 16,000 would be by chance


@dataclass(eq=False)
class Waiter:
    """A client that writes down what it gets."""

    deadline_s: float = math.inf
    queue_s: float | None = None
    compute_s: float | None = None
    at_s: float | None = None
    broke_s: float | None = None

    def computed(self, queue_s: float, compute_s: float, now_s: float) -> None:
        self.queue_s, self.compute_s, self.at_s = queue_s, compute_s, now_s

    def broke(self, now_s: float) -> None:
        self.broke_s = now_s


@dataclass
class Bench:
    """One worker on a clock of its own."""

    max_queue: float = math.inf
    events: Events = field(default_factory=Events)
    runs: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker = Worker(
            self.events,
            max_queue=self.max_queue,
            price=Price(capacity=0.9),
            on_run=lambda began_s, took_s: self.runs.append((began_s, took_s)),
        )

    def submit(self, time_s: float, part: CloudWork, **options: float) -> Waiter:
        waiter = Waiter(**options)
        self.events.at(time_s, lambda now_s: cast(None, self.worker.submit(waiter, part, now_s)))
        return waiter


def part(key: object, *run_s: float) -> CloudWork:
    return CloudWork(cast(Any, key), run_s, min(run_s))


def waits(services_s: Callable[[random.Random], float], rate: float, count: int) -> list[float]:
    """Times in the queue of requests that come at random, once the queue has filled."""
    source, bench, now_s = random.Random(3), Bench(), 0.0
    waiters = []
    for number in range(count):
        now_s += source.expovariate(rate)
        waiters.append(bench.submit(now_s, part(number, services_s(source))))
    bench.events.run()
    found = [waiter.queue_s for waiter in waiters if waiter.queue_s is not None]
    assert len(found) == count
    return found[count // 10 :]


def assert_mean(values: Sequence[float], theory: float) -> None:
    means = np.array_split(np.array(values), BATCHES)
    error = float(np.std([part.mean() for part in means], ddof=1)) / math.sqrt(BATCHES)
    assert error < 0.05 * theory, "too few requests to tell"
    assert abs(np.mean(values) - theory) < ERRORS * error


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_random_runs_wait_as_in_mm1(load: float) -> None:
    assert_mean(waits(lambda source: source.expovariate(1.0), load, 60_000), load / (1 - load))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_equal_runs_wait_as_in_md1(load: float) -> None:
    theory = load / (2 * (1 - load))
    assert math.prod(waiting(load, 1)) == pytest.approx(theory)
    assert_mean(waits(lambda _: 1.0, load, 60_000), theory)


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=12), st.integers(1, 4))
def test_takes_the_batch_that_the_server_takes(asked: list[tuple[str, int]], largest: int) -> None:
    """Alone, a first request occupies the worker; the others then wait together."""
    bench = Bench()
    bench.submit(0.0, part("first", 1.0))
    curve = [1.0 + 0.01 * size for size in range(largest)]
    waiters = [bench.submit(0.5, part(key, *curve)) for key, _ in asked]
    bench.events.run()
    files = {key: File(key, largest, lambda _inputs, _outputs: {}) for key, _ in asked}
    parts = {key: cast(Any, SimpleNamespace(runs=file, bundle=key)) for key, file in files.items()}
    inputs, nobody = {"x": np.zeros((1, 2), np.float32)}, cast("asyncio.Future[Any]", None)
    queue = [
        ServerJob(parts[key], inputs, ("y",), math.inf, waits=True, future=nobody, arrived_s=float(number))
        for number, (key, _) in enumerate(asked)
    ]
    place = {id(job): number for number, job in enumerate(queue)}
    began_s = 1.0
    while queue:
        batch = next_batch(queue)
        for job in batch:
            waiter = waiters[place[id(job)]]
            assert waiter.queue_s == pytest.approx(began_s - 0.5)
            assert waiter.compute_s == pytest.approx(curve[len(batch) - 1])
        began_s += curve[len(batch) - 1]
        queue = [job for job in queue if job not in batch]


def test_a_full_queue_says_when_to_come_back() -> None:
    bench = Bench(max_queue=2)
    said = list[float | None]()
    slow = part("a", 1.5)
    for _ in range(4):
        bench.events.at(0.0, lambda now_s: said.append(bench.worker.submit(Waiter(), slow, now_s)))
    bench.events.run()
    assert said == [None, None, None, 3.0]  # one runs, two wait
    assert bench.worker.refused == 1


def test_what_is_late_is_not_run() -> None:
    bench = Bench()
    slow = part("a", 1.0)
    first, late, last = (
        bench.submit(0.0, slow),
        bench.submit(0.1, slow, deadline_s=0.9),
        bench.submit(0.2, slow),
    )
    bench.events.run()
    assert late.at_s is None
    assert (first.at_s, last.at_s) == (1.0, 2.0)
    assert bench.runs == [(0.0, 1.0), (1.0, 1.0)]


def test_a_worker_that_goes_down_breaks_all_off_and_comes_back_empty() -> None:
    bench = Bench()
    slow = part("a", 1.0)
    running, waiting = bench.submit(0.0, slow), bench.submit(0.1, slow)
    bench.events.at(0.5, bench.worker.stop)
    bench.events.at(0.7, bench.worker.start)
    later = bench.submit(0.8, slow)
    bench.events.run()
    assert running.broke_s == waiting.broke_s == 0.5
    assert running.at_s is waiting.at_s is None
    assert later.at_s == pytest.approx(1.8)
    assert sum(took_s for _, took_s in bench.runs) == pytest.approx(1.5)


def test_requests_go_where_fewer_wait_and_never_to_what_is_down() -> None:
    events = Events()
    workers = [
        Worker(events, max_queue=9, price=Price(capacity=0.9), on_run=lambda *_: None) for _ in range(2)
    ]
    cloud = SimulatedCloud(workers, seed=0)
    assert workers[0].submit(Waiter(), part("a", 1.0), 0.0) is None
    assert cloud.worker() is workers[1]
    assert cloud.wait_s(0.0) == pytest.approx(0.5)
    workers[1].stop(0.0)
    assert cloud.worker() is workers[0]
    workers[0].stop(0.0)
    assert cloud.worker() is None
    assert cloud.wait_s(0.0) == cloud.price(0.0) == math.inf


def test_the_price_rises_with_what_full_batches_cannot_do() -> None:
    bench = Bench()
    cheap = part("a", 0.1, 0.12)  # 0.06 each, at best
    for number in range(3000):
        bench.submit(number / 14, CloudWork("a", cheap.run_s, 0.06))  # 0.84 of 0.9
    bench.events.run()
    assert bench.worker.price.now(3000 / 14) == 0
    bench = Bench()
    for number in range(3000):
        bench.submit(number / 17, CloudWork("a", cheap.run_s, 0.06))  # 1.02
    bench.events.run()
    assert bench.worker.price.now(3000 / 17) > 1


@SETTINGS
@given(st.floats(0.01, 3), st.floats(1, 9))
def test_a_steady_load_gives_batches_that_hold_what_comes_meanwhile(work: float, longest: float) -> None:
    curve = tuple(np.linspace(1, min(longest, 8), 8).tolist())
    found = load_of(work, 0.01, curve=curve, workers=1, max_queue=64)
    assert 0 <= found.busy <= 1
    assert 0 < found.accepted <= 1
    assert 1 <= found.longer <= curve[-1]
    best = len(curve) / curve[-1]
    assert (found.accepted < 1) == (work > best)
