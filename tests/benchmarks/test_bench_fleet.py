"""What `benchmarks/fleet.py` makes of its measurements, and the one thing of its phones that is not real."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.running import fleet
from benchmarks.running.fleet_phones import WaitingParts
from benchmarks.running.models import Compiled
from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle
from splitc.common.errors import ModelError
from splitc.common.ort import Interrupt
from splitc.simulate.engine import simulate
from splitc.simulate.policies import policy
from splitc.simulate.scenario import usual_cases
from splitc.simulate.tcp import lone_s
from splitc.simulate.workload import draw
from tests.manifests import CUTS, manifest

MODEL = Compiled("tiny", Bundle(Path(), manifest()))
CASE = fleet.Case("all-cloud", "wifi", 0.5)
TIMES = {"tail-c1.onnx": [0.012, 0.02], "tail-c2.onnx": [0.05]}
FIGURES = fleet.Figures(0.1, 0.2, 10.0, 0.5)


def row(cut: str, latency_s: float, compute_s: float | None, queue_s: float = 0.0) -> dict[str, Any]:
    return {"cut": cut, "latency_s": latency_s, "queue_s": queue_s, "compute_s": compute_s}


def compared(simulated: fleet.Figures, **changes: Any) -> fleet.Compared:
    made = fleet.Compared(CASE, 100, FIGURES, simulated, 0.5, 0.05, 0.01, 0.02, 0.002)
    return replace(made, **changes)


def test_the_simulated_cloud_takes_what_was_measured() -> None:
    of = fleet.scenario(MODEL, CASE, 20.0, TIMES, 0.0)
    (c1, c2) = CUTS[1:]
    for cut, wanted in ((c1, [0.012, 0.02]), (c2, [0.05])):
        run_s = [cut.cloud_s * times for times in of.curve(of.manifests[0], cut)]
        assert run_s == pytest.approx(wanted)
    whole = sum(item.count * item.rate_per_s for item in of.fleet.classes) * 0.05
    assert whole == pytest.approx(CASE.load)
    outcome = simulate(of, draw(of), policy("all-cloud", usual_cases(of)), lambda _: None)
    assert outcome.busy_s == pytest.approx(0.05 * len(draw(of)), rel=0.02)


def test_only_the_faster_phones_can_do_without_the_cloud_in_time() -> None:
    of = fleet.scenario(MODEL, CASE, 20.0, TIMES, 0.0)
    alone = [item.slowdown.typical * CUTS[0].device_s for item in of.fleet.classes]
    sla_s = of.fleet.classes[0].sla_s
    assert sla_s is not None
    assert alone[0] < 0.8 * sla_s < sla_s < alone[1]


def test_what_a_lone_request_costs_is_what_nothing_else_explains() -> None:
    usual = Conditions(1e7, 1e8, 0.02)
    cut = CUTS[2]
    network_s = (
        0.02 + 8 * cut.uplink_bytes / 1e7 + 8 * cut.downlink_bytes / 1e8 + lone_s(cut, usual, math.inf)
    )
    rows = [row("c2", network_s + 0.003 + 0.05 + 0.01, 0.05, 0.01) for _ in range(3)]
    rows += [row("c2", 9.0, 0.05), row("c2", 9.0, None)]
    assert fleet.lone_request_s(rows, cut, usual) == pytest.approx(0.003)


def test_runs_are_compared_with_batches_of_their_size() -> None:
    times = {"c1": [0.01, 0.016]}
    rows = [row("c1", 1.0, 0.0102), row("c1", 1.0, 0.0164), row("c0", 1.0, None)]
    assert fleet.disturbance(rows, times) == pytest.approx((0.02 + 0.025) / 2)
    assert fleet.disturbance([], times) == 0


def test_errors_are_relative_to_what_is_real() -> None:
    found = compared(fleet.Figures(0.11, 0.19, 12.0, 0.5))
    assert found.errors == pytest.approx((0.1, -0.05, 0.2))
    assert "within 15% for 0 of 1 policies, at most 20.0% off (all-cloud)" in fleet.verdict([found])
    assert "for 1 of 1 policies" in fleet.verdict([compared(FIGURES)])
    assert fleet.table([found]).row_count == 1


@pytest.mark.parametrize("changes", [{"drift": -0.2}, {"disturbance": 0.3}], ids=["drift", "disturbed"])
def test_on_a_machine_that_others_used_nothing_is_told(changes: dict[str, float]) -> None:
    found = compared(FIGURES, **changes)
    assert fleet.verdict([found]).startswith("simulator: nothing to tell; all-cloud is void")
    assert "for 1 of 1" in fleet.verdict([found, compared(FIGURES)])


def test_a_phone_computes_one_thing_after_the_other() -> None:
    """Two runs at once take turns: the second ends when both would be done, and each says what it took alone."""
    parts = WaitingParts(MODEL.bundle, {"c0": {"y": 1}}, slowdown=0.5)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(parts.run, CUTS[0], {}) for _ in range(2)]
    for item in done:
        values, took_s = item.result()
        assert values == {"y": 1}
        assert took_s == pytest.approx(0.05)
    assert parts.is_ready(CUTS[1])


def test_a_run_that_nobody_wants_any_more_lets_others_have_the_processor() -> None:
    parts, interrupt = (
        WaitingParts(MODEL.bundle, {"c0": {"y": 1}, "c1": {"b": 2}}, slowdown=100.0),
        Interrupt(),
    )
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(parts.run, CUTS[0], {}, interrupt)
        interrupt.set()
        with pytest.raises(ModelError, match="was ended"):
            long.result()
    quick = WaitingParts(MODEL.bundle, {"c1": {"b": 2}}, slowdown=0.1)
    values, took_s = quick.run(CUTS[1], {})
    assert values == {"b": 2}
    assert took_s == pytest.approx(0.002)
