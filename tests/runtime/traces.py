"""Recorded and made-up links, and what exchanges over them take, for tests of what is learnt from them."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from splitc.runtime.estimate.estimator import ObservedExchange

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "traces"
PACKET_BYTES = 1500
WINDOW_BYTES = 14_600  # what TCP sends at once after a pause


class Way:
    """One direction of a link: how many bytes it could have carried by when; it starts again at its end."""

    def __init__(self, times_s: list[float], total_bytes: list[float]) -> None:
        self._times_s, self._total_bytes = times_s, total_bytes

    @property
    def mean_bps(self) -> float:
        return 8 * self._total_bytes[-1] / self._times_s[-1]

    def sending_s(self, start_s: float, size_bytes: float) -> float:
        """How long *size_bytes* take from *start_s* on."""
        at_s = start_s % self._times_s[-1]
        carried = _between(self._times_s, self._total_bytes, at_s)
        more, left = divmod(carried + size_bytes, self._total_bytes[-1])
        return (more * self._times_s[-1] - at_s) + _between(self._total_bytes, self._times_s, left)


@dataclass(frozen=True)
class Link:
    """Two ways and a round trip that varies by a third; with *slow_start*, as TCP after a pause."""

    up: Way
    down: Way
    rtt_s: float = 0.04
    slow_start: bool = False

    def exchange(
        self, start_s: float, up_bytes: int, down_bytes: int, *, cloud_s: float, told: bool, random: Random
    ) -> ObservedExchange:
        """A request of *up_bytes* from *start_s* on; without *told*, the server says nothing of its times."""
        rtt_s = self.rtt_s * random.uniform(0.9, 1.2)
        first_s, recv_s = self._take(self.up, start_s, up_bytes, rtt_s)
        wait_s = first_s + recv_s + rtt_s + cloud_s
        first_s, download_s = self._take(self.down, start_s + wait_s, down_bytes, rtt_s)
        return ObservedExchange(
            uplink_bytes=up_bytes,
            downlink_bytes=down_bytes,
            wait_s=wait_s + first_s,
            download_s=download_s,
            recv_s=recv_s if told else None,
            queue_s=0.0 if told else None,
            compute_s=cloud_s if told else None,
            cloud_s=cloud_s,
        )

    def _take(self, way: Way, start_s: float, size_bytes: int, rtt_s: float) -> tuple[float, float]:
        """Until the first packet is there, and from then to the last."""
        first_s = way.sending_s(start_s, min(size_bytes, PACKET_BYTES))
        all_s = way.sending_s(start_s, size_bytes)
        if self.slow_start:
            all_s += slow_start_s(size_bytes, all_s / size_bytes, rtt_s)
        return first_s, all_s - first_s


def slow_start_s(size_bytes: float, byte_s: float, rtt_s: float) -> float:
    """What waiting for acknowledgements adds: the window doubles with each round trip, until it covers one."""
    waiting_s, window_bytes = 0.0, WINDOW_BYTES
    while size_bytes > window_bytes:
        waiting_s += max(rtt_s - window_bytes * byte_s, 0.0)
        size_bytes -= window_bytes
        window_bytes *= 2
    return waiting_s


def recorded(name: str) -> Way:
    """In the mahimahi format, each line is the millisecond in which a packet could leave."""
    times_s, total_bytes = [0.0], [0.0]
    for line in (RECORDED / name).read_text(encoding="ascii").split():
        times_s.append(int(line) / 1000)
        total_bytes.append(total_bytes[-1] + PACKET_BYTES)
    return Way(times_s, total_bytes)


def made(rate_bps: Callable[[float], float], duration_s: float = 130.0, step_s: float = 0.1) -> Way:
    """A way whose rate is a function of the time in seconds, constant for each step."""
    times_s, total_bytes = [0.0], [0.0]
    for step in range(round(duration_s / step_s)):
        times_s.append((step + 1) * step_s)
        total_bytes.append(total_bytes[-1] + rate_bps(step * step_s) * step_s / 8)
    return Way(times_s, total_bytes)


def steady(rate_bps: float) -> Way:
    return made(lambda _: rate_bps, duration_s=1.0)


def wandering(seed: int, typical_bps: float) -> Way:
    """As a cellular link: a random walk that returns to its typical rate, with fades of up to 1.5 s."""
    random = Random(seed)
    level, fade_steps = 0.0, 0

    def rate_bps(_: float) -> float:
        nonlocal level, fade_steps
        level = 0.97 * level + random.gauss(0, 0.25)
        fade_steps = max(fade_steps - 1, 0) or (random.randrange(3, 15) if random.random() < 0.005 else 0)
        return typical_bps * math.exp(min(max(level, -2.3), 2.3)) * (0.05 if fade_steps else 1)

    return made(rate_bps)


def _between(known: list[float], values: list[float], at: float) -> float:
    """Linear interpolation; *known* never falls."""
    after = min(max(bisect_left(known, at), 1), len(known) - 1)
    span = known[after] - known[after - 1]
    share = (at - known[after - 1]) / span if span else 1.0
    return values[after - 1] + share * (values[after] - values[after - 1])
