"""Connections are kept as the transport keeps them, and open their windows as TCP does."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions, latency_s
from splitc.runtime.estimate.link import FIRST_WINDOW_BYTES, PACKET_BYTES
from splitc.runtime.http.transport import MAX_IDLE, MAX_IDLE_S
from splitc.simulate.tcp import TcpConnection, TcpConnections, after_first_s, lone_s
from tests import manifests

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
FAR = Conditions(8e8, 8e8, rtt_s=0.1)
"""A kilobyte takes 10 us, a round trip 100 ms: what is sent is nothing against waiting."""


def rounds(connection: TcpConnection, windows: float, now_s: float) -> int:
    """Round trips that an upload of so many first windows waits for acknowledgements."""
    size_bytes = round(windows * FIRST_WINDOW_BYTES)
    return round((connection.carry_s("up", size_bytes, FAR, now_s) - FAR.rtt_s / 2) / FAR.rtt_s)


def test_what_fits_into_the_first_window_waits_for_nothing() -> None:
    assert TcpConnection().carry_s("up", FIRST_WINDOW_BYTES, FAR, 0.0) == pytest.approx(0.05, abs=1e-3)


def test_the_window_doubles_with_every_round_trip() -> None:
    waited = [rounds(TcpConnection(), windows, 0.0) for windows in (1, 1.1, 3, 3.1, 7, 7.1)]
    assert waited == [0, 1, 1, 2, 2, 3]


def test_a_window_stays_open_until_a_pause() -> None:
    connection = TcpConnection()
    assert rounds(connection, 7, 0.0) == 2
    assert rounds(connection, 7, 0.3) == 0  # the first took 0.2 s, and a timeout of TCP is as long
    assert rounds(connection, 7, 10.0) == 2


def test_each_direction_has_its_own() -> None:
    connection = TcpConnection()
    rounds(connection, 7, 0.0)
    assert connection.carry_s("down", 7 * FIRST_WINDOW_BYTES, FAR, 0.3) > 0.2


def test_a_full_link_waits_for_nothing() -> None:
    slow = Conditions(1e5, 1e5, rtt_s=0.1)  # a first window takes a second
    took_s = TcpConnection().carry_s("up", 10 * FIRST_WINDOW_BYTES, slow, 0.0)
    assert took_s == pytest.approx(0.05 + 8 * 10 * FIRST_WINDOW_BYTES / 1e5)


def test_connections_are_used_again_the_last_one_first() -> None:
    line, first, second = TcpConnections(), TcpConnection(), TcpConnection()
    assert line.take(0.0) is None
    line.keep(first, 0.0)
    line.keep(second, 1.0)
    assert line.take(2.0) is second
    assert line.take(2.0) is first
    assert line.take(2.0) is None


def test_what_was_idle_for_long_or_broke_is_opened_anew() -> None:
    line = TcpConnections()
    line.keep(TcpConnection(), 0.0)
    assert line.take(MAX_IDLE_S + 1) is None
    line.keep(TcpConnection(), 0.0)
    line.broke()
    assert line.take(1.0) is None


def test_no_more_are_kept_than_the_transport_keeps() -> None:
    line = TcpConnections()
    for _ in range(2 * MAX_IDLE):
        line.keep(TcpConnection(), 0.0)
    taken = [line.take(1.0) for _ in range(2 * MAX_IDLE)]
    assert sum(connection is not None for connection in taken) == MAX_IDLE


@SETTINGS
@given(
    st.integers(0, 10_000_000),
    st.integers(0, 10_000_000),
    st.floats(1e5, 1e9),
    st.floats(1e5, 1e9),
    st.floats(0.001, 0.5),
)
def test_a_lone_request_takes_what_the_formula_says_and_what_tcp_adds(
    up: int, down: int, uplink_bps: float, downlink_bps: float, rtt_s: float
) -> None:
    truth, cut = Conditions(uplink_bps, downlink_bps, rtt_s), manifests.cut("c", tail_s=0.5, up=up, down=down)
    connection = TcpConnection()
    up_s = connection.carry_s("up", up, truth, 0.0)
    down_s = connection.carry_s("down", down, truth, up_s + 0.5)
    assert up_s + 0.5 + down_s == pytest.approx(latency_s(cut, truth) + lone_s(cut, truth, math.inf))
    assert lone_s(cut, truth, 0.0) == pytest.approx(lone_s(cut, truth, math.inf) + rtt_s)


def test_a_server_sees_all_but_the_first_packet_arrive() -> None:
    truth = Conditions(1e6, 1e6, rtt_s=0.1)
    for size_bytes, seen_s in ((100, 0.0), (11 * PACKET_BYTES, 8e-6 * 10 * PACKET_BYTES)):
        way_s = TcpConnection().carry_s("up", size_bytes, truth, 0.0)
        assert after_first_s(way_s, size_bytes, 1e6, 0.1) == pytest.approx(seen_s)
