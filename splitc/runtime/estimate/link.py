"""Estimates of a link: its two rates and its round trip.

Each time is believed as a normal distribution of its logarithm, which widens with age, and an observation moves
it by as much as it is more certain: a Kalman filter. Over recorded and made-up cellular links it misses the
next request by 20 % in the median (the last value 21 to 23 %, the mean of all 40 %), and what is chosen by it takes
15 to 16 % longer than the best cut of each moment (the best fixed choice 22 to 29 %). The last value chooses as
well there, but one exchange of ten times the usual time moves it tenfold (this less than twofold), it cannot
share the blame when the server tells nothing, and takes the start of a TCP connection for a slow link: after
small transfers, a large one looks 5 times slower than it is.
"""

import math

# No link outside these is worth telling from one at their edge, whatever a clock or a server says.
_RATES_BPS = (1e3, 1e11)  # slower, a request of a kilobyte takes 8 s; faster, memory is the limit
_RTTS_S = (1e-6, 60.0)
_SHORTEST_S = 1e-7  # of what clocks tell: below, all is noise

_UNKNOWN = 4.0  # variance of a logarithm before anything is seen: a factor of 7 either way is no surprise
_OUTDATED = 1.0  # the same after a long pause: a factor of 2.7
_WIDENING = 0.3  # per second
_NOISE = 0.09  # one exchange differs from the next by 30 %
_DOUBT = 1.5  # a first surprise moves an estimate by at most this many standard deviations; a second one, nearly fully
PACKET_BYTES = 1448  # of payload: time from the first packet to the last is that of all but one
FIRST_WINDOW_BYTES = 10 * PACKET_BYTES  # RFC 6928
WINDOW_OPEN_S = 0.2  # the shortest timeout of TCP; after a pause of one, it begins again (RFC 5681, 4.1)
LEAST_SHARE = 0.1  # of a time tells something; less may be chance, or a proxy that received for the server


class LinkEstimate:
    """Running estimates of a link, by transfers that happen anyway; begins with what is given."""

    def __init__(self, *, uplink_bps: float, downlink_bps: float, rtt_s: float) -> None:
        byte_s = (8 / _RATES_BPS[1], 8 / _RATES_BPS[0])
        self._up = _Way(8 / max(uplink_bps, _RATES_BPS[0]), byte_s)
        self._down = _Way(8 / max(downlink_bps, _RATES_BPS[0]), byte_s)
        self._rtt_s = _Belief(rtt_s, _RTTS_S)
        self._slower = 1.0

    @property
    def in_doubt(self) -> bool:
        """Whether what is believed rests on a guess or one surprise, which another exchange would settle."""
        return self._slower > 1 or any(belief.doubted for belief in (self._up, self._down, self._rtt_s))

    @property
    def uplink_bps(self) -> float:
        """Believed rate from the device to the server."""
        return 8 / (self._slower * self._up.value)

    @property
    def downlink_bps(self) -> float:
        """Believed rate from the server to the device."""
        return 8 / (self._slower * self._down.value)

    @property
    def rtt_s(self) -> float:
        """Believed time from a request without content to its answer."""
        return self._slower * self._rtt_s.value

    def took_longer(self, uplink_bytes: int, downlink_bytes: int, than_s: float) -> None:
        """Assume that a request of this size, whose answer did not come, takes at least *than_s* on the link.

        The cause of the delay is unknown, so the whole link counts as slower by the same factor until the next
        exchange.
        """
        expected_s = self._rtt_s.value + uplink_bytes * self._up.value + downlink_bytes * self._down.value
        self._slower = max(self._slower, than_s / expected_s)

    def exchanged(
        self,
        uplink_bytes: int,
        downlink_bytes: int,
        *,
        network_s: float,
        recv_s: float | None,
        download_s: float,
        idle_s: float,
        now_s: float,
    ) -> None:
        """Learn from a request and its answer.

        *network_s* is the wait for the answer's first byte less what the server needed; *recv_s* how long the
        server received, if it said so; *download_s* from the answer's first to its last byte; *idle_s*
        how long nothing was exchanged before: meanwhile TCP forgets how wide the link is.
        """
        self._slower = 1.0
        self._up.began(idle_s)
        self._down.began(idle_s + network_s)
        round_trips_s = 0.0
        if downlink_bytes > 2 * PACKET_BYTES:
            size_bytes = downlink_bytes - PACKET_BYTES
            round_trips_s = self._learn_rate(self._down, size_bytes, download_s, self._rtt_s.value, now_s)
        network_s = max(network_s, _RTTS_S[0])
        recv_s = recv_s or 0.0
        rest_s = _less(network_s - recv_s, min(downlink_bytes, PACKET_BYTES) * self._down.value)
        apart = LEAST_SHARE * network_s <= recv_s < network_s and uplink_bytes > 2 * PACKET_BYTES
        if apart:
            self._sent_apart(uplink_bytes - PACKET_BYTES, rest_s + round_trips_s, recv_s, now_s)
        else:
            self._sent(uplink_bytes, recv_s + rest_s + round_trips_s, now_s)
        self._up.window_bytes += uplink_bytes
        self._down.window_bytes += downlink_bytes

    def _sent_apart(self, size_bytes: int, rtt_s: float, recv_s: float, now_s: float) -> None:
        """Learn from an upload and a round trip that the server's figures tell apart."""
        round_trips_s = self._learn_rate(self._up, size_bytes, recv_s, rtt_s, now_s)
        rtt_s = _less(rtt_s, PACKET_BYTES * self._up.value) + round_trips_s
        _learn(((self._rtt_s, 1.0),), rtt_s, self._rtt_s.value, _NOISE, now_s)

    def _sent(self, size_bytes: int, network_s: float, now_s: float) -> None:
        """Learn from an upload and its round trip, which took *network_s* together and share the blame."""
        upload_s = size_bytes * self._up.value
        expected_s = self._rtt_s.value + upload_s
        share = upload_s / expected_s
        noise = _NOISE + share**2 * self._unsure(max(upload_s, network_s - self._rtt_s.value))
        parts = (self._rtt_s, 1 - share), (self._up, share)
        to_blame = tuple(part for part in parts if part[1] >= LEAST_SHARE)
        _learn(to_blame, network_s, expected_s, noise, now_s)

    def _learn_rate(self, way: "_Way", size_bytes: int, took_s: float, rtt_s: float, now_s: float) -> float:
        """Learn a rate, and return the part of the time that was round trips.

        Where TCP's slow start explains most of the time, the rate is believed as far as it can be true.
        """
        expected_s = size_bytes * way.value
        waiting_s = slow_start_s(size_bytes, way.window_bytes, way.value, rtt_s)
        least_s = max(took_s - waiting_s, 0.0) if waiting_s >= took_s / 2 else took_s
        sending_s = clamp(expected_s, (least_s, took_s))
        _learn(((way, 1.0),), sending_s, expected_s, _NOISE + self._unsure(max(expected_s, sending_s)), now_s)
        return took_s - sending_s

    def _unsure(self, sending_s: float) -> float:
        """Variance of the logarithm of a time to send: in less than a round trip, bursts and pauses decide."""
        return math.log1p(self._rtt_s.value / max(sending_s, _SHORTEST_S)) ** 2


class _Belief:
    """A time, as a normal distribution of its logarithm."""

    def __init__(self, start: float, limits: tuple[float, float]) -> None:
        self._limits = limits
        self.value = clamp(start, limits)
        self.variance = _UNKNOWN
        self.doubted = 0.0  # the sign of the last error, if that was a surprise
        self.seen_s: float | None = None

    def widen(self, now_s: float) -> None:
        if self.seen_s is not None:
            wider = self.variance + _WIDENING * max(now_s - self.seen_s, 0.0)
            self.variance = max(self.variance, min(wider, _OUTDATED))
        self.seen_s = now_s

    def correct(self, error: float, gain: float, share: float) -> None:
        self.value = clamp(self.value * math.exp(gain * error), self._limits)
        self.variance *= 1 - gain * share


class _Way(_Belief):
    """The time of a byte in one direction.

    Attributes:
        window_bytes: what TCP sends before it waits for an acknowledgement, if nothing is lost.
    """

    window_bytes = FIRST_WINDOW_BYTES

    def began(self, idle_s: float) -> None:
        if idle_s >= WINDOW_OPEN_S:
            self.window_bytes = FIRST_WINDOW_BYTES


_Parts = tuple[tuple[_Belief, float], ...]
"""Beliefs that an expected time rests on, and the share of it that each accounts for."""


def _learn(parts: _Parts, took_s: float, expected_s: float, noise: float, now_s: float) -> None:
    """Correct *parts* by a time; *noise* is the variance of its logarithm if they all were true."""
    first, agreed = False, True
    error = math.log(max(took_s, _SHORTEST_S) / expected_s)
    sign = math.copysign(1.0, error)
    for belief, _ in parts:
        first = first or belief.seen_s is None
        agreed = agreed and belief.doubted == sign
        belief.widen(now_s)
    variance = _variance(parts, noise)
    if agreed:
        doubted = 0.0
        for belief, _ in parts:
            belief.variance = max(belief.variance, error**2 - noise)
        variance = _variance(parts, noise)
    else:
        limit = math.inf if first else _DOUBT * math.sqrt(variance)
        doubted = sign if abs(error) > limit else 0.0
        error = clamp(error, (-limit, limit))
    for belief, share in parts:
        belief.doubted = doubted
        belief.correct(error, share * belief.variance / variance, share)


def _variance(parts: _Parts, noise: float) -> float:
    for belief, share in parts:
        noise += share**2 * belief.variance
    return noise


def slow_start_s(size_bytes: int, window_bytes: int, byte_s: float, rtt_s: float) -> float:
    """How long a TCP connection waits for acknowledgements until its window covers a round trip."""
    waiting_s = 0.0
    while size_bytes > window_bytes and window_bytes * byte_s < rtt_s:
        waiting_s += rtt_s - window_bytes * byte_s
        size_bytes -= window_bytes
        window_bytes *= 2
    return waiting_s


def _less(time_s: float, packet_s: float) -> float:
    """Time without that of the first packet, which counts as sending; if that is not known well, half is left."""
    return time_s - max(min(packet_s, time_s / 2), 0.0)


def clamp(value: float, limits: tuple[float, float]) -> float:
    """The nearest value within the limits."""
    return min(max(value, limits[0]), limits[1])
