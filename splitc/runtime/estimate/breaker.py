"""When to leave a failing server alone, and when to look at it again (a circuit breaker).

Closed, offloading is tried. Open, it is not, until the time comes for one probe; then it is half-open: the
probe's success closes it, its failure opens it again for twice as long. Pure: times are arguments, in
seconds of a monotonic clock, and the caller locks.
"""

import random

_FAILURES = 2  # in a row; one alone may be a lost packet
_SHORTEST_S = 1.0
_LONGEST_S = 60.0  # also how long a probe may stay unanswered before the next one
_JITTER = (
    0.5,
    1.0,
)  # of a wait: devices that lost their server together must not all return at the same time


class Breaker:
    """One server as seen by one device; with the same *seed* it waits the same times."""

    def __init__(self, *, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - spreads load, keeps no secret
        self._failures = 0
        self._wait_s = 0.0
        self._open_until_s: float | None = None  # None: closed
        self._probing = False

    def allows(self, now_s: float) -> bool:  # noqa: ARG002 - time alone never closes it: a probe must succeed
        """Whether offloading may be tried: the breaker is closed."""
        return self._open_until_s is None

    def probe_due(self, now_s: float) -> bool:
        """Whether the caller shall send a probe and report how it went; others then get False."""
        if self._open_until_s is None or now_s < self._open_until_s:
            return False
        self._probing = True
        self._open_until_s = now_s + _LONGEST_S  # if the prober never reports, another will
        return True

    def succeeded(self, now_s: float) -> None:  # noqa: ARG002 - told as `failed` is
        """The server answered: close."""
        self._failures, self._wait_s = 0, 0.0
        self._open_until_s, self._probing = None, False

    def failed(self, now_s: float) -> None:
        """The server did not answer: open after two in a row, after one while half-open.

        While open, such failures belong to earlier requests, and change nothing.
        """
        if self._open_until_s is not None and not self._probing:
            return
        self._failures += 1
        if self._probing or self._failures >= _FAILURES:
            self._open(now_s, min(max(2 * self._wait_s, _SHORTEST_S), _LONGEST_S))

    def refuse(self, now_s: float) -> None:
        """Open for the longest time at once: the server will go on refusing until a person acts."""
        self._open(now_s, _LONGEST_S)

    def _open(self, now_s: float, wait_s: float) -> None:
        self._failures, self._probing = 0, False
        self._wait_s = wait_s
        self._open_until_s = now_s + wait_s * self._random.uniform(*_JITTER)
