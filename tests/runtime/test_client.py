"""What a client tells a server of its deadline."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.runtime.client import _number, _rounded_up


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


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0.0),
        (" 2.50 ", 2.5),
        ('"1e3"', 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("", None),
        ("-1", None),
        ("1_0", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("٣", None),
        ("1 2", None),
        (60_000 * "9", None),
        (60_000 * "9" + "x", None),
    ],
)
def test_numbers_in_headers(text: str, number: float | None) -> None:
    assert _number(text) == number
