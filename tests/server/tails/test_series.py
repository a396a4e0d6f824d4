"""Parts of several runs, over real connections: shared batches, sums of times, and an end when nobody waits."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from splitc.bundle.folder import Bundle
from splitc.common.values import Array, difference
from splitc.protocol.messages import encode_request
from splitc.runtime.session import Session
from splitc.server.options import ServerOptions
from splitc.server.tails.open import open_parts
from splitc.server.tails.part import Series, ServedPart
from tests.server.pipelines import LAST, STEP, TEXT, TIMES, Recorded, request, stages, write_pipeline
from tests.server.serving import LIMIT_S, Answer, Asking, head, infer_once, joined, once, running, until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def opened(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedPart, ...]:
    return open_parts(
        [bundle.folder],
        threads=1,
        max_batch=4,
        memory_limit_bytes=None,
        cache_folder=tmp_path_factory.mktemp("cache"),
        say=lambda _: None,
    )


def whole(bundle: Bundle, inputs: dict[str, Array]) -> dict[str, Any]:
    return Recorded(bundle).alone(stages(), inputs, ["image"])


def check(bundle: Bundle, seed: int, answer: Answer) -> None:
    wanted = whole(bundle, request(seed))
    for name, value in answer.outputs().items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-6)


def test_requests_at_different_iterations_share_batches(bundle: Bundle) -> None:
    recorded = Recorded(bundle, held=(STEP,))
    with running(*recorded.parts().values()) as server:
        asking = Asking()
        asking.start(server, "steps.c3", request(1))
        until(lambda: recorded.count(STEP) == 1, "the first iteration of the first request")
        for seed in (2, 3):
            asking.start(server, "steps.c3", request(seed))
        until(lambda: server.queued() == 2, "two that wait")
        recorded.gate.set()
        answers = asking.finish()
        assert server.value("splitc_batch_size_count", model=f"steps/{STEP}") == 1 + TIMES
        assert server.value("splitc_batch_size_sum", model=f"steps/{STEP}") == 3 * TIMES
        assert server.value("splitc_queue_seconds_count", model="steps.c3") == 3
    for seed, answer in enumerate(answers, start=1):
        check(bundle, seed, answer)
    assert [rows for file, rows in recorded.runs if file == STEP] == [1, *[3] * (TIMES - 1), 2]


def test_the_answer_says_what_all_runs_took(bundle: Bundle) -> None:
    with running(*Recorded(bundle).parts().values()) as server:
        answer = infer_once(server, "steps.c3", request(1))
        assert server.value("splitc_compute_seconds_count", model=f"steps/{STEP}") == TIMES
        computed_s = sum(
            server.value("splitc_compute_seconds_sum", model=f"steps/{file}") for file in (TEXT, STEP, LAST)
        )
    said = re.fullmatch(
        r"recv;dur=[\d.]+, queue;dur=([\d.]+), compute;dur=([\d.]+)", answer.headers["server-timing"]
    )
    assert said is not None
    assert float(said[2]) == pytest.approx(1e3 * computed_s, abs=1e-3)
    assert float(said[1]) > 0


def test_a_program_is_described_as_any_model(bundle: Bundle) -> None:
    with running(*Recorded(bundle).parts().values()) as server:
        told = once(server, "GET", "/v2/models/steps.c1").json
        answer = infer_once(server, "steps.c1", {"prompt": request(1)["prompt"]})
        only = infer_once(server, "steps.c1", request(1), outputs=["latents"])
        unknown = infer_once(server, "steps.c1", request(1), outputs=["image"])
    shape = {"datatype": "FP32", "shape": [-1, 16]}
    assert told["inputs"] == [{"name": name, **shape} for name in ("prompt", "noise")]
    assert told["outputs"] == [{"name": name, **shape} for name in ("context", "latents")]
    assert (answer.status, "input 'noise' of model 'steps.c1' is missing" in answer.error) == (400, True)
    assert only.outputs().keys() == {"latents"}
    assert (unknown.status, unknown.error) == (400, "model 'steps.c1' has no output 'image'")


def test_a_deadline_ends_it_at_the_next_run(bundle: Bundle) -> None:
    recorded = Recorded(bundle, held=(STEP,))
    with running(*recorded.parts().values()) as server:
        answer = infer_once(server, "steps.c3", request(1), timeout_s=1.0)
        assert recorded.count(STEP) == 1
        recorded.gate.set()
        check(bundle, 2, infer_once(server, "steps.c3", request(2)))
    assert answer.status == 504
    assert answer.error == "the time that the request allows passed before its computation was done"
    assert recorded.count(STEP) == 1 + TIMES
    assert recorded.count(LAST) == 1


def test_who_leaves_ends_it_at_the_next_run(bundle: Bundle) -> None:
    recorded = Recorded(bundle, held=(STEP,))
    with running(*recorded.parts().values()) as server:
        message = encode_request(request(1), [])
        lines = [f"{name}: {value}" for name, value in message.headers().items()]
        with server.dial() as sock:
            sock.sendall(head("POST", "/v2/models/steps.c3/infer", *lines) + joined(message))
            until(lambda: recorded.count(STEP) == 1, "the first iteration")
        until(lambda: server.value("splitc_refusals_total", reason="gone") == 1, "its end")
        recorded.gate.set()
        check(bundle, 2, infer_once(server, "steps.c3", request(2)))
        assert server.app._inference._memory.held_bytes == 0
    assert recorded.count(STEP) == 1 + TIMES
    assert recorded.count(LAST) == 1


def test_a_full_queue_refuses_requests_not_iterations(bundle: Bundle) -> None:
    recorded = Recorded(bundle, max_batch=1, held=(STEP,))
    with running(*recorded.parts().values(), options=ServerOptions(max_queue=1)) as server:
        asking = Asking()
        for seed in (1, 2):
            asking.start(server, "steps.c3", request(seed))
            until(lambda: recorded.count(STEP) == 1 and server.queued() == seed - 1, "a request")  # noqa: B023
        refused = infer_once(server, "steps.c3", request(3))
        recorded.gate.set()
        answers = asking.finish()
    assert (refused.status, int(refused.headers["retry-after"])) == (503, 1)
    for seed, answer in enumerate(answers, start=1):
        check(bundle, seed, answer)


def test_what_is_under_way_is_finished_before_the_end(bundle: Bundle) -> None:
    recorded = Recorded(bundle, held=(STEP,))
    with running(*recorded.parts().values()) as server:
        asking = Asking()
        asking.start(server, "steps.c3", request(1))
        until(lambda: recorded.count(STEP) == 1, "the first iteration")
        server.server.drain()
        recorded.gate.set()
        check(bundle, 1, asking.finish()[0])
        server.thread.join(LIMIT_S)
        assert not server.thread.is_alive()


# --- as `splitc serve` opens them ---


def test_files_are_shared_by_cuts_and_iterations(opened: tuple[ServedPart, ...]) -> None:
    assert [part.name for part in opened] == ["steps.c1", "steps.c2", "steps.c3"]
    series = {part.cut.id: part.runs for part in opened if isinstance(part.runs, Series)}
    assert series["c1"].files.keys() == {TEXT, STEP}
    assert series["c2"].files.keys() == {STEP, LAST}
    assert series["c1"].files[STEP] is series["c2"].files[STEP] is series["c3"].files[STEP]
    assert series["c3"].calls == {TEXT: 1, STEP: TIMES, LAST: 1}
    (array,) = {id(array) for runs in series.values() for array in runs.arrays.values()}
    assert array
    assert series["c3"].files[LAST].max_batch == 1  # as one, requests would not get what they get alone
    assert series["c3"].at_once == series["c3"].files[STEP].max_batch


def test_what_a_request_costs_is_measured(opened: tuple[ServedPart, ...]) -> None:
    for part in opened:
        assert isinstance(part.runs, Series)
        each_s = [
            times * min(run_s / size for size, run_s in file.run_s if size <= file.max_batch)
            for file, times in ((part.runs.files[name], times) for name, times in part.runs.calls.items())
        ]
        assert part.work_s == pytest.approx(sum(each_s))
        assert part.alone_s is not None
        assert part.alone_s >= part.work_s


def test_every_cut_gives_what_the_whole_pipeline_gives(
    bundle: Bundle, opened: tuple[ServedPart, ...]
) -> None:
    """Many at once, of all cuts, by real sessions."""

    def ask(seed: int) -> tuple[str, str, str | None, float]:
        cut = ("c1", "c2", "c3")[seed % 3]
        with Session(bundle.folder, server=server.server.url, cut=cut, deadline_s=LIMIT_S) as session:
            outcome = session.request(request(seed))
        wanted = whole(bundle, request(seed))
        return (
            cut,
            outcome.finished,
            outcome.fallback,
            difference(outcome.outputs["image"], wanted["image"]).max_rel,
        )

    with running(*opened) as server, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(12)))
        runs = server.value("splitc_batch_size_sum", model=f"steps/{STEP}")
        assert server.value("splitc_batch_size_count", model=f"steps/{LAST}") == 8
        assert server.value("splitc_batch_size_sum", model=f"steps/{LAST}") == 8
    assert runs == 4 * (4 + 4 + TIMES)
    for cut, finished, fallback, max_rel in found:
        assert (finished, fallback) == ("device" if cut == "c1" else "cloud", None)
        assert max_rel < 1e-5
