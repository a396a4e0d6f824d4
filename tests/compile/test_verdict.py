"""The sentence on each network says what the numbers say."""

from dataclasses import replace

import pytest

from splitc.bundle.decide import decide
from splitc.bundle.manifest import Manifest
from splitc.compile.verdict import Verdict, judge, typical
from splitc.profile.targets.description import Network, load_network
from splitc.profile.targets.quantity import Spread
from tests import manifests
from tests.manifests import cut, manifest


def network(uplink_bps: float, rtt_s: float = 0.01) -> Network:
    def spread(value: float) -> Spread:
        return Spread(value, "made up", "recalled")

    return Network("air", "made up", spread(uplink_bps), spread(1e9), spread(rtt_s))


def look(given: Manifest, uplink_bps: float, sla_s: float | None = None) -> Verdict:
    (found,) = judge(given, [network(uplink_bps)], sla_s)
    return found


def test_uses_typical_rates_and_nobody_waiting() -> None:
    lte = load_network("lte")
    conditions = typical(lte)
    assert (conditions.uplink_bps, conditions.rtt_s) == (lte.uplink_bps.typical, lte.rtt_s.typical)
    assert (conditions.queue_s, conditions.device_slowdown, conditions.cloud_slowdown) == (0, 1, 1)


@pytest.mark.parametrize(
    ("uplink_bps", "sentence"),
    [
        (1e3, "on air the whole model is best kept on the device"),
        (
            1e6,
            (
                "on air cut c1 is 2.08x as fast as the better of device and cloud alone, "
                "unless the device is over 40.1x slower than predicted"
            ),
        ),
        (1e12, "on air the whole model is best run in the cloud"),
    ],
)
def test_sentences(uplink_bps: float, sentence: str) -> None:
    assert look(manifest(), uplink_bps).sentence() == sentence


@pytest.mark.parametrize("uplink_bps", [1e4, 1e5, 1e6, 1e7])
def test_the_decision_changes_where_it_is_said_to(uplink_bps: float) -> None:
    given = manifest()
    found = look(given, uplink_bps)
    assert found.holds_to is not None
    assert found.holds_to > 1
    for off, same in ((0.999, True), (1.001, False)):
        slower = replace(found.decision.conditions, device_slowdown=off * found.holds_to)
        assert (decide(given, slower).cut == found.decision.cut) is same


def test_nothing_to_hold_where_the_head_is_measured_or_a_target_decides() -> None:
    assert look(manifest(head=manifests.MEASURED), 1e6).holds_to is None
    assert look(manifest(), 1e6, sla_s=1.0).holds_to is None
    assert look(manifest(), 1e12).holds_to is None  # all in the cloud: no head


def test_sentence_under_a_target() -> None:
    slow_but_sparing = (*manifests.CUTS, cut("c3", head_s=0.5, tail_s=1e-6, up=1))
    found = look(manifest(slow_but_sparing[1:]), 1e9, sla_s=1.0)
    assert found.sentence() == "on air cut c3 does the least cloud work within the target"
    found = look(manifest(), 1e6, sla_s=0.01)
    assert found.sentence().startswith("on air nothing meets the target; cut c1 is 2.08x")


def test_sentence_where_neither_end_is_shipped() -> None:
    found = look(manifest(manifests.CUTS[1:2]), 1e6)
    assert (found.all_head_s, found.all_tail_s) == (None, None)
    assert found.sentence() == "on air cut c1 is the fastest of those that the limits leave"


def test_range_adds_up_the_intervals_of_both_parts() -> None:
    split = manifest(manifests.CUTS[1:2])
    latency = look(split, 1e6).decision.latency_s
    low, high = latency - 0.5 * 0.02 - 0.1 * 0.01, latency + 1.0 * 0.02 + 0.2 * 0.01
    assert look(split, 1e6).range_s == pytest.approx((low, high))


def test_range_of_the_unsplit_choices() -> None:
    found = look(manifest(), 1e6)
    assert found.all_head_range_s == pytest.approx((0.05, 0.2))
    assert found.all_tail_s is not None
    assert found.all_tail_range_s == pytest.approx((found.all_tail_s - 0.002, found.all_tail_s + 0.004))


def test_no_range_where_nothing_is_known_of_it() -> None:
    (only,) = manifests.CUTS[2:]
    assert only.tail is not None
    once = replace(only, tail=replace(only.tail, interval=None))
    assert look(manifest([once]), 1e6).range_s is None
