"""What a second of the cloud costs: one number that the cloud publishes, and that makes its devices fit into it.

Many devices share one cloud. If each minimises latency + price x cloud time for itself, and the price is that at
which what they ask for is what the cloud can do, then together they have the least sum of latencies that this
cloud can give (Kelly, Maulloo, Tan, "Rate control for communication networks", J. Oper. Res. Soc. 49, 1998). The
cloud finds that price without knowing anything of its devices, by gradient ascent on the dual problem: up
while more is asked for than fits, down while less is, never below zero (Low, Lapsley, "Optimization flow control I",
IEEE/ACM Trans. Networking 7(6), 1999, equation 12).

Three things differ from the textbook:

- What is a high price depends on model and network: 0.1 in one place, 1000 in another. So it is the logarithm of the
  price that goes up and down, by the load relative to the capacity; below 0.3, where logarithms have no end, it is
  nearly the price itself, as in the textbook.
- The gain finds itself, as in Rprop (Riedmiller, Braun, 1993): it is halved when the error changes its sign, and
  grows once the error has kept its sign for more than twice as long as the time before. What comes late (devices
  hear of a price with their next answer) makes swings that last equally long: there it only shrinks, until they
  are gone; a surge lasts longer. The sign is that of a mean of the last errors, since chance has one, too.
- A device has few cuts, so its demand is a step; devices that are alike would all switch at once, back and forth,
  whatever the cloud does. So each request counts with its own, random multiple of the price: see `personal`.

Time in the queue is no part of it: devices count that as latency anyway, and as the capacity is below what machines
can do, queues drain while the price rests.
"""

import math

_FIRST_GAIN, _LEAST_GAIN, _MOST_GAIN = 0.1, 0.02, 0.4
_LONGER, _SHORTER = 1.25, 0.5
_SWINGS = 2  # so many times as long as the last swing is no swing any more
_NEWEST = 0.3  # of the mean of errors
_MOST_ERROR = 1.0  # load at twice the capacity or more; an idle cloud is at -1
_SMALL = 0.3
# Where devices cannot do without the cloud, no price helps, and from too high a one it would take long to come down.
HIGHEST_PRICE = 1e4
_WIDTH = 2.0  # the highest personal price over the lowest


class Price:
    """The price of one cloud, all its machines together.

    Pure: times are arguments, in seconds of a monotonic clock, and the caller locks.

    Args:
        capacity: seconds of work that may come per second: what computes at once, times the share of time that it shall
            be busy. Below 1 each, or queues grow without end; 0.8 to 0.9 is usual.
        interval_s: how often the price changes; some requests should come in it.
    """

    def __init__(self, *, capacity: float, interval_s: float = 1.0) -> None:
        if not (capacity > 0 and interval_s > 0):
            raise ValueError(f"capacity and interval must be above zero, not {capacity:g} and {interval_s:g}")
        self._capacity, self._interval_s = capacity, interval_s
        self._level = 0.0  # log(1 + price / _SMALL)
        self._gain, self._trend = _FIRST_GAIN, 0.0
        self._swing = self._since = 0
        self._work_s = 0.0
        self._began_s: float | None = None

    def arrived(self, work_s: float, now_s: float) -> None:
        """A request was made that takes *work_s* of one machine's time; whether it found a place does not matter.

        Of requests that may run as one, that is the share of the best batch: counted by single runs, a cloud
        would look full before it began to join them.
        """
        self._catch_up(now_s)
        self._work_s += work_s

    def now(self, now_s: float) -> float:
        """Seconds of latency that a second of work is worth now; zero while there is room for all."""
        self._catch_up(now_s)
        return _SMALL * math.expm1(self._level)

    def _catch_up(self, now_s: float) -> None:
        """End the intervals that are over."""
        if self._began_s is None:
            self._began_s = now_s
        while now_s - self._began_s >= self._interval_s:
            self._update(self._work_s / (self._interval_s * self._capacity) - 1)
            self._work_s = 0.0
            self._began_s += self._interval_s
            if not self._level:  # the others would change nothing
                self._began_s += (now_s - self._began_s) // self._interval_s * self._interval_s

    def _update(self, error: float) -> None:
        error = min(error, _MOST_ERROR)
        trend = self._trend + _NEWEST * (error - self._trend)
        if trend * self._trend < 0:
            self._gain = max(self._gain * _SHORTER, _LEAST_GAIN)
            self._swing, self._since = self._since, 0
        elif self._since > _SWINGS * self._swing:
            self._gain = min(self._gain * _LONGER, _MOST_GAIN)
        self._since += 1
        self._trend = trend
        self._level = min(max(self._level + self._gain * error, 0.0), math.log1p(HIGHEST_PRICE / _SMALL))
        if not self._level and self._since > _SWINGS * self._swing:
            self._gain, self._trend, self._swing, self._since = _FIRST_GAIN, 0.0, 0, 0


def personal(price: float, share: float) -> float:
    """The price that one request counts with: a multiple between 0.71 and 1.41 of the cloud's.

    Of devices that are alike, a growing part then leaves the cloud as its price grows, instead of all at once.

    Args:
        share: from 0 to 1; random, drawn anew for each request, so that no device always pays more.
    """
    return price * math.pow(_WIDTH, share - 0.5)


PRICE = "splitc-price"
"""The header with which a server says what a second of it costs, in seconds of latency; see `splitc.bundle.price`."""
