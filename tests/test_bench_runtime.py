"""What `benchmarks/runtime.py` makes of its measurements: medians, shares and verdicts."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.running import limit, predictions, throughput, traces
from benchmarks.running.cellular import Link
from benchmarks.running.models import Compiled
from splitc.bundle import Bundle
from splitc.decision import Conditions
from tests.manifests import CUTS, manifest

MODEL = Compiled("tiny", Bundle(Path(), manifest()))


def row(cut: str, latency_s: float, predicted_s: float = 1.0, head_s: float | None = None) -> dict[str, Any]:
    return {
        "cut": cut,
        "latency_s": latency_s,
        "predicted_s": predicted_s,
        "head_s": head_s,
        "fallback": None,
    }


def test_a_prediction_is_judged_by_the_later_half_of_what_the_cloud_answered() -> None:
    early, fell_back = [row("c0", 9.0)] * 3, row("c0", 9.0) | {"fallback": "late"}
    late = [row("c0", 2.0), row("c0", 2.0), fell_back]
    half = predictions.ROUNDS // 2
    rows = {cut.id: [early] * half + [late] * half for cut in CUTS}
    found = predictions.predicted(predictions.Case(MODEL, "lte", 1.0), rows)
    assert [item.cut for item in found] == ["c0", "c1", "c2"]
    assert {(item.requests, item.fallbacks, item.error) for item in found} == {(2 * half, half, -0.5)}


def test_regret_is_that_of_the_commonest_cut_at_the_end() -> None:
    rows = {
        predictions.FREE: [[row("c0", 1.0)] * 4 + [row("c2", 1.0), row("c1", 1.0)] + [row("c2", 1.0)] * 3]
    }
    cuts = [
        predictions.Predicted("tiny", "lte", 1.0, cut, 2, 0, 1.0, took_s)
        for cut, took_s in (("c0", 1.5), ("c1", 1.0), ("c2", 1.2))
    ]
    found = predictions.settled(predictions.Case(MODEL, "lte", 1.0), rows, cuts)
    assert (found.cut, found.best) == ("c2", "c1")
    assert found.regret == pytest.approx(0.2)
    assert "within 5%" in predictions.verdicts(cuts, [found])[1]


def adapted(own_slowdown: float, alone_slowdown: float = 2.0) -> list[traces.Policy]:
    """Policies on a device that was to be twice as slow."""
    stretches = {
        "all-head c0": traces.Stretch([row("c0", 0.2)] * 10, alone_slowdown),
        traces.ADAPTIVE: traces.Stretch([row("c2", 0.1)] * 9 + [row("c2", 1.0)], own_slowdown),
        traces.WITH_SLA: traces.Stretch([row("c2", 0.1)], alone_slowdown),
    }
    link = Link("a link", Conditions(1e6, 1e6, 0.1), 0.1)
    return traces.policies(traces.Case(MODEL, 2.0, link), stretches)


def test_a_slow_request_counts_longer_by_time() -> None:
    alone, own, _ = adapted(2.1)
    assert own.mean_s == pytest.approx(0.19)
    assert own.by_time_mean_s == pytest.approx((9 * 0.25 * 0.1 + 1.0) / 3.25)
    assert (alone.within_sla, own.within_sla) == (1.0, 0.9)


def test_a_slowdown_is_that_of_all_heads_together() -> None:
    rows = [
        row("c1", 1.0, head_s=0.1),
        row("c1", 1.0, head_s=0.5),
        row("c0", 1.0, head_s=3.4),
        row("c2", 1.0),
    ]
    assert traces.slowdown(rows, {"c0": 0.8, "c1": 0.1}) == pytest.approx(4.0)


def test_policies_with_alike_devices_are_compared() -> None:
    rows = adapted(2.1)
    assert traces.why_void(rows) is None
    assert traces.verdict(rows).startswith("adapts: mean ")
    assert "void" not in str(traces.table(rows).title)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (adapted(2.5), "2.0x during 'all-head c0' and 2.5x during 'adaptive'"),
        (adapted(1.4, 1.3), "1.3x during 'all-head c0' and 1.4x during 'adaptive'"),
        (adapted(3.1, 3.0), "3.0x during 'all-head c0' and 3.1x during 'adaptive'"),
    ],
    ids=["different", "too fast", "too slow"],
)
def test_policies_with_other_devices_are_not_compared(rows: list[traces.Policy], said: str) -> None:
    assert traces.verdict(rows).startswith(
        f"adapts: void: the device was to be 2x slower, and was {said}; rerun"
    )
    assert str(traces.table(rows).title).endswith("; void")


def test_what_is_over_the_limit_is_told() -> None:
    parts = limit.Parts(0.1, 0.01, 0.02, 0.03, 0.02, 0.01, 0.06)
    rows = [limit.Row("tiny", "wifi", "c1", parts, over_s, 0.0) for over_s in (0.0044, 0.0046)]
    assert rows[0].allowed_s == pytest.approx(0.0045)
    assert "1 of 2 within it" in limit.verdict(rows)


def test_a_tail_for_throughput_takes_long_and_little() -> None:
    assert throughput.fitting(MODEL) == "c2"
