"""The price of a second of computing on this server, from the load that clients ask for."""

import time
from collections.abc import Callable, Sequence
from statistics import median

from splitc.bundle.price import PRICE, Price
from splitc.server.tails.part import ServedPart

_LEAST_INTERVAL_S = 1.0
# The fewest requests in an interval; with fewer, its load would be too random.
_REQUESTS = 4


class Meter:
    """Adds up the work that requests for *parts* would take, and publishes the price of it.

    A request counts with its share of the best batch, because this is its cost on a busy machine.

    Args:
        utilisation: the share of its time that the compute thread shall be busy.
        clock: monotonic seconds.
    """

    def __init__(
        self, parts: Sequence[ServedPart], utilisation: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        usual_s = median(part.work_s for part in parts) if parts else 0.0
        interval_s = max(_LEAST_INTERVAL_S, _REQUESTS * usual_s / utilisation)
        self._price = Price(capacity=utilisation, interval_s=interval_s)
        self._clock = clock

    def asked(self, work_s: float) -> None:
        """A request that takes *work_s* seconds of computing came, whether it finds a place or not."""
        self._price.arrived(work_s, self._clock())

    def price(self) -> float:
        """Seconds of latency that a second of computing is worth now."""
        return self._price.now(self._clock())

    def header(self) -> tuple[str, str]:
        """The header that tells clients the price."""
        return PRICE, f"{self.price():.6f}"
