"""The price follows what is asked for, goes with every answer, and moves devices off a cloud that has too much to do."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import BoundaryEntry, TensorEntry
from splitc.common import ort
from splitc.runtime.session import Outcome, Session
from splitc.server.options import ServerOptions
from splitc.server.pricing import Meter
from splitc.server.tails.part import File, ServedPart
from tests import manifests, models
from tests.models import floats, op, value
from tests.server.serving import Gated, infer_once, make_part, once, ones, parts_of, running, until

PRICED = ServerOptions(utilisation=0.85)
ROWS, WIDE, LAYERS = 64, 512, 24


def timed(run_s: tuple[tuple[int, float], ...], max_batch: int = 8, *, cloud_s: float = 1.0) -> ServedPart:
    part = make_part()
    assert isinstance(part.runs, File)
    tail = part.cut.tail
    assert tail is not None
    cut = replace(part.cut, tail=replace(tail, latency_s=cloud_s))
    return replace(part, cut=cut, runs=replace(part.runs, max_batch=max_batch, run_s=run_s))


@pytest.mark.parametrize(
    ("run_s", "max_batch", "work_s"),
    [
        ((), 1, 1.0),
        (((1, 0.2),), 1, 0.2),
        (((1, 0.2), (2, 0.3), (4, 0.4)), 4, 0.1),
        (((1, 0.2), (2, 0.3), (4, 0.4)), 2, 0.15),
    ],
    ids=["not measured", "alone", "a batch", "a batch that does not pay"],
)
def test_a_request_counts_with_its_share_of_the_best_batch(
    run_s: tuple[tuple[int, float], ...], max_batch: int, work_s: float
) -> None:
    assert timed(run_s, max_batch).work_s == pytest.approx(work_s)


def priced(requests_per_s: float, *parts: ServedPart, seconds: int = 200) -> float:
    """The price after so many seconds of requests for the first of *parts*."""
    now_s = 0.0
    meter = Meter(parts, 0.8, lambda: now_s)
    for number in range(int(seconds * requests_per_s)):
        now_s = number / requests_per_s
        meter.asked(parts[0].work_s)
    name, text = meter.header()
    assert name == "splitc-price"
    assert float(text) == pytest.approx(meter.price(), abs=1e-6)
    assert set(text) <= set("0123456789.")
    return meter.price()


def test_the_price_is_above_zero_if_more_is_asked_for_than_fits() -> None:
    part = timed(((1, 0.1), (2, 0.1)))  # 20 requests a second keep the machine busy, 16 are wanted
    assert priced(14, part) == 0
    assert priced(18, part) > 1


def test_long_requests_are_counted_over_a_longer_time() -> None:
    """Ten seconds of work, at once every 14 seconds: no more than the machine can do, and most seconds are empty."""
    part = timed(((1, 10.0),), 1)
    assert priced(1 / 14, part, seconds=5000) < 0.5
    assert priced(1 / 7, part, seconds=5000) > 1


def test_the_price_goes_with_every_answer() -> None:
    gated = Gated()
    gated.gate.set()
    part = make_part(run=gated)
    with running(part, options=PRICED) as server:
        answers = [
            infer_once(server, "made.c1", ones()),
            infer_once(server, "made.c1", {}),
            infer_once(server, "made.c9", ones()),
            once(server, "GET", "/v2/health/live"),
            once(server, "POST", "/splitc/probe?bytes=10", b"x"),
            once(server, "PUT", "/metrics"),
        ]
        metrics = once(server, "GET", "/metrics").body.decode()
        server.server.drain()
        answers.append(infer_once(server, "made.c1", ones()))
    assert [answer.status for answer in answers] == [200, 400, 404, 200, 200, 405, 503]
    assert [answer.headers["splitc-price"] for answer in answers] == ["0.000000"] * 7
    assert "\nsplitc_price 0.0\n" in metrics


def test_there_is_none_unless_it_is_asked_for() -> None:
    with running(make_part()) as server:
        assert "splitc-price" not in infer_once(server, "made.c1", ones()).headers
        assert "splitc_price" not in once(server, "GET", "/metrics").body.decode()


def test_refused_work_counts() -> None:
    """A machine that stands still: what its queue refuses is asked for all the same."""
    gated = Gated()
    part = replace(timed(((1, 2.0),), 1), runs=File("made.c1", 1, gated, ((1, 2.0),)))
    options = replace(PRICED, max_queue=1)
    with running(part, options=options, clock=fast(100)) as server:
        threads = [threading.Thread(target=infer_once, args=(server, "made.c1", ones())) for _ in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            # The first must run before the next one comes, which would find its place taken.
            until(lambda: gated.rows == [1] and server.queued() == number, "a request")  # noqa: B023

        def refused() -> bool:
            assert infer_once(server, "made.c1", ones()).status == 503
            return server.value("splitc_price") > 1

        until(refused, "a price")
        gated.gate.set()
        for thread in threads:
            thread.join()


# --- with devices ---


def fast(times: float) -> Callable[[], float]:
    """A clock that goes so many times faster, so that a test need not wait for long."""
    return lambda: times * time.monotonic()


def slow_alone(folder: Path) -> Bundle:
    """A model that takes a device some 20 ms, in many layers, and the cloud, which knows that they do nothing, none."""
    shape = (ROWS, WIDE)
    names = ["x", *(f"h{number}" for number in range(1, LAYERS)), "y"]
    layers = [op("MatMul", [source, "same"], target) for source, target in pairwise(names)]
    ports = [floats("x", *shape)], [floats("y", *shape)]
    onnx.save_model(
        models.model(layers, *ports, [value("same", np.eye(WIDE), "float32")]), folder / "head-c0.onnx"
    )
    onnx.save_model(models.model([op("Identity", "x", "y")], *ports), folder / "tail-c2.onnx")
    sent = 4 * ROWS * WIDE
    alone = manifests.cut("c0", head_s=0.2)
    offloaded = replace(
        manifests.cut("c2", tail_s=0.05, up=sent, down=sent),
        boundary=(BoundaryEntry("x", "float32", shape, sent),),
    )
    made = manifests.manifest((alone, offloaded))
    inputs, outputs = ((TensorEntry(name, "float32", shape, sent),) for name in "xy")
    model = replace(made.model, inputs=inputs, outputs=outputs)
    files = tuple(file_entry(folder, file) for file in ("head-c0.onnx", "tail-c2.onnx"))
    write_manifest(folder, replace(made, model=model, files=files))
    return read_bundle(folder)


def test_devices_leave_a_cloud_that_has_too_much_to_do_and_come_back(tmp_path: Path) -> None:
    bundle = slow_alone(tmp_path)
    x = np.random.default_rng(0).standard_normal((ROWS, WIDE), np.float32)
    start = Conditions(1e9, 1e9, rtt_s=1e-3)
    ended = threading.Event()
    outcomes: list[Outcome] = []

    def use(session: Session) -> None:
        while not ended.is_set():
            outcomes.append(session.request({"x": x}))

    def has_left() -> bool:
        """Whether a device chose to do it alone, for the price, while it could have asked the cloud."""
        chosen = [item.decision for item in list(outcomes) if item.cut == "c0" and item.fallback is None]
        return any(item.conditions.price > 0 and item.conditions.uplink_bps > 0 for item in chosen)

    with running(*parts_of(bundle), options=PRICED, clock=fast(5)) as server:
        url = server.server.url
        sessions = [Session(bundle.folder, server=url, threads=1, start=start) for _ in range(4)]
        threads = [threading.Thread(target=use, args=(session,)) for session in sessions]
        assert sessions[0].request({"x": x}).cut == "c2"
        for thread in threads:
            thread.start()
        until(lambda: server.value("splitc_price") > 0, "a price")
        until(has_left, "a device that does without the cloud")
        ended.set()
        for thread in threads:
            thread.join()
        assert max(session.conditions().price for session in sessions) > 0
        until(lambda: server.value("splitc_price") == 0, "a cloud for nothing")
        until(lambda: sessions[0].request({"x": x}).cut == "c2", "a device that comes back")
        assert sessions[0].conditions().price == 0
        for session in sessions:
            session.close()
    wanted = ort.run(ort.session(bundle.path("head-c0.onnx")), {"x": x})["y"]
    for item in outcomes:
        np.testing.assert_allclose(item.outputs["y"], wanted, rtol=1e-5, atol=1e-6)
