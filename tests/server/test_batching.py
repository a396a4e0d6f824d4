"""One thread, a bounded queue, batches of what is there: each result is that of a run alone."""

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.manifest import TensorEntry
from splitc.common.errors import DeadlineExceeded, ModelError
from splitc.common.values import Array
from splitc.server.batching import Batcher, QueueFull
from splitc.server.jobs import Ran, ServerJob, next_batch, run_batch
from splitc.server.tails.part import ServedPart
from tests.server.serving import LIMIT_S, Gated, double, make_part, ones, until

WIDE = TensorEntry("x", "float32", ("batch", "width"), 12)


def nothing(_: str, __: int, ___: float) -> None:
    pass


def make_job(
    part: ServedPart, shape: tuple[int, ...], value: float = 1.0, outputs: tuple[str, ...] = ("y",)
) -> ServerJob:
    inputs = {"x": np.full(shape, value, np.float32)}
    loop = asyncio.new_event_loop()
    try:
        return ServerJob(part, inputs, outputs, math.inf, False, loop.create_future())
    finally:
        loop.close()


SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
KINDS = st.tuples(
    st.integers(0, 1), st.integers(1, 5), st.integers(1, 2), st.sampled_from([("y",), ("y", "z")])
)


@SETTINGS
@given(st.lists(KINDS, max_size=12), st.integers(1, 8))
def test_a_batch_is_the_oldest_and_what_fits_it(
    kinds: list[tuple[int, int, int, tuple[str, ...]]], max_batch: int
) -> None:
    parts = [make_part(f"t{number}", max_batch=max_batch) for number in range(2)]
    queue = [
        make_job(parts[number], (count, width), outputs=outputs) for number, count, width, outputs in kinds
    ]
    batch = next_batch(queue)
    assert batch[:1] == queue[:1]
    assert [job for job in queue if job in batch] == batch  # in order
    assert len({(job.part.name, job.inputs["x"].shape[1:], job.outputs) for job in batch}) <= 1
    assert len(batch) <= 1 or sum(job.rows for job in batch) <= max_batch
    room = max_batch - sum(job.rows for job in batch)
    assert all(job in batch or not job.joins(batch[0]) or job.rows > room for job in queue)


@SETTINGS
@given(st.lists(st.tuples(st.integers(1, 3), st.floats(-100, 100)), min_size=1, max_size=6))
def test_a_batch_gives_what_single_runs_give(requests: list[tuple[int, float]]) -> None:
    part = make_part(max_batch=100)
    jobs = [make_job(part, (count, 3), value) for count, value in requests]
    runs: list[tuple[str, int]] = []
    outcomes = run_batch(jobs, lambda name, size, _: runs.append((name, size)))
    assert runs == [("made.c1", len(jobs))]
    for job, outcome in zip(jobs, outcomes, strict=True):
        assert isinstance(outcome, Ran)
        np.testing.assert_array_equal(outcome.outputs["y"], double(job.inputs, ["y"])["y"])
        assert outcome.outputs["y"].flags.c_contiguous


def test_a_bad_request_harms_no_other() -> None:
    def picky(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if (inputs["x"] < 0).any():
            raise ModelError("below zero")
        return double(inputs, outputs)

    part = make_part(run=picky)
    outcomes = run_batch([make_job(part, (1, 3), value) for value in (1.0, -1.0, 2.0)], nothing)
    assert isinstance(outcomes[0], Ran)
    assert isinstance(outcomes[1], ModelError)
    assert isinstance(outcomes[2], Ran)
    assert outcomes[2].outputs["y"][0, 0] == 4


def test_outputs_that_do_not_follow_the_batch_are_made_one_by_one() -> None:
    def total(inputs: Mapping[str, Array], _: Sequence[str]) -> dict[str, Array]:
        return {"y": inputs["x"].sum(axis=0)[:1]}

    part = make_part(run=total)
    outcomes = run_batch([make_job(part, (1, 3), value) for value in (1.0, 5.0)], nothing)
    assert [outcome.outputs["y"].tolist() for outcome in outcomes if isinstance(outcome, Ran)] == [[1], [5]]


def test_requests_pile_up_while_the_thread_is_busy() -> None:
    gated = Gated()
    part, sizes = make_part(run=gated), list[int]()

    async def go() -> list[Ran | Exception]:
        batcher = Batcher(max_queue=16, on_run=lambda _, size, __: sizes.append(size))
        first = batcher.submit(part, ones(value=1), ("y",))
        await asyncio.to_thread(until, lambda: len(gated.rows) == 1, "the first run")
        later = [batcher.submit(part, ones(2, value=value), ("y",)) for value in range(2, 7)]
        assert (first.waits, later[0].waits, len(batcher)) == (False, True, 5)
        gated.gate.set()
        outcomes = [await asyncio.wait_for(job.future, LIMIT_S) for job in (first, *later)]
        await asyncio.to_thread(batcher.close)
        return outcomes

    outcomes = asyncio.run(go())
    assert sizes == [1, 4, 1]  # 8 rows at most
    assert gated.rows == [1, 8, 2]
    for value, outcome in enumerate(outcomes, start=1):
        assert isinstance(outcome, Ran)
        np.testing.assert_array_equal(
            outcome.outputs["y"], np.full((min(value, 2), 3), 2 * value, np.float32)
        )
        assert outcome.queue_s >= 0
        assert outcome.compute_s >= 0


def test_other_parts_run_in_their_turn() -> None:
    gate = threading.Event()
    order: list[str] = []

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        order.append(f"{inputs['x'][0, 0]:.0f} of {len(inputs['x'])}")
        assert gate.wait(LIMIT_S)
        return double(inputs, outputs)

    a, b = make_part("a", run), make_part("b", run)

    async def go() -> None:
        batcher = Batcher(max_queue=16, on_run=nothing)
        jobs = [batcher.submit(a, ones(value=0), ("y",))]
        await asyncio.to_thread(until, lambda: bool(order), "the first run")
        jobs += [batcher.submit(part, ones(value=value), ("y",)) for part, value in ((b, 1), (a, 2), (b, 3))]
        gate.set()
        await asyncio.gather(*(job.future for job in jobs))
        await asyncio.to_thread(batcher.close)

    asyncio.run(go())
    assert order == ["0 of 1", "1 of 2", "2 of 1"]


def test_a_full_queue_says_when_to_come_back() -> None:
    gated = Gated()
    part = make_part(run=gated, max_batch=1)

    async def go() -> None:
        batcher = Batcher(max_queue=2, on_run=nothing)
        jobs = [batcher.submit(part, ones(), ("y",))]
        await asyncio.to_thread(until, lambda: bool(gated.rows), "the first run")
        jobs += [batcher.submit(part, ones(), ("y",)) for _ in range(2)]
        batcher._expected_s[part.name] = 1.6
        for refuse in (batcher.check_room, lambda: batcher.submit(part, ones(), ("y",))):
            with pytest.raises(QueueFull) as caught:
                refuse()
            assert caught.value.retry_after_s == 4  # 2 x 1.6 s, in whole seconds
        assert batcher.withdraw(jobs[2])
        assert not batcher.withdraw(jobs[2])
        assert not batcher.withdraw(jobs[0])
        batcher.check_room()
        gated.gate.set()
        await asyncio.gather(*(job.future for job in jobs[:2]))
        await asyncio.to_thread(batcher.close)
        with pytest.raises(QueueFull):
            batcher.submit(part, ones(), ("y",))

    asyncio.run(go())
    assert gated.rows == [1, 1]


def test_what_nobody_waits_for_is_not_computed() -> None:
    gated = Gated()
    part = make_part(run=gated, max_batch=1)

    async def go() -> Ran | Exception:
        batcher = Batcher(max_queue=2, on_run=nothing)
        first = batcher.submit(part, ones(), ("y",))
        await asyncio.to_thread(until, lambda: bool(gated.rows), "the first run")
        late = batcher.submit(part, ones(), ("y",), time.monotonic() - 1)
        gated.gate.set()
        outcome = await asyncio.wait_for(late.future, LIMIT_S)
        await first.future
        await asyncio.to_thread(batcher.close)
        return outcome

    assert isinstance(asyncio.run(go()), DeadlineExceeded)
    assert gated.rows == [1]


def test_closing_works_off_the_queue() -> None:
    gated = Gated()
    part = make_part(run=gated, max_batch=1)

    async def go() -> list[Ran | Exception]:
        batcher = Batcher(max_queue=3, on_run=nothing)
        jobs = [batcher.submit(part, ones(), ("y",)) for _ in range(3)]
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        gated.gate.set()
        await closing
        return [await job.future for job in jobs]

    assert all(isinstance(outcome, Ran) for outcome in asyncio.run(go()))
    assert gated.rows == [1, 1, 1]


def test_a_loop_that_is_gone_does_not_end_the_thread() -> None:
    gated = Gated()
    batcher = Batcher(max_queue=3, on_run=nothing)

    async def leave() -> None:
        batcher.submit(make_part(run=gated), ones(), ("y",))

    asyncio.run(leave())
    gated.gate.set()

    async def come_back() -> Ran | Exception:
        return await asyncio.wait_for(batcher.submit(make_part(), ones(), ("y",)).future, LIMIT_S)

    assert isinstance(asyncio.run(come_back()), Ran)
    batcher.close()
