"""The chart shows what `decide` decides."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.bundle.decide import decide
from splitc.common.axis import Axis
from splitc.compile.chart import chart
from tests.manifests import manifest


def test_the_strip_names_the_fastest_cut_at_every_rate() -> None:
    made = manifest()
    drawn = chart(made, ())
    assert len(drawn.runs) > 1
    for run in drawn.runs:
        middle = (run.start + run.end) / 2
        share = (middle - drawn.x.start) / (drawn.x.end - drawn.x.start)
        rate = drawn.x.low * (drawn.x.high / drawn.x.low) ** share
        assert decide(made, replace(drawn.conditions, uplink_bps=rate)).cut == run.cut


def test_the_strip_has_no_gaps() -> None:
    drawn = chart(manifest(), ())
    assert (drawn.runs[0].start, drawn.runs[-1].end) == (drawn.x.start, drawn.x.end)
    assert all(left.end == pytest.approx(right.start) for left, right in pairwise(drawn.runs))


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e9))
def test_ticks_lie_on_the_axis(low: float, ratio: float) -> None:
    axis = Axis(low, low * ratio, 0.0, 100.0)
    ticks = axis.ticks()
    assert len(ticks) > 1
    assert all(-1e-6 <= axis.place(tick) <= 100 + 1e-6 for tick in ticks)
    assert axis.place(math.sqrt(axis.low * axis.high)) == pytest.approx(50.0)
