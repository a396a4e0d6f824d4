"""Compute the price of one second of cloud time, which the cloud publishes to keep its load within its capacity.

Many devices share one cloud. Suppose that each device minimises latency + price x cloud time, and that the price
makes the total demand equal to the capacity of the cloud. Then the sum of all latencies is the smallest that this
cloud allows (Kelly, Maulloo, Tan, "Rate control for communication networks", J. Oper. Res. Soc. 49, 1998). The
cloud finds this price without any knowledge of its devices, by gradient ascent on the dual problem: the price rises
while the demand exceeds the capacity, falls while it is below, and is never negative (Low, Lapsley, "Optimization
flow control I", IEEE/ACM Trans. Networking 7(6), 1999, equation 12).

Three things differ from the textbook:

- A suitable price depends on model and network: it may be 0.1 for one and 1000 for another. So the step changes the
  logarithm of the price, in proportion to the load relative to the capacity. Below 0.3 the step changes the price
  almost linearly, as in the textbook, because the logarithm has no lower bound.
- The gain adapts itself, as in Rprop (Riedmiller, Braun, 1993). It is halved when the error changes its sign, and it
  grows when the error has kept its sign for more than twice as long as before the last change. Devices receive a
  price only with their next answer; this delay causes oscillations of equal length, in which the gain only shrinks
  until they stop. A surge lasts longer, so the gain grows. The sign is taken from a mean of the last errors, because
  single errors are random.
- A device has few cuts, so its demand changes in steps, and identical devices would all switch back and forth at the
  same time. So each request uses its own random multiple of the price; see `personal`.

The price does not include the time in the queue, because devices already count that as latency. Queues become empty
while the price is constant, because the capacity is set below what the machines can do.
"""

import math

_FIRST_GAIN, _LEAST_GAIN, _MOST_GAIN = 0.1, 0.02, 0.4
_LONGER, _SHORTER = 1.25, 0.5
_SWINGS = 2  # a phase longer than this many times the last one is not an oscillation
_NEWEST = 0.3  # weight of the newest error in the mean
_MOST_ERROR = 1.0  # the load is twice the capacity or more; the error of an idle cloud is -1
_SMALL = 0.3
# If devices cannot run without the cloud, no price reduces the load, and a very high price takes long to fall again.
HIGHEST_PRICE = 1e4
_WIDTH = 2.0  # the highest personal price over the lowest


class Price:
    """The price of one cloud with all its machines.

    The class reads no clock and uses no lock: times are arguments, in seconds of a monotonic clock, and the caller
    must lock.

    Args:
        capacity: seconds of work accepted per second: the number of parallel workers times the share of time that
            each one should be busy. A share of 1 or more lets queues grow without limit; 0.8 to 0.9 is usual.
        interval_s: seconds between changes of the price; choose it so that several requests arrive in this time.
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
        """Record a request that takes *work_s* of one machine's time, whether it was accepted or refused.

        For requests that may run as one batch, *work_s* is the request's share of the best batch: with the time of
        a single run, a cloud would look full before it began to form batches.
        """
        self._catch_up(now_s)
        self._work_s += work_s

    def now(self, now_s: float) -> float:
        """Return the current price of one second of work, in seconds of latency; zero while capacity is free."""
        self._catch_up(now_s)
        return _SMALL * math.expm1(self._level)

    def _catch_up(self, now_s: float) -> None:
        """Update the price for each interval that has ended."""
        if self._began_s is None:
            self._began_s = now_s
        while now_s - self._began_s >= self._interval_s:
            self._update(self._work_s / (self._interval_s * self._capacity) - 1)
            self._work_s = 0.0
            self._began_s += self._interval_s
            if not self._level:  # at price zero, further empty intervals change nothing
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
    """Return the price that one request uses: the cloud's price times a factor between 0.71 and 1.41.

    As the price rises, identical devices then leave the cloud one after the other, not all at once.

    Args:
        share: a random number from 0 to 1, new for each request, so that no device always has a higher price.
    """
    return price * math.pow(_WIDTH, share - 0.5)


PRICE = "splitc-price"
"""The response header with the price of one second of server time, in seconds of latency."""
