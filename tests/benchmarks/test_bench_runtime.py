"""What `benchmarks/runtime.py` makes of its measurements: medians, shares and verdicts."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.running import limit, predictions, throughput, traces
from benchmarks.running.cellular import Link
from benchmarks.running.models import Compiled
from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle
from tests.manifests import CUTS, manifest

MODEL = Compiled("tiny", Bundle(Path(), manifest()))


def row(cut: str, latency_s: float, predicted_s: float = 1.0, head_s: float | None = None) -> dict[str, Any]:
    return {
        "cut": cut,
        "latency_s": latency_s,
        "predicted_s": predicted_s,
        "head_s": head_s,
        "fallback": None,
        "waited_s": 0.0,
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


LINK = Link("a link", Conditions(1e6, 1e6, 0.1), 0.1)


def stretches(own_alone_s: float) -> dict[str, traces.Stretch]:
    """Of policies on a device that took 0.2 s alone for all but the adaptive one."""
    return {
        "all-head c0": traces.Stretch([row("c0", 0.2)] * 10, 0.2),
        "all-tail c2": traces.Stretch([row("c2", 0.1)] * 9 + [row("c2", 3.0) | {"waited_s": 1.0}], 0.2),
        traces.ADAPTIVE: traces.Stretch([row("c2", 0.1)] * 9 + [row("c0", 1.0)], own_alone_s),
        traces.WITH_SLA: traces.Stretch([row("c2", 0.1)], 0.2),
    }


def adapted(own_alone_s: float) -> list[traces.Policy]:
    return traces.policies(traces.Case(MODEL, 2.0, LINK), stretches(own_alone_s))


def test_a_request_counts_from_when_it_was_due() -> None:
    alone, plain, own, *_ = adapted(0.21)
    assert (plain.mean_s, own.mean_s) == pytest.approx((0.49, 0.19))
    assert (alone.within_sla, own.within_sla) == (1.0, 0.9)


def test_policies_with_alike_devices_are_compared() -> None:
    rows = adapted(0.21)
    assert traces.why_void(rows) is None
    assert traces.verdict(rows).startswith("adapts: mean -5.0%, p95 +197.5%, ")  # both of all-head: 0.2 s
    assert "void" not in str(traces.table(rows).title)


def test_links_are_told_together() -> None:
    case = traces.Case(MODEL, 2.0, LINK)
    slower = {
        name: traces.Stretch([item | {"latency_s": 2 * item["latency_s"]} for item in stretch.rows], 0.3)
        for name, stretch in stretches(0.2).items()
    }
    rows = traces.together([(case, stretches(0.2)), (case, slower)])
    alone, _, own, *_ = rows
    assert (alone.requests, alone.mean_s, alone.within_sla, alone.alone_s) == pytest.approx(
        (20, 0.3, 1.0, 0.25)
    )
    assert (own.requests, own.mean_s, own.within_sla) == pytest.approx((20, 0.285, 0.9))


def test_the_least_of_the_fixed_choices_is_taken_moment_by_moment() -> None:
    found = stretches(0.2)
    fewer = [row("c0", 0.2), row("c0", 0.3)]  # gone through five times
    found["all-head c0"] = traces.Stretch(fewer, 0.2)
    *rows, least = traces.policies(traces.Case(MODEL, 2.0, LINK), found)
    assert least.name == traces.KNOWING
    assert least.cuts == {"c2": 9, "c0": 1}
    assert least.mean_s == pytest.approx((9 * 0.1 + 0.3) / 10)
    assert "(who knew it all: -52.0%, -28.8%)" in traces.verdict([*rows, least])


@pytest.mark.parametrize("told_ms", [160, 240])
def test_an_sla_from_a_device_of_another_speed_is_not_compared(told_ms: int) -> None:
    found = stretches(0.2)
    found[traces.WITH_SLA] = traces.Stretch([row("c0", 0.4)], told_ms / 1e3)
    said = traces.verdict(traces.policies(traces.Case(MODEL, 2.0, LINK), found))
    assert (
        f"told of it void (its device took {told_ms} ms alone, 200 where the SLA comes from), best fixed"
        in said
    )


def test_an_adaptive_session_with_a_faster_device_is_not_compared() -> None:
    rows = adapted(0.16)
    said = "160 ms around 'adaptive' and 200 ms around 'all-head c0'"
    assert traces.verdict(rows).startswith(f"adapts: void: the device alone took {said}; rerun")
    assert str(traces.table(rows).title).endswith("; void")
    assert traces.why_void(adapted(0.25)) is None


def test_what_is_over_the_limit_is_told() -> None:
    parts = limit.Parts(0.1, 0.01, 0.02, 0.03, 0.02, 0.01, 0.06)
    rows = [limit.Row("tiny", "wifi", "c1", parts, over_s, 0.0) for over_s in (0.0044, 0.0046)]
    assert rows[0].allowed_s == pytest.approx(0.0045)
    assert "1 of 2 within it" in limit.verdict(rows)


def test_a_tail_for_throughput_takes_long_and_little() -> None:
    assert throughput.fitting(MODEL) == "c2"


def test_a_share_is_of_the_raw_form_that_is_faster_by_its_median() -> None:
    turns = [throughput.Turn(*counts, refused=1) for counts in ((100, 80, 90), (50, 60, 45), (110, 90, 88))]
    found = throughput.compared("tiny", "c2", 1000, turns)
    assert (found.shipped_per_s, found.prepared_per_s, found.served_per_s, found.refused) == (100, 80, 88, 3)
    assert found.share == pytest.approx(0.9)  # of 0.9, 0.9, 0.8
