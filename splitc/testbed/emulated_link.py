"""One direction of an emulated link: pure arithmetic, with time as an argument.

A packet waits in a queue, leaves it at the pace of the link, and arrives a fixed delay later:

    offered ─▶ waiting (bounded) ─pace─▶ under way ─delay─▶ arrived

Times are in seconds of any monotonic clock.
"""

import math
import random
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from splitc.testbed.spec import MTU_BYTES, LinkSpec, LinkTrace, Rate


class _Pace(Protocol):
    def departure_s(self, size_bytes: int, start_s: float) -> float:
        """The time at which a packet that may start at *start_s* has left; call it in the order of packets."""


class _Steady:
    def __init__(self, rate: Rate) -> None:
        self._bytes_per_s = rate.line_bps / 8

    def departure_s(self, size_bytes: int, start_s: float) -> float:
        return start_s + size_bytes / self._bytes_per_s


class _Recorded:
    """Each opportunity carries 1,500 bytes: several small packets, or parts of two.

    An opportunity is lost if no packet waits for it.
    """

    def __init__(self, trace: LinkTrace, begin_s: float) -> None:
        self._times_ms = trace.opportunities_ms
        self._length_s = trace.length_s
        self._begin_s = begin_s
        self._next = 0  # opportunity, counted on through all rounds of the trace
        self._now_s = -math.inf  # the opportunity that is being used, and what it can still carry
        self._left_bytes = 0

    def departure_s(self, size_bytes: int, start_s: float) -> float:
        if start_s > self._now_s:
            self._left_bytes = 0
            self._skip_to(start_s)
        while self._left_bytes < size_bytes:
            size_bytes -= self._left_bytes
            self._now_s = self._time_s(self._next)
            self._next += 1
            self._left_bytes = MTU_BYTES
        self._left_bytes -= size_bytes
        return self._now_s

    def _skip_to(self, start_s: float) -> None:
        if self._time_s(self._next) >= start_s:
            return
        passed_s = start_s - self._begin_s
        rounds = int(passed_s // self._length_s)
        within = bisect_left(self._times_ms, (passed_s - rounds * self._length_s) * 1000)
        self._next = max(self._next, rounds * len(self._times_ms) + within)
        while self._time_s(self._next) < start_s:  # a rounding error of the division
            self._next += 1

    def _time_s(self, number: int) -> float:
        rounds, within = divmod(number, len(self._times_ms))
        return self._begin_s + rounds * self._length_s + self._times_ms[within] / 1000


@dataclass(frozen=True, slots=True)
class PacketCounts:
    """What became of the packets of one direction.

    Attributes:
        dropped: found the queue full.
        lost: at random, or in a black hole.
        late_s: the longest delay with which a packet was handed over, because this machine was busy.
    """

    arrived: int
    dropped: int
    lost: int
    late_s: float


class LinkDirection:
    """One direction of a link."""

    def __init__(self, pace: Rate | LinkTrace, spec: LinkSpec, now_s: float) -> None:
        """*pace* is the one of *spec* for this direction; a trace begins at *now_s*."""
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._queued_bytes = 0
        self._free_s = -math.inf  # when the last packet left
        self._leaves_s: float | None = None  # when the first waiting packet leaves; None if not computed yet
        self._latest_s = -math.inf
        self._random = random.Random(0)  # noqa: S311 - the same packets are lost each time
        self._arrived = self._dropped = self._lost = 0
        self._late_s = 0.0
        self.black_hole = False
        self.change(pace, spec, now_s)

    def change(self, pace: Rate | LinkTrace, spec: LinkSpec, now_s: float) -> None:
        """Continue as another link; waiting packets wait for the new one, and packets under way arrive as before."""
        self._pace: _Pace = _Steady(pace) if isinstance(pace, Rate) else _Recorded(pace, now_s)
        self._delay_s = spec.rtt_s / 2
        self._limit_bytes = spec.queue_bytes
        self._loss = spec.loss
        self._leaves_s = None
        self._free_s = max(self._free_s, now_s)

    def offer(self, packet: bytes, size_bytes: int, now_s: float) -> None:
        """Take *packet*, whose IP part has *size_bytes*; drop it if the queue is full."""
        self._settle(now_s)
        if self._queued_bytes + size_bytes > self._limit_bytes:
            self._dropped += 1
            return
        self._waiting.append((now_s, size_bytes, packet))
        self._queued_bytes += size_bytes

    def arrivals(self, now_s: float) -> list[bytes]:
        """Return the packets that have arrived by *now_s*, in the order in which they were offered."""
        self._settle(now_s)
        found = []
        while self._under_way and self._under_way[0][0] <= now_s:
            due_s, packet = self._under_way.popleft()
            self._late_s = max(self._late_s, now_s - due_s)
            found.append(packet)
        self._arrived += len(found)
        return found

    def next_s(self) -> float:
        """The time to ask for arrivals again, unless a packet is offered earlier; inf if there are no packets."""
        if self._under_way:
            return self._under_way[0][0]
        return self._first_leaves_s() + self._delay_s if self._waiting else math.inf

    def counts(self) -> PacketCounts:
        """The counts of packets so far."""
        return PacketCounts(self._arrived, self._dropped, self._lost, self._late_s)

    def _settle(self, now_s: float) -> None:
        """Let the packets leave that are due by *now_s*."""
        while self._waiting and (leaves_s := self._first_leaves_s()) <= now_s:
            _, size_bytes, packet = self._waiting.popleft()
            self._queued_bytes -= size_bytes
            self._free_s, self._leaves_s = leaves_s, None
            if self.black_hole or (self._loss and self._random.random() < self._loss):
                self._lost += 1
                continue
            # After a change to a shorter delay, packets must not overtake.
            self._latest_s = max(self._latest_s, leaves_s + self._delay_s)
            self._under_way.append((self._latest_s, packet))

    def _first_leaves_s(self) -> float:
        if self._leaves_s is None:
            offered_s, size_bytes, _ = self._waiting[0]
            self._leaves_s = self._pace.departure_s(size_bytes, max(offered_s, self._free_s))
        return self._leaves_s
