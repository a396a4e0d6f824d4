"""What a link is told to be makes sense, or one sentence says why not."""

import math

import pytest

from splitc.common.errors import TestBedError
from splitc.testbed.spec import LinkSpec, LinkTrace, Rate, from_json, to_json


def test_crosses_a_pipe_unchanged() -> None:
    spec = LinkSpec(Rate(1e6 / 3), LinkTrace((0, 0, 5, 7)), rtt_s=0.1 / 3, queue_bytes=9000, loss=0.01)
    assert from_json(to_json(spec)) == spec
    assert "\n" not in to_json(spec)


def test_a_trace_knows_its_mean() -> None:
    trace = LinkTrace(tuple(range(1, 1001)))
    assert trace.length_s == 1
    assert trace.bps == pytest.approx(1448 * 8 * 1000)


@pytest.mark.parametrize("bps", [0.0, -1.0, math.inf, math.nan])
def test_no_such_rate(bps: float) -> None:
    with pytest.raises(TestBedError, match=r"above zero and finite, not .* bit/s; for a dead link use"):
        Rate(bps)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((), "at least one delivery opportunity"),
        ((0, 0), "at least one delivery opportunity"),
        ((3, 2, 5), "must be in order"),
        ((-1, 5), "must be in order"),
    ],
)
def test_no_such_trace(times: tuple[int, ...], message: str) -> None:
    with pytest.raises(TestBedError, match=message):
        LinkTrace(times)


@pytest.mark.parametrize(
    ("rtt_s", "queue_bytes", "loss", "message"),
    [
        (-0.1, 9000, 0.0, "round trip"),
        (math.inf, 9000, 0.0, "round trip"),
        (0.1, 1499, 0.0, "must hold a packet of 1500 bytes, not 1499"),
        (0.1, 9000, 1.5, "between 0 and 1, not at 1.5"),
        (0.1, 9000, math.nan, "between 0 and 1"),
    ],
)
def test_no_such_link(rtt_s: float, queue_bytes: int, loss: float, message: str) -> None:
    with pytest.raises(TestBedError, match=message):
        LinkSpec(Rate(1e6), Rate(1e6), rtt_s=rtt_s, queue_bytes=queue_bytes, loss=loss)
