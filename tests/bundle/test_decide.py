"""A decision is the best of its set, and says so."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions, aim, choose, decide, latency_s
from splitc.bundle.manifest import CutEntry
from tests import manifests

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
SECONDS = st.floats(0, 10)
BYTES = st.integers(0, 10**7)
RATES = st.floats(1e3, 1e10)
CONDITIONS = st.builds(
    Conditions,
    RATES,
    RATES,
    SECONDS,
    SECONDS,
    device_slowdown=st.floats(0.1, 20),
    cloud_slowdown=st.floats(0.1, 20),
)
PRICES = st.floats(0, 100)


@st.composite
def cut_sets(draw: st.DrawFn) -> tuple[CutEntry, ...]:
    cuts = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["head", "tail", "both", "cloud-first"]))
        if kind == "cloud-first":
            amounts = {"up": draw(BYTES), "down": draw(BYTES)}
            cuts.append(
                manifests.cloud_first(f"c{number}", head_s=draw(SECONDS), tail_s=draw(SECONDS), **amounts)
            )
            continue
        head_s = draw(SECONDS) if kind != "tail" else None
        tail_s = draw(SECONDS) if kind != "head" else None
        sent = {"up": draw(BYTES), "down": draw(BYTES)} if kind != "head" else {}
        cuts.append(manifests.cut(f"c{number}", head_s=head_s, tail_s=tail_s, weights=draw(BYTES), **sent))
    return tuple(cuts)


def cloud_s(cut: CutEntry) -> float:
    part = cut.head if cut.direction == "cloud-first" else cut.tail
    return part.latency_s if part else 0.0


def test_latency_by_hand() -> None:
    given = Conditions(1e6, 2e6, rtt_s=0.05, queue_s=0.01, device_slowdown=2, cloud_slowdown=3)
    whole, split, all_tail = (latency_s(cut, given) for cut in manifests.CUTS)
    assert whole == pytest.approx(2 * 0.1)
    assert split == pytest.approx(2 * 0.02 + 0.05 + 0.01 + 8 * 1000 / 1e6 + 3 * 0.01 + 8 * 40 / 2e6)
    assert all_tail == pytest.approx(0.05 + 0.01 + 8 * 100_000 / 1e6 + 3 * 0.02 + 8 * 40 / 2e6)


def test_latency_by_hand_where_the_cloud_begins() -> None:
    given = Conditions(1e6, 2e6, rtt_s=0.05, queue_s=0.01, device_slowdown=2, cloud_slowdown=3)
    cut = manifests.cloud_first("c0", head_s=0.1, tail_s=0.02, up=1000, down=40)
    assert latency_s(cut, given) == pytest.approx(
        0.05 + 0.01 + 8 * 1000 / 1e6 + 3 * 0.1 + 8 * 40 / 2e6 + 2 * 0.02
    )


@SETTINGS
@given(cut_sets(), CONDITIONS, PRICES, st.none() | st.floats(0, 20))
def test_a_price_counts_where_no_target_is_met(
    cuts: tuple[CutEntry, ...], conditions: Conditions, price: float, sla_s: float | None
) -> None:
    priced = replace(conditions, price=price)
    decision = decide(manifests.manifest(cuts), priced, sla_s)
    assert decision.latency_s == latency_s(decision.cut, priced) == latency_s(decision.cut, conditions)
    if sla_s is None or min(latency_s(cut, conditions) for cut in cuts) > sla_s:
        paid = [latency_s(cut, conditions) + price * cloud_s(cut) for cut in cuts]
        assert decision.latency_s + price * cloud_s(decision.cut) == min(paid)
        assert not price or "price of the cloud" in decision.reason
    else:
        assert decision == replace(decide(manifests.manifest(cuts), conditions, sla_s), conditions=priced)


@SETTINGS
@given(cut_sets(), CONDITIONS, PRICES, st.floats(0, 100))
def test_a_higher_price_never_brings_the_cloud_more_work(
    cuts: tuple[CutEntry, ...], conditions: Conditions, price: float, more: float
) -> None:
    manifest = manifests.manifest(cuts)
    cheap, dear = (decide(manifest, replace(conditions, price=p)) for p in (price, price + more))
    assert cloud_s(dear.cut) <= cloud_s(cheap.cut) or dear.latency_s == pytest.approx(cheap.latency_s)


@SETTINGS
@given(cut_sets(), CONDITIONS)
def test_is_the_best_of_its_set(cuts: tuple[CutEntry, ...], conditions: Conditions) -> None:
    decision = decide(manifests.manifest(cuts), conditions)
    assert decision.cut in cuts
    assert decision.latency_s == latency_s(decision.cut, conditions)
    assert decision.latency_s == min(latency_s(cut, conditions) for cut in cuts)
    assert decision.conditions is conditions


@SETTINGS
@given(cut_sets(), CONDITIONS, st.floats(0, 20))
def test_a_target_gives_the_cloud_the_least_work(
    cuts: tuple[CutEntry, ...], conditions: Conditions, sla_s: float
) -> None:
    decision = decide(manifests.manifest(cuts), conditions, sla_s)
    meeting = [cut for cut in cuts if latency_s(cut, conditions) <= sla_s]
    if meeting:
        assert decision.latency_s <= sla_s
        assert cloud_s(decision.cut) == min(map(cloud_s, meeting))
        assert decision.reason == "least cloud work within the target"
    else:
        assert decision.latency_s == min(latency_s(cut, conditions) for cut in cuts)
        assert decision.reason == "no cut meets the target; lowest latency"


@SETTINGS
@given(cut_sets(), CONDITIONS, st.none() | st.floats(0, 20))
def test_an_aim_leaves_room_below_the_target_where_there_is_some(
    cuts: tuple[CutEntry, ...], conditions: Conditions, sla_s: float | None
) -> None:
    found, exact = aim(cuts, conditions, sla_s), choose(cuts, conditions, sla_s)
    if sla_s is None or min(latency_s(cut, conditions) for cut in cuts) > 0.8 * sla_s:
        assert found == exact
    else:
        assert found.latency_s <= 0.8 * sla_s
        assert cloud_s(found.cut) >= cloud_s(exact.cut)


@SETTINGS
@given(cut_sets(), CONDITIONS, st.floats(1, 100))
def test_latency_never_rises_with_uplink(
    cuts: tuple[CutEntry, ...], conditions: Conditions, factor: float
) -> None:
    faster = replace(conditions, uplink_bps=factor * conditions.uplink_bps)
    manifest = manifests.manifest(cuts)
    assert decide(manifest, faster).latency_s <= decide(manifest, conditions).latency_s


@pytest.mark.parametrize("sla_s", [None, 1.0])
def test_ties_go_to_the_smaller_payload_then_to_the_smaller_head(sla_s: float | None) -> None:
    conditions = Conditions(8.0, 8.0, rtt_s=0.0)
    heavy = manifests.cut("c0", head_s=0.1, tail_s=0.1, up=0, down=0, weights=20)
    light = manifests.cut("c1", head_s=0.1, tail_s=0.1, up=0, down=0, weights=10)
    wordy = manifests.cut("c2", head_s=0.1, tail_s=0.1, up=1, down=0, weights=0)
    free_link = replace(conditions, uplink_bps=1e30)  # one byte costs nothing measurable
    assert decide(manifests.manifest([heavy, light]), conditions, sla_s).cut is light
    assert decide(manifests.manifest([wordy, heavy]), free_link, sla_s).cut is heavy


@pytest.mark.parametrize("direction", ["uplink_bps", "downlink_bps"])
def test_without_a_link_the_device_does_it(direction: str) -> None:
    conditions = replace(Conditions(1e6, 1e6, 0.0, device_slowdown=1000), **{direction: 0.0})
    decision = decide(manifests.manifest(), conditions)
    assert decision.cut.kind == "all-head"
    assert decision.latency_s == pytest.approx(100)
