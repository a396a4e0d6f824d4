"""Traces are read strictly, and made up as told, the same each time."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.errors import TestBedError
from splitc.testbed.spec import LinkTrace
from splitc.testbed.traces import read_trace, synthetic_trace

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "traces"
LTE = (2e6, 8e6, 25e6)
SETTINGS = settings(derandomize=True, deadline=None, max_examples=30)


def test_a_file_has_a_time_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "t.up").write_text("0\n5\n5\n12", encoding="ascii")
    assert read_trace(tmp_path / "t.up") == LinkTrace((0, 5, 5, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one delivery opportunity"),
        ("0\n", "at least one delivery opportunity"),
        ("1\n\n3\n", "line 2 is '', but must be a whole number of milliseconds"),
        ("1\n2.5\n", "line 2 is '2.5', but must be a whole number"),
        ("-1\n", "line 1 is '-1'"),
        ("9" * 5000, "line 1 is '9999"),
        ("7\n3\n", "line 2 is 3, before the 7 above it"),
        ("µ\n", "is not text"),
    ],
    ids=lambda value: value[:12],
)
def test_one_sentence_each(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.up"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TestBedError, match=message) as raised:
        read_trace(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < len(str(path)) + 160


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TestBedError, match=r"none\.up: the trace cannot be read: No such file"):
        read_trace(tmp_path / "none.up")


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"the recorded traces are not in {RECORDED}")
def test_recorded_ones() -> None:
    trace = read_trace(RECORDED / "Verizon-LTE-short.up")
    assert trace.length_s == 140
    assert trace.bps == pytest.approx(5.74e6, rel=0.01)


def test_a_made_up_one_never_changes() -> None:
    """Benchmarks of today can be compared with those of last year."""
    text = "\n".join(map(str, synthetic_trace(*LTE, seconds=60, seed=1).opportunities_ms))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e5c87cc8fa046f2b"


def test_seeds_differ() -> None:
    assert synthetic_trace(*LTE, seconds=10, seed=1) != synthetic_trace(*LTE, seconds=10, seed=2)


@SETTINGS
@given(st.integers(0, 10**6), st.floats(5e5, 5e6), st.floats(1, 8), st.floats(1, 4))
def test_percentiles_are_as_told(seed: int, low_bps: float, middle: float, high: float) -> None:
    told = (low_bps, low_bps * middle, low_bps * middle * high)
    trace = synthetic_trace(*told, seconds=60, seed=seed)
    assert trace.length_s == 60
    found = sorted(rates_bps(trace, window_ms=500))
    for share, bps in zip((0.1, 0.5, 0.9), told, strict=True):
        low, high = (found[round((share + part) * (len(found) - 1))] for part in (-0.08, 0.08))
        assert 0.85 * low <= bps <= 1.15 * high


def test_it_fades_now_and_then_and_not_for_long() -> None:
    faded = [bps < LTE[0] for bps in rates_bps(synthetic_trace(*LTE, seconds=300, seed=3), window_ms=200)]
    spells = "".join("x" if bad else " " for bad in faded).split()
    assert 10 < len(spells) < 200
    assert max(map(len, spells)) < 10 / 0.2


def rates_bps(trace: LinkTrace, *, window_ms: int) -> Sequence[float]:
    count = Counter(time_ms // window_ms for time_ms in trace.opportunities_ms)
    return [
        count[window] * 1448 * 8 * 1000 / window_ms
        for window in range(round(trace.length_s * 1000) // window_ms)
    ]


@pytest.mark.parametrize(
    ("rates", "seconds"), [((2e6, 1e6, 3e6), 10), ((0, 1e6, 2e6), 10), (LTE, 0), (LTE, float("inf"))]
)
def test_rates_are_in_order(rates: tuple[float, float, float], seconds: float) -> None:
    with pytest.raises(TestBedError, match="a trace needs rates above zero and in order"):
        synthetic_trace(*rates, seconds=seconds, seed=0)


def test_the_slowest_has_a_packet_all_the_same() -> None:
    assert synthetic_trace(1, 1, 1, seconds=1, seed=0) == LinkTrace((1000,))
