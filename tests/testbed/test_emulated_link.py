"""An emulated direction keeps order, is never faster than it was told to be, and loses only what it should."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.testbed.emulated_link import LinkDirection
from splitc.testbed.spec import LinkSpec, LinkTrace, Rate

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)
ROOMY = 10**9
TINY_S = 1e-9

SIZES = st.integers(20, 1500)
OFFERS = st.lists(st.tuples(st.floats(0, 0.05), SIZES), min_size=1, max_size=40)
RATES = st.floats(1e4, 1e9).map(Rate)
TRACES = (
    st.lists(st.integers(0, 40), min_size=1, max_size=30)
    .filter(any)
    .map(lambda gaps: LinkTrace(tuple(accumulate(gaps))))
)
RTTS = st.floats(0, 0.3)

Arrivals = list[tuple[float, int]]


def make(
    pace: Rate | LinkTrace,
    *,
    rtt_s: float = 0.0,
    queue_bytes: int = ROOMY,
    loss: float = 0.0,
    now_s: float = 0.0,
) -> LinkDirection:
    return LinkDirection(pace, spec(pace, rtt_s=rtt_s, queue_bytes=queue_bytes, loss=loss), now_s)


def spec(
    pace: Rate | LinkTrace, *, rtt_s: float = 0.0, queue_bytes: int = ROOMY, loss: float = 0.0
) -> LinkSpec:
    return LinkSpec(pace, pace, rtt_s=rtt_s, queue_bytes=queue_bytes, loss=loss)


def offers_of(pairs: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Times from the gaps between offers, with the sizes."""
    times = accumulate(gap_s for gap_s, _ in pairs)
    return [(time_s, size) for time_s, (_, size) in zip(times, pairs, strict=True)]


def drive(
    line: LinkDirection, offers: Sequence[tuple[float, int]], before: Callable[[int], None] = lambda _: None
) -> Arrivals:
    """Offer packets, each bearing its number, and ask for arrivals exactly when there are some."""
    found: Arrivals = []
    for number, (at_s, size) in enumerate(offers):
        found += until(line, at_s)
        before(number)
        line.offer(number.to_bytes(4, "big"), size, at_s)
    return found + until(line, 1e12)


def until(line: LinkDirection, end_s: float) -> Arrivals:
    found: Arrivals = []
    while line.next_s() <= end_s:
        now_s = line.next_s()
        found += [(now_s, int.from_bytes(packet, "big")) for packet in line.arrivals(now_s)]
    return found


@SETTINGS
@given(OFFERS, RATES | TRACES, RTTS, st.integers(1500, 6000), st.floats(0, 1))
def test_order_is_kept_and_every_packet_accounted_for(
    pairs: list[tuple[float, int]], pace: Rate | LinkTrace, rtt_s: float, queue_bytes: int, loss: float
) -> None:
    line = make(pace, rtt_s=rtt_s, queue_bytes=queue_bytes, loss=loss)
    arrivals = drive(line, offers_of(pairs))
    assert [number for _, number in arrivals] == sorted({number for _, number in arrivals})
    assert [at_s for at_s, _ in arrivals] == sorted(at_s for at_s, _ in arrivals)
    counts = line.counts()
    assert counts.arrived == len(arrivals)
    assert counts.arrived + counts.dropped + counts.lost == len(pairs)
    assert counts.late_s == 0


@SETTINGS
@given(OFFERS, RATES, RTTS)
def test_a_packet_takes_its_turn_its_time_and_the_delay(
    pairs: list[tuple[float, int]], rate: Rate, rtt_s: float
) -> None:
    """Exactly: as a queue before one till (Lindley's recursion)."""
    offers = offers_of(pairs)
    free_s = 0.0
    for (arrived_s, _), (at_s, size) in zip(drive(make(rate, rtt_s=rtt_s), offers), offers, strict=True):
        free_s = max(at_s, free_s) + size * 8 / rate.line_bps
        assert arrived_s == pytest.approx(free_s + rtt_s / 2, abs=TINY_S)


@SETTINGS
@given(OFFERS, RATES, st.integers(1500, 9000))
def test_never_faster_than_the_rate(pairs: list[tuple[float, int]], rate: Rate, queue_bytes: int) -> None:
    offers = offers_of(pairs)
    arrivals = drive(make(rate, queue_bytes=queue_bytes), offers)
    for first, (begin_s, _) in enumerate(arrivals):
        carried = 0
        for end_s, number in arrivals[first + 1 :]:
            carried += offers[number][1]
            assert carried * 8 <= rate.line_bps * (end_s - begin_s + TINY_S)


def test_a_full_stream_carries_the_rate_in_payload() -> None:
    rate = Rate(10e6)
    *_, (last_s, _) = drive(make(rate), [(0.0, 1500)] * 1000)
    assert last_s == pytest.approx(1000 * 1448 * 8 / 10e6)


@SETTINGS
@given(OFFERS, TRACES, RTTS, st.floats(0, 100))
def test_opportunities_are_used_at_most_once(
    pairs: list[tuple[float, int]], trace: LinkTrace, rtt_s: float, begin_s: float
) -> None:
    offers = [(begin_s + at_s, size) for at_s, size in offers_of(pairs)]
    arrivals = drive(make(trace, rtt_s=rtt_s, now_s=begin_s), offers)
    left = [(at_s - rtt_s / 2 - begin_s, offers[number][1]) for at_s, number in arrivals]
    assert len(left) == len(offers)
    for first, (from_s, _) in enumerate(left):
        carried = 0  # by the opportunities from then on, besides what one of them did for the first packet
        for to_s, size in left[first + 1 :]:
            carried += size
            assert carried <= 1500 * opportunities(trace, from_s, to_s)


@SETTINGS
@given(OFFERS, TRACES)
def test_packets_leave_at_opportunities_only(pairs: list[tuple[float, int]], trace: LinkTrace) -> None:
    for at_s, _ in drive(make(trace), offers_of(pairs)):
        assert opportunities(trace, at_s, at_s) >= 1


def opportunities(trace: LinkTrace, from_s: float, to_s: float) -> int:
    """How many there are between these times, counted one by one."""
    rounds = int(to_s // trace.length_s) + 1
    times = (
        round_ * trace.length_s + time_ms / 1000
        for round_ in range(max(0, int(from_s // trace.length_s) - 1), rounds + 1)
        for time_ms in trace.opportunities_ms
    )
    return sum(from_s - TINY_S <= time_s <= to_s + TINY_S for time_s in times)


def test_a_full_stream_uses_every_opportunity() -> None:
    trace = LinkTrace((0, 3, 3, 10))
    arrivals = drive(make(trace), [(0.0, 1500)] * 8)
    assert [round(at_s * 1000) for at_s, _ in arrivals] == [0, 3, 3, 10, 10, 13, 13, 20]


def test_an_opportunity_carries_several_small_packets_and_part_of_the_next() -> None:
    arrivals = drive(make(LinkTrace((5, 10, 20))), [(0.0, 700), (0.0, 700), (0.0, 700), (0.0, 901)])
    assert [round(at_s * 1000) for at_s, _ in arrivals] == [5, 5, 10, 20]


def test_what_an_opportunity_could_have_carried_is_lost_for_who_comes_later() -> None:
    arrivals = drive(make(LinkTrace((5, 10))), [(0.004, 100), (0.006, 100), (0.010, 100), (0.0101, 100)])
    assert [round(at_s * 1000) for at_s, _ in arrivals] == [5, 10, 10, 15]


def test_a_long_pause_skips_opportunities() -> None:
    line = make(LinkTrace((1, 2, 40)))
    assert drive(line, [(0.0, 1500), (1e6 + 0.001, 1500)])[1][0] == pytest.approx(1e6 + 0.001, abs=0.04)


@SETTINGS
@given(OFFERS, RATES, st.integers(1500, 6000))
def test_the_queue_drops_what_it_cannot_hold(
    pairs: list[tuple[float, int]], rate: Rate, queue_bytes: int
) -> None:
    offers = offers_of(pairs)
    arrived = {number: at_s for at_s, number in drive(make(rate, queue_bytes=queue_bytes), offers)}
    for number, (at_s, size) in enumerate(offers):
        waiting = sum(
            offers[other][1] for other, left_s in arrived.items() if other < number and left_s > at_s
        )
        assert (number in arrived) == (waiting + size <= queue_bytes)


@SETTINGS
@given(OFFERS, RATES | TRACES, RTTS)
def test_asking_often_changes_nothing(
    pairs: list[tuple[float, int]], pace: Rate | LinkTrace, rtt_s: float
) -> None:
    offers = offers_of(pairs)
    line, expected = make(pace, rtt_s=rtt_s), drive(make(pace, rtt_s=rtt_s), offers)
    found: list[int] = []
    for number, (at_s, size) in enumerate(offers):
        for part in range(10):
            now_s = at_s - (10 - part) * 0.001
            found += [int.from_bytes(packet, "big") for packet in line.arrivals(now_s)]
        line.offer(number.to_bytes(4, "big"), size, at_s)
    rest = until(line, 1e12)
    assert found + [number for _, number in rest] == [number for _, number in expected]
    assert rest == expected[len(found) :]


@SETTINGS
@given(OFFERS, st.lists(st.tuples(RATES | TRACES, RTTS), min_size=1, max_size=6))
def test_order_is_kept_through_changes(
    pairs: list[tuple[float, int]], links: list[tuple[Rate | LinkTrace, float]]
) -> None:
    offers = offers_of(pairs)
    line = make(links[0][0], rtt_s=links[0][1])

    def change(number: int) -> None:
        pace, rtt_s = links[number % len(links)]
        line.change(pace, spec(pace, rtt_s=rtt_s), offers[number][0])

    arrivals = drive(line, offers, change)
    assert [number for _, number in arrivals] == list(range(len(offers)))
    assert [at_s for at_s, _ in arrivals] == sorted(at_s for at_s, _ in arrivals)


def test_what_waits_goes_at_the_new_rate() -> None:
    line = make(Rate(1e3))
    for number in range(10):
        line.offer(number.to_bytes(4, "big"), 1500, 0.0)
    assert line.next_s() > 10
    line.change(Rate(1e9), spec(Rate(1e9), rtt_s=0.02), 1.0)
    arrivals = until(line, 1.02)
    assert len(arrivals) == 10
    assert arrivals[0][0] == pytest.approx(1.01, abs=1e-4)


def test_what_is_under_way_is_not_overtaken() -> None:
    line = make(Rate(1e9), rtt_s=2.0)
    line.offer(b"\0", 1500, 0.0)
    line.arrivals(0.5)
    line.change(Rate(1e9), spec(Rate(1e9)), 0.5)
    line.offer(b"\1", 1500, 0.5)
    arrivals = until(line, 2.0)
    assert [number for _, number in arrivals] == [0, 1]
    assert arrivals[0][0] == pytest.approx(1.0, abs=1e-3)


def test_nothing_leaves_a_black_hole() -> None:
    line = make(Rate(1e6), rtt_s=0.1)
    line.offer(b"\0", 1500, 0.0)
    line.arrivals(0.02)  # this one is under way
    line.black_hole = True
    line.offer(b"\1", 1500, 0.03)
    assert [number for _, number in until(line, 9.0)] == [0]
    line.black_hole = False
    line.offer(b"\2", 1500, 9.0)
    assert [number for _, number in until(line, 10.0)] == [2]
    assert line.counts().lost == 1


def test_loss_is_a_share_of_the_packets_and_the_same_each_time() -> None:
    one, other = (drive(make(Rate(1e9), loss=0.2), [(0.0, 100)] * 5000) for _ in range(2))
    assert one == other
    assert len(one) == pytest.approx(4000, abs=150)


def test_lateness_is_noted() -> None:
    line = make(Rate(1e9))
    line.offer(b"\0", 100, 0.0)
    line.arrivals(0.25)
    assert line.counts().late_s == pytest.approx(0.25, abs=1e-5)


def test_a_spec_with_other_paces_each_way() -> None:
    both = replace(spec(Rate(1e6)), downlink=LinkTrace((1,)))
    assert LinkDirection(both.downlink, both, 0.0).next_s() == float("inf")
