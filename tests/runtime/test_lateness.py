"""An answer is late when the device would have been done, within limits, and is given up no earlier."""

from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.decision import Conditions, decide
from splitc.runtime.lateness import patience
from tests import manifests

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
CONDITIONS = st.builds(
    Conditions,
    st.floats(1e4, 1e9),
    st.floats(1e4, 1e9),
    st.floats(0, 1),
    st.floats(0, 10),
    head_slowdown=st.floats(0.1, 20),
    tail_slowdown=st.floats(0.1, 20),
)


@SETTINGS
@given(CONDITIONS)
def test_waits_longer_than_expected_but_not_for_ever(conditions: Conditions) -> None:
    manifest = manifests.manifest()
    decision = decide(manifest, conditions)
    waits = patience(decision, manifest.cuts[0])
    expected_s = decision.latency_s - conditions.head_slowdown * decision.cut.device_s
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
        conditions = Conditions(8e8, 1e12, 0.329, head_slowdown=slowdown)
        decision = decide(manifests.manifest(manifests.CUTS[2:]), conditions)
        assert abs(decision.latency_s - 0.35) < 1e-3
        assert abs(patience(decision, manifest.cuts[0]).late_s - late_s) < 2e-3
