"""A failing server is left alone for a while, looked at by one probe at a time, and always taken back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.runtime.estimate.breaker import Breaker

SETTINGS = settings(derandomize=True, deadline=None, max_examples=300)
LONGEST_S = 60.0
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 5) | st.floats(0, 200),
        st.sampled_from(["look", "succeeded", "failed", "failed", "refuse"]),
    ),
    max_size=60,
)
SEEDS = st.integers(0, 2**32)


def tell(breaker: Breaker, event: str, now_s: float) -> None:
    {"succeeded": breaker.succeeded, "failed": breaker.failed, "refuse": breaker.refuse}[event](now_s)


def opened(seed: int = 0) -> Breaker:
    """Opened at 0."""
    breaker = Breaker(seed=seed)
    breaker.failed(0)
    breaker.failed(0)
    return breaker


def wait_s(breaker: Breaker, now_s: float) -> float:
    """How long after *now_s* the next probe is due, within a millisecond; claims it."""
    for step in range(100_000):
        if breaker.probe_due(now_s + step / 1000):
            return step / 1000
    pytest.fail("no probe within 100 s")


def test_opens_after_two_failures_in_a_row() -> None:
    breaker = Breaker(seed=0)
    for event in ["failed", "succeeded", "failed"]:
        tell(breaker, event, 0)
        assert breaker.allows(0)
    breaker.failed(0)
    assert not breaker.allows(0)


@SETTINGS
@given(EVENTS, SEEDS)
def test_is_open_from_failures_to_a_success_whatever_happens(
    events: list[tuple[float, str]], seed: int
) -> None:
    breaker, now_s, failures, closed = Breaker(seed=seed), 0.0, 0, True
    for pause_s, event in events:
        now_s += pause_s
        if event == "look":
            assert not (breaker.probe_due(now_s) and closed)
            continue
        tell(breaker, event, now_s)
        failures = failures + 1 if event == "failed" else 0
        closed = event == "succeeded" or (closed and event == "failed" and failures < 2)
        assert breaker.allows(now_s) == closed
        assert not breaker.allows(now_s + 1e6) or closed


@SETTINGS
@given(EVENTS, SEEDS)
def test_one_probe_at_a_time(events: list[tuple[float, str]], seed: int) -> None:
    """Until the prober reports, or has been silent for the longest time, nobody else probes."""
    breaker, now_s, silent_until_s = Breaker(seed=seed), 0.0, 0.0
    for pause_s, event in events:
        now_s += pause_s
        if event != "look":
            tell(breaker, event, now_s)
            silent_until_s = now_s
        elif breaker.probe_due(now_s):
            assert now_s >= silent_until_s
            assert not breaker.probe_due(now_s)
            silent_until_s = now_s + LONGEST_S


@SETTINGS
@given(EVENTS, SEEDS)
def test_always_comes_back(events: list[tuple[float, str]], seed: int) -> None:
    breaker, now_s = Breaker(seed=seed), 0.0
    for pause_s, event in events:
        now_s += pause_s
        breaker.probe_due(now_s) if event == "look" else tell(breaker, event, now_s)
    now_s += LONGEST_S
    assert breaker.allows(now_s) or breaker.probe_due(now_s)
    breaker.succeeded(now_s)
    assert breaker.allows(now_s)


@pytest.mark.parametrize("seed", range(5))
def test_waits_double_to_a_minute_and_start_again_after_a_success(seed: int) -> None:
    breaker, now_s = opened(seed), 0.0
    for longest_s in [1, 2, 4, 8, 16, 32, 60, 60]:
        waited_s = wait_s(breaker, now_s)
        assert longest_s / 2 <= waited_s <= longest_s + 0.001
        now_s += waited_s
        breaker.failed(now_s)
    breaker.succeeded(now_s)
    breaker.failed(now_s)
    breaker.failed(now_s)
    assert wait_s(breaker, now_s) <= 1.001


def test_refused_waits_the_longest_time_at_once() -> None:
    breaker = Breaker(seed=0)
    breaker.refuse(0)
    assert not breaker.allows(0)
    waited_s = wait_s(breaker, 0)
    assert waited_s >= LONGEST_S / 2
    breaker.failed(waited_s)
    assert wait_s(breaker, waited_s) >= LONGEST_S / 2


def test_late_news_of_requests_sent_before_changes_nothing() -> None:
    """Ten requests in flight when the server dies are one event, not ten doublings."""
    breaker = opened()
    for _ in range(10):
        breaker.failed(0.1)
    assert wait_s(breaker, 0) <= 1.001


def test_a_prober_that_never_reports_is_replaced() -> None:
    breaker = opened()
    asked_s = wait_s(breaker, 0)
    assert not breaker.probe_due(asked_s + LONGEST_S - 0.001)
    assert breaker.probe_due(asked_s + LONGEST_S)


def test_devices_do_not_come_back_together() -> None:
    waits = [wait_s(opened(seed), 0) for seed in range(200)]
    assert max(sum(low <= wait < low + 0.05 for wait in waits) for low in [n / 20 for n in range(20)]) < 40
    assert wait_s(opened(7), 0) == wait_s(opened(7), 0)
