"""When a device leaves its server alone, looks at it again, and begins at the same time."""

import pytest

from splitc.bundle.decide import Conditions
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator, Exchange
from splitc.runtime.estimate.server_state import Outlook

ANSWERED = Exchange(200, 0, 0.1, 0.0, None, None, None, None)


@pytest.fixture
def outlook() -> Outlook:
    return Outlook(Estimator(Conditions(1e7, 1e7, rtt_s=0.1)), Breaker(seed=0), 0.0)


def test_after_a_failure_or_a_late_answer_a_device_begins_at_once_for_a_minute(outlook: Outlook) -> None:
    assert outlook.is_steady(0.0)
    outlook.failed(1.0)
    assert (outlook.is_steady(60.9), outlook.is_steady(61.0)) == (False, True)
    outlook.was_late(100.0)
    assert (outlook.is_steady(159.9), outlook.is_steady(160.0)) == (False, True)


def test_nothing_is_sent_until_what_was_left_behind_has_ended(outlook: Outlook) -> None:
    one, other = object(), object()
    for exchange in (one, one, other):
        outlook.leave_behind(exchange)
    outlook.ended(one)
    assert not outlook.is_usable(1.0)
    assert outlook.inherited(1.0).is_usable(1.0)
    outlook.ended(other)
    assert outlook.is_usable(1.0)


@pytest.mark.parametrize("found", [False, True])
def test_a_server_that_was_left_alone_is_used_again_once_a_probe_finds_it(
    outlook: Outlook, found: bool
) -> None:
    outlook.answered(ANSWERED, 0.0)
    for now_s in (1.0, 2.0):
        outlook.failed(now_s)
    assert not outlook.is_usable(10.0)
    assert outlook.looks(10.0, idle=False)
    assert not outlook.looks(10.0, idle=True)  # one at a time
    outlook.probed(10.1, found=found)
    assert outlook.is_usable(10.1) == found
