"""When a device leaves its server alone, looks at it again, and begins at the same time."""

import pytest

from splitc.bundle.decide import Conditions
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator, ObservedExchange
from splitc.runtime.estimate.server_state import ServerState

ANSWERED = ObservedExchange(200, 0, 0.1, 0.0, None, None, None, None)


@pytest.fixture
def server_state() -> ServerState:
    return ServerState(Estimator(Conditions(1e7, 1e7, rtt_s=0.1)), Breaker(seed=0), 0.0)


def test_after_a_failure_or_a_late_answer_a_device_begins_at_once_for_a_minute(
    server_state: ServerState,
) -> None:
    assert server_state.is_steady(0.0)
    server_state.failed(1.0)
    assert (server_state.is_steady(60.9), server_state.is_steady(61.0)) == (False, True)
    server_state.was_late(100.0)
    assert (server_state.is_steady(159.9), server_state.is_steady(160.0)) == (False, True)


def test_nothing_is_sent_until_what_was_left_behind_has_ended(server_state: ServerState) -> None:
    one, other = object(), object()
    for exchange in (one, one, other):
        server_state.leave_behind(exchange)
    server_state.ended(one)
    assert not server_state.is_usable(1.0)
    assert server_state.inherited(1.0).is_usable(1.0)
    server_state.ended(other)
    assert server_state.is_usable(1.0)


@pytest.mark.parametrize("found", [False, True])
def test_a_server_that_was_left_alone_is_used_again_once_a_probe_finds_it(
    server_state: ServerState, found: bool
) -> None:
    server_state.answered(ANSWERED, 0.0)
    for now_s in (1.0, 2.0):
        server_state.failed(now_s)
    assert not server_state.is_usable(10.0)
    assert server_state.looks(10.0, idle=False)
    assert not server_state.looks(10.0, idle=True)  # one at a time
    server_state.probed(10.1, found=found)
    assert server_state.is_usable(10.1) == found
