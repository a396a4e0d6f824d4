"""The device's estimates of itself, the link and the server, from its ordinary requests."""

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import median

from splitc.bundle.decide import Conditions
from splitc.runtime.estimate.link import LEAST_SHARE, LinkEstimate, clamp

_SLOWDOWNS = (0.01, 100.0)  # more is not worth telling from its edge: no such side would be chosen
_LONGEST_QUEUE_S = 60.0

_RUNS = 5  # the median of five follows a change after three
_CALL_S = 1e-4  # what a call costs however small the part: no sign of a slow machine
_RECOVERY_S = 60.0  # in which half of a slowdown is gone: phones cool down, neighbours leave
_QUEUE_HALF_LIFE_S = 2.0


@dataclass(frozen=True, slots=True)
class ObservedExchange:
    """One request and its answer as the device saw them.

    Attributes:
        wait_s: from the first byte sent to the first byte of the answer.
        download_s: from the first to the last byte of the answer.
        recv_s, queue_s, compute_s: what the server said; None if it did not.
        cloud_s: the manifest's time of what ran in the cloud; None for a probe.
        price: what the cloud asked for a second of it, in seconds of latency; None if it did not say.
    """

    uplink_bytes: int
    downlink_bytes: int
    wait_s: float
    download_s: float
    recv_s: float | None
    queue_s: float | None
    compute_s: float | None
    cloud_s: float | None
    price: float | None = None


class Estimator:
    """Running estimates; *start* is what is believed before anything is seen.

    Pure: times are arguments, in seconds of a monotonic clock, and the caller locks.
    """

    def __init__(self, start: Conditions) -> None:
        self._device, self._cloud = _Slowdown(start.device_slowdown), _Slowdown(start.cloud_slowdown)
        self._link = LinkEstimate(
            uplink_bps=start.uplink_bps, downlink_bps=start.downlink_bps, rtt_s=start.rtt_s
        )
        self._queue = _Queue(start.queue_s)
        self._price = start.price
        self._exchanged_s: float | None = None
        self._now_s: float | None = None

    def device_ran(self, expected_s: float, took_s: float) -> None:
        """Learn from a run on the device, right after the decision for it."""
        self._device.ran(expected_s, took_s, self._now_s)

    def exchanged(self, exchange: ObservedExchange, now_s: float) -> None:
        """Learn from an answered request or probe; what the server said is used where it is possible."""
        self._now_s = now_s
        self._price = exchange.price or 0.0
        told = _possible(exchange)
        if told.queue_s is not None:
            self._queue.seen(told.queue_s, now_s)
        if told.compute_s is not None and told.cloud_s is not None:
            self._cloud.ran(told.cloud_s, told.compute_s, now_s)
        self._link.exchanged(
            told.uplink_bytes,
            told.downlink_bytes,
            network_s=told.wait_s - self._server_s(told, now_s),
            recv_s=told.recv_s,
            download_s=told.download_s,
            idle_s=self.link_age_s(now_s) - told.wait_s - told.download_s,
            now_s=now_s,
        )
        self._exchanged_s = now_s

    def took_longer(
        self, uplink_bytes: int, downlink_bytes: int, cloud_s: float, than_s: float, now_s: float
    ) -> None:
        """Learn that no answer came in *than_s* to a request whose cloud part takes *cloud_s* in the manifest.

        Time that the server does not explain counts as the link's, until the next exchange.
        """
        self._now_s = now_s
        server_s = self._queue.now(now_s) + self._cloud.now(now_s) * cloud_s
        self._link.took_longer(uplink_bytes, downlink_bytes, than_s - server_s)

    def refused(self, retry_after_s: float, price: float | None, now_s: float) -> None:
        """The server is overloaded: its queue is at least that long until then."""
        self._price = price or 0.0
        self._queue.refused(retry_after_s, now_s)

    def conditions(self, now_s: float) -> Conditions:
        """The current estimates."""
        self._now_s = now_s
        return Conditions(
            uplink_bps=self._link.uplink_bps,
            downlink_bps=self._link.downlink_bps,
            rtt_s=self._link.rtt_s,
            queue_s=self._queue.now(now_s),
            device_slowdown=self._device.now(now_s),
            cloud_slowdown=self._cloud.now(now_s),
            price=self._price,
        )

    @property
    def link_in_doubt(self) -> bool:
        """Whether another exchange would settle what is believed of the link; see `LinkEstimate.in_doubt`."""
        return self._link.in_doubt

    def link_age_s(self, now_s: float) -> float:
        """Seconds since anything was seen of the link; infinite if nothing ever was."""
        return math.inf if self._exchanged_s is None else max(now_s - self._exchanged_s, 0.0)

    def _server_s(self, told: ObservedExchange, now_s: float) -> float:
        """How long the request was in the server: what it said, and what is believed of the rest."""
        said_s = (told.queue_s or 0.0) + (told.compute_s or 0.0)
        if told.cloud_s is None:
            return said_s
        believed_s = self._queue.now(now_s) if told.queue_s is None else 0.0
        believed_s += self._cloud.now(now_s) * told.cloud_s if told.compute_s is None else 0.0
        return said_s + min(believed_s, (1 - LEAST_SHARE) * (told.wait_s - said_s))


class _Slowdown:
    """Real over recorded time of one side: the median of its last runs, so that one never moves it.

    A side that looks slow is avoided, so that it is not seen to recover: with time, it is believed to be
    as fast again as it was at its best.
    """

    def __init__(self, start: float) -> None:
        start = clamp(start, _SLOWDOWNS)
        self._ratios = deque([start, start], maxlen=_RUNS)
        self._median = start
        self._best = math.inf
        self._seen_s: float | None = None

    def ran(self, expected_s: float, took_s: float, now_s: float | None) -> None:
        if not (expected_s > 0 and 0 <= took_s < math.inf):
            return
        least = max(took_s - _CALL_S, 0.0) / expected_s
        self._ratios.append(clamp(clamp(self._median, (least, took_s / expected_s)), _SLOWDOWNS))
        self._median = median(self._ratios)
        self._seen_s = now_s
        if len(self._ratios) == _RUNS:
            self._best = min(self._best, self._median)

    def now(self, now_s: float) -> float:
        if self._median <= self._best or self._seen_s is None:
            return self._median
        left = math.exp2(-max(now_s - self._seen_s, 0.0) / _RECOVERY_S)
        return self._best * math.pow(self._median / self._best, left)


class _Queue:
    """Time to wait in the cloud: what was seen fades, since an idle server's queue empties."""

    def __init__(self, start_s: float) -> None:
        self._queue_s = start_s
        self._seen_s: float | None = None
        self._refused_s = self._refused_until_s = -math.inf

    def seen(self, queue_s: float, now_s: float) -> None:
        self._queue_s = queue_s if self._seen_s is None else (self._queue_s + queue_s) / 2
        self._seen_s = now_s

    def refused(self, retry_after_s: float, now_s: float) -> None:
        self._refused_s = clamp(retry_after_s, (0.0, _LONGEST_QUEUE_S))
        self._refused_until_s = now_s + self._refused_s

    def now(self, now_s: float) -> float:
        age_s = 0.0 if self._seen_s is None else max(now_s - self._seen_s, 0.0)
        fading_s = self._queue_s * math.exp2(-age_s / _QUEUE_HALF_LIFE_S)
        return max(fading_s, self._refused_s) if now_s < self._refused_until_s else fading_s


def _possible(exchange: ObservedExchange) -> ObservedExchange:
    """The exchange without what the server cannot have measured truly: it was no longer at work than we waited."""
    told = [exchange.recv_s, exchange.queue_s, exchange.compute_s]
    known = [value for value in told if value is not None]
    if all(value >= 0 for value in known) and math.fsum(known) <= exchange.wait_s:
        return exchange
    return replace(exchange, recv_s=None, queue_s=None, compute_s=None)
