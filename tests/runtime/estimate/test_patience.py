"""An answer is late when the device would have been done, within limits, and is given up no earlier."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions, decide
from splitc.runtime.estimate.patience import also_sent, patience
from tests import manifests

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
CONDITIONS = st.builds(
    Conditions,
    st.floats(1e4, 1e9),
    st.floats(1e4, 1e9),
    st.floats(0, 1),
    st.floats(0, 10),
    device_slowdown=st.floats(0.1, 20),
    cloud_slowdown=st.floats(0.1, 20),
)


@SETTINGS
@given(CONDITIONS)
def test_waits_longer_than_expected_but_not_for_ever(conditions: Conditions) -> None:
    manifest = manifests.manifest()
    decision = decide(manifest, conditions)
    waits = patience(decision, manifest.cuts[0])
    expected_s = decision.latency_s - conditions.device_slowdown * decision.cut.device_s
    assert min(expected_s, 60.0) <= waits.late_s <= waits.give_up_s <= 60.0
    assert waits.late_s <= 2 * expected_s + 0.1 + 1e-9


@SETTINGS
@given(CONDITIONS)
def test_waits_as_long_as_a_person_might_where_there_is_no_other_way(conditions: Conditions) -> None:
    decision = decide(manifests.manifest(manifests.CUTS[1:]), conditions)
    waits = patience(decision, None)
    assert 30.0 <= waits.late_s == waits.give_up_s <= 60.0


def test_a_device_that_is_fast_itself_does_not_wait_for_long() -> None:
    """Sent to a far server, 0.35 s are expected; the device alone takes 0.1 s, or 1 s if it is slow."""
    manifest = manifests.manifest()
    for slowdown, late_s in ((1.0, 1.25 * 0.35 + 0.1), (6.5, 0.65), (20.0, 2 * 0.35 + 0.1)):
        conditions = Conditions(8e8, 1e12, 0.329, device_slowdown=slowdown)
        decision = decide(manifests.manifest(manifests.CUTS[2:]), conditions)
        assert abs(decision.latency_s - 0.35) < 1e-3
        assert abs(patience(decision, manifest.cuts[0]).late_s - late_s) < 2e-3


def test_a_device_that_begins_anyway_sends_what_it_would_have_done_alone_if_that_may_help() -> None:
    manifest = manifests.manifest()
    alone_s = manifest.cuts[0].device_s
    whole = next(cut for cut in manifest.cuts if cut.device is None)
    usual = Conditions(1e12, 1e12, rtt_s=0.0)
    for times, is_sent in ((1.1, True), (3.9, True), (4.1, False)):
        conditions = replace(usual, rtt_s=times * alone_s - whole.cloud_s)
        alone = decide(manifest, conditions)
        assert alone.cut.cloud is None
        sent = also_sent(manifest.cuts, alone, None)
        assert (sent.cut == whole) == is_sent
        assert sent.latency_s == pytest.approx((times if is_sent else 1.0) * alone_s, rel=1e-3)
        assert also_sent(manifest.cuts, alone, 1.0) == alone
        priced = decide(manifest, replace(conditions, price=0.1))
        assert also_sent(manifest.cuts, priced, None) == priced
    nowhere = decide(manifest, replace(usual, uplink_bps=0.0))
    assert also_sent(manifest.cuts, nowhere, None) == nowhere
    assert also_sent([cut for cut in manifest.cuts if cut.device is not None], alone, None) == alone
    split = decide(manifest, usual)
    assert split.cut.cloud is not None
    assert also_sent(manifest.cuts, split, None) == split
