"""Requests of many runs share batches at whatever iteration they are, in a fair order, and each gets its own result."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.folder import Bundle
from splitc.common.errors import BundleError, DeadlineExceeded, ModelError
from splitc.common.values import Array
from splitc.server.batching import Batcher
from splitc.server.jobs import Ran, ServerJob, next_batch, run_batch
from splitc.server.tails.part import ServedPart
from tests.server.pipelines import LAST, STEP, TEXT, TIMES, Recorded, request, stages, write_pipeline
from tests.server.serving import LIMIT_S, make_part, ones, until

SETTINGS = settings(derandomize=True, deadline=None, max_examples=50)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def make_job(loop: asyncio.AbstractEventLoop, part: ServedPart, inputs: dict[str, Array]) -> ServerJob:
    outputs = tuple(entry.name for entry in part.outputs)
    return ServerJob(part, inputs, outputs, math.inf, False, loop.create_future())


def wanted(recorded: Recorded, cut: str, inputs: dict[str, Array]) -> dict[str, Any]:
    """What the part of *cut* makes of *inputs* alone."""
    first, end = {"c1": (0, 4), "c2": (2, TIMES), "c3": (0, TIMES)}[cut]
    names = ("context", "latents") if cut == "c1" else ("image",)
    return recorded.alone(stages(first, end), inputs, names)


def between(recorded: Recorded, inputs: dict[str, Array]) -> dict[str, Any]:
    """What the device sends for c2."""
    return recorded.alone(stages(0, 2), inputs, ("context", "latents"))


def work_off(*arriving: tuple[int, ServerJob]) -> dict[int, Ran | Exception]:
    """Run those that arrive during the batch of that number, or when nothing else is left; what each came to, in order."""
    done: dict[int, Ran | Exception] = {}
    coming = sorted(arriving, key=lambda pair: pair[0])
    queue: list[ServerJob] = []
    number = 0
    while queue or coming:
        while coming and (coming[0][0] <= number or not queue):
            queue.append(coming.pop(0)[1])
        batch = next_batch(queue)
        number += 1
        queue = [job for job in queue if job not in batch]
        while coming and coming[0][0] <= number:
            queue.append(coming.pop(0)[1])
        for job in batch:
            job.has_begun = True
        for job, ran in zip(batch, run_batch(batch, lambda *_: None), strict=True):
            outcome = job.go_on(ran, len(batch))
            if outcome is None:
                queue.append(job)
            else:
                done[id(job)] = outcome
    return done


def check(recorded: Recorded, cut: str, inputs: dict[str, Array], outcome: Ran | Exception) -> None:
    assert isinstance(outcome, Ran)
    for name, value in wanted(recorded, cut, inputs).items():
        np.testing.assert_allclose(outcome.outputs[name], value, rtol=1e-5, atol=1e-6)


def test_iterations_run_as_one_whichever_they_are(bundle: Bundle, loop: asyncio.AbstractEventLoop) -> None:
    """One request comes when another is at its second iteration: once it has got there, they share all that is left."""
    recorded = Recorded(bundle)
    first, second = request(1), request(2)
    jobs = [make_job(loop, recorded.parts()["c3"], first), make_job(loop, recorded.parts()["c1"], second)]
    done = work_off((0, jobs[0]), (3, jobs[1]))
    assert recorded.runs == [
        *[(TEXT, 1), (STEP, 1), (STEP, 1), (TEXT, 1)],
        *[(STEP, 2)] * 4,
        (LAST, 1),
    ]
    check(recorded, "c3", first, done[id(jobs[0])])
    check(recorded, "c1", second, done[id(jobs[1])])


ARRIVALS = st.lists(
    st.tuples(st.sampled_from(["c1", "c2", "c3"]), st.integers(0, 12), st.integers(1, 2)),
    min_size=1,
    max_size=7,
)


@SETTINGS
@given(ARRIVALS, st.integers(1, 4))
def test_each_gets_what_it_gets_alone(
    bundle: Bundle, loop: asyncio.AbstractEventLoop, arrivals: list[tuple[str, int, int]], max_batch: int
) -> None:
    """Whatever comes when, of whichever cut, with however many rows."""
    recorded = Recorded(bundle, max_batch)
    parts = recorded.parts()
    asked = []
    for seed, (cut, when, rows) in enumerate(arrivals):
        inputs = request(seed, rows)
        sent = between(recorded, inputs) if cut == "c2" else inputs
        asked.append((cut, sent, when, make_job(loop, parts[cut], sent)))
    done = work_off(*((when, job) for *_, when, job in asked))
    for cut, sent, _, job in asked:
        check(recorded, cut, sent, done[id(job)])
    assert max(rows for _, rows in recorded.runs) <= max(max_batch, 2)
    assert all(rows <= 2 for file, rows in recorded.runs if file == LAST)


def test_no_more_are_under_way_than_run_as_one(bundle: Bundle, loop: asyncio.AbstractEventLoop) -> None:
    """Of five requests two run as one: they come to an end in pairs, not all at the last moment."""
    recorded = Recorded(bundle, max_batch=2)
    jobs = [make_job(loop, recorded.parts()["c3"], request(seed)) for seed in range(5)]
    ended = list(work_off(*((0, job) for job in jobs)))
    assert ended == [id(job) for job in jobs]
    assert recorded.runs[: 3 + TIMES] == [(TEXT, 2), *[(STEP, 2)] * TIMES, (LAST, 1), (TEXT, 1)]


def test_one_run_waits_for_one_run_of_others(bundle: Bundle, loop: asyncio.AbstractEventLoop) -> None:
    """A request of one run, which comes while others iterate, is next."""
    recorded = Recorded(bundle)

    def run(inputs: Any, outputs: Any) -> dict[str, Array]:
        recorded.runs.append(("one", len(inputs["x"])))
        return dict.fromkeys(outputs, inputs["x"])

    series = [make_job(loop, recorded.parts()["c3"], request(seed)) for seed in range(2)]
    one = make_job(loop, make_part(run=run), ones())
    done = work_off(*((0, job) for job in series), (4, one))
    assert recorded.runs[:7] == [(TEXT, 2), *[(STEP, 2)] * 3, ("one", 1), (STEP, 2), (STEP, 2)]
    assert next(iter(done)) == id(one)


def test_what_goes_wrong_inside_is_the_answer_to_that_request(
    bundle: Bundle, loop: asyncio.AbstractEventLoop
) -> None:
    recorded = Recorded(bundle)
    part = recorded.parts()["c3"]
    narrow = {**request(0), "noise": np.zeros((1, 5), np.float32)}  # which meets the text in the second run
    bad, good = make_job(loop, part, narrow), make_job(loop, part, request(1))
    done = work_off((0, bad), (0, good))
    assert isinstance(done[id(bad)], ModelError)
    check(recorded, "c3", request(1), done[id(good)])


def test_a_missing_value_is_no_endless_wait(bundle: Bundle, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(BundleError, match="reads 'prompt', which has no value"):
        make_job(loop, Recorded(bundle).parts()["c3"], {"noise": request(0)["noise"]})


# --- in the thread ---


def test_times_are_added_up(bundle: Bundle) -> None:
    recorded = Recorded(bundle)

    async def go() -> Ran | Exception:
        batcher = Batcher(max_queue=4, on_run=lambda *_: None)
        outcome = await asyncio.wait_for(
            batcher.submit(recorded.parts()["c3"], request(1), ("image",)).future, LIMIT_S
        )
        await asyncio.to_thread(batcher.close)
        assert batcher._expected_s["steps.c3"] != 0.06  # what the manifest says
        return outcome

    outcome = asyncio.run(go())
    check(recorded, "c3", request(1), outcome)
    assert isinstance(outcome, Ran)
    assert outcome.compute_s > 0
    assert outcome.queue_s > 0
    assert len(recorded.runs) == TIMES + 2


def test_only_requests_that_have_not_begun_take_a_place(bundle: Bundle) -> None:
    """The queue is bounded in requests; iterations of those that run are never refused."""
    recorded = Recorded(bundle, max_batch=1, held=(STEP,))
    part = recorded.parts()["c3"]

    async def go() -> list[Ran | Exception]:
        batcher = Batcher(max_queue=1, on_run=lambda *_: None)
        first = batcher.submit(part, request(1), ("image",))
        await asyncio.to_thread(until, lambda: recorded.count(STEP) == 1, "the first iteration")
        second = batcher.submit(part, request(2), ("image",))
        assert len(batcher) == 1
        recorded.gate.set()
        outcomes = [await asyncio.wait_for(job.future, LIMIT_S) for job in (first, second)]
        await asyncio.to_thread(batcher.close)
        return outcomes

    for seed, outcome in enumerate(asyncio.run(go()), start=1):
        check(recorded, "c3", request(seed), outcome)


@pytest.mark.parametrize("when", ["between runs", "during a run"])
def test_who_gives_up_ends_at_the_next_run(when: str, bundle: Bundle) -> None:
    recorded = Recorded(bundle, max_batch=1, held=(STEP,))
    part = recorded.parts()["c3"]

    async def go() -> bool:
        batcher = Batcher(max_queue=4, on_run=lambda *_: None)
        job = batcher.submit(part, request(1), ("image",))
        await asyncio.to_thread(until, lambda: recorded.count(STEP) == 1, "the first iteration")
        if when == "during a run":
            assert batcher.withdraw(job)
        else:
            job.deadline_s = 0.0
        recorded.gate.set()
        other = batcher.submit(part, request(2), ("image",))
        check(recorded, "c3", request(2), await asyncio.wait_for(other.future, LIMIT_S))
        await asyncio.to_thread(batcher.close)
        await asyncio.sleep(0)
        return job.future.done() and isinstance(job.future.result(), DeadlineExceeded)

    assert asyncio.run(go()) == (when == "between runs")
    assert recorded.count(STEP) == 1 + TIMES
    assert recorded.count(LAST) == 1
