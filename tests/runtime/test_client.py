"""What a client tells a server of its deadline."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.runtime.client import _rounded_up


@settings(derandomize=True, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_a_deadline_is_said_in_two_digits_and_never_too_short(seconds: float) -> None:
    said = _rounded_up(seconds)
    assert seconds <= said * (1 + 1e-12)
    assert said <= 1.11 * seconds
    assert float(f"{said:.1e}") == pytest.approx(said)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf])
def test_no_deadline_and_one_that_has_passed_stay_as_they_are(seconds: float) -> None:
    assert _rounded_up(seconds) == seconds
