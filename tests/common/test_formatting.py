"""Quantities are written with three significant digits and the prefix that people use."""

import pytest

from splitc.common.formatting import (
    format_bytes,
    format_rate,
    format_seconds,
    format_seconds_range,
    format_source,
    plural,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (4e-10, "0.4 ns"),
        (2.5e-8, "25 ns"),
        (8.29e-4, "829 µs"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (1.0, "1 s"),
        (75.34, "75.3 s"),
        (3600.0, "3600 s"),
        (-0.0123, "-12.3 ms"),
        (float("inf"), "inf s"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    """Times go from nanoseconds up to seconds, never to minutes."""
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (401_408, "401 kB"),
        (999_900, "1 MB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    """A kB is 1000 bytes; what rounds up to 1000 of a unit is 1 of the next."""
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("bits_per_s", "text"),
    [
        (300.0, "300 bit/s"),
        (5e5, "500 kbit/s"),
        (6.3e6, "6.3 Mbit/s"),
        (213.75e6, "214 Mbit/s"),
        (1e9, "1 Gbit/s"),
    ],
)
def test_rates(bits_per_s: float, text: str) -> None:
    """Rates are bits per second."""
    assert format_rate(bits_per_s) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (9.8e-4, 0.0123, "0.98 to 12.3 ms"),
        (0.0123, 1.5, "0.0123 to 1.5 s"),
        (1e-6, 1e-6, "1 to 1 µs"),
        (0.0, 0.0, "0 to 0 s"),
    ],
)
def test_a_range_has_one_unit(low: float, high: float, text: str) -> None:
    assert format_seconds_range(low, high) == text


def test_sources() -> None:
    assert format_source("measured", 0) == "measured"
    assert format_source("predicted", 1) == "predicted, calibrated with 1 run"
    assert format_source("predicted", 3) == "predicted, calibrated with 3 runs"


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (3, "3 runs")])
def test_plural(count: int, text: str) -> None:
    assert plural(count, "run") == text
