"""A device's link as TCP uses it: connections are kept, and each opens its window while it sends."""

import math
from typing import Literal

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry
from splitc.runtime.estimate.link import FIRST_WINDOW_BYTES, PACKET_BYTES, WINDOW_OPEN_S, slow_start_s
from splitc.runtime.http.transport import MAX_IDLE, MAX_IDLE_S

Way = Literal["up", "down"]


class TcpConnection:
    """A kept connection: for each direction, the bytes that TCP sends before it waits for an acknowledgement."""

    def __init__(self) -> None:
        self.idle_since_s = 0.0
        self._window_bytes: dict[Way, int] = {}
        self._sent_s: dict[Way, float] = {"up": -math.inf, "down": -math.inf}

    def carry_s(self, way: Way, size_bytes: int, truth: Conditions, now_s: float) -> float:
        """Send that many bytes; return the seconds until all of them have arrived."""
        rate_bps = truth.uplink_bps if way == "up" else truth.downlink_bps
        if now_s - self._sent_s[way] >= WINDOW_OPEN_S:
            self._window_bytes[way] = FIRST_WINDOW_BYTES
        sending_s = sending_s_of(size_bytes, rate_bps, truth.rtt_s, self._window_bytes[way])
        self._window_bytes[way] += size_bytes
        self._sent_s[way] = now_s + sending_s
        return truth.rtt_s / 2 + sending_s


class TcpConnections:
    """The connections of one device to its cloud, kept as `splitc.runtime.http.transport` keeps them."""

    def __init__(self) -> None:
        self._idle: list[TcpConnection] = []

    def take(self, now_s: float) -> TcpConnection | None:
        """The connection that was used last, if one is free and still known to routers on the way."""
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > now_s - MAX_IDLE_S:
                return connection
        return None

    def keep(self, connection: TcpConnection, now_s: float) -> None:
        """*connection* has carried its answer."""
        connection.idle_since_s = now_s
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)

    def broke(self) -> None:
        """If one connection breaks, all do."""
        self._idle.clear()


def sending_s_of(size_bytes: int, rate_bps: float, rtt_s: float, window_bytes: int) -> float:
    """The time from the first byte sent to the last: at the link's rate, plus the waits while TCP opens its window."""
    return 8 * size_bytes / rate_bps + slow_start_s(size_bytes, window_bytes, 8 / rate_bps, rtt_s)


def lone_s(cut: CutEntry, truth: Conditions, rate_per_s: float) -> float:
    """The time that TCP adds to a request for *cut* of a device with that request rate: TCP begins slowly after each pause,
    and connections that were unused for long must be opened again.
    """
    if cut.cloud is None or not truth.uplink_bps:
        return 0.0
    ways = (cut.uplink_bytes, truth.uplink_bps), (cut.downlink_bytes, truth.downlink_bps)
    waiting_s = math.fsum(slow_start_s(size, FIRST_WINDOW_BYTES, 8 / bps, truth.rtt_s) for size, bps in ways)
    return waiting_s + truth.rtt_s * math.exp(-rate_per_s * MAX_IDLE_S)


def after_first_s(way_s: float, size_bytes: int, rate_bps: float, rtt_s: float) -> float:
    """The part of *way_s*, in which *size_bytes* arrive, between the first packet and the last byte."""
    return way_s - rtt_s / 2 - 8 * min(size_bytes, PACKET_BYTES) / rate_bps
