"""What a device expects of its server, and whether to leave it alone: one rule for those who run and those who simulate.

Pure: times are arguments, in seconds of a monotonic clock, and the caller locks.
"""

import math

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator, ObservedExchange
from splitc.runtime.estimate.patience import UNSTEADY_S
from splitc.runtime.estimate.probing import is_due


class ServerState:
    """One server as one process of a device sees it, from *now_s* on.

    Attributes:
        is_probing: whether a probe is under way.
    """

    def __init__(self, estimator: Estimator, breaker: Breaker, now_s: float) -> None:
        self._estimator = estimator
        self._breaker = breaker
        self._left: set[object] = set()
        self.is_probing = self._probe_closes = False
        self._answered_s = now_s
        self._unsteady_until_s = -math.inf

    def inherited(self, now_s: float) -> "ServerState":
        """The same for a forked process: what was learned, without what is under way."""
        return ServerState(self._estimator, self._breaker, now_s)

    # --- what it expects ---

    def conditions(self, now_s: float) -> Conditions:
        """What to expect if something is sent."""
        return self._estimator.conditions(now_s)

    def is_usable(self, now_s: float) -> bool:
        """Whether something should be sent: where one answer is late, the next would be late, too."""
        return not self._left and self._breaker.allows(now_s)

    def is_steady(self, now_s: float) -> bool:
        """Whether all recent answers came in time."""
        return now_s >= self._unsteady_until_s

    # --- what it learns ---

    def device_ran(self, expected_s: float, took_s: float) -> None:
        """The device ran something, without waiting for its turn."""
        self._estimator.device_ran(expected_s, took_s)

    def answered(self, exchange: ObservedExchange, now_s: float) -> None:
        """A request was answered."""
        self._estimator.exchanged(exchange, now_s)
        self._breaker.succeeded(now_s)
        self._answered_s = now_s

    def was_late(self, now_s: float) -> None:
        """An answer did not come in time."""
        self._unsteady_until_s = now_s + UNSTEADY_S

    def leave_behind(self, exchange: object) -> None:
        """The caller stops waiting for *exchange*; it continues, because its end tells about the link."""
        self._left.add(exchange)

    def ended(self, exchange: object) -> None:
        """*exchange* is over, left behind or not."""
        self._left.discard(exchange)

    def refused(self, retry_after_s: float, price: float | None, now_s: float) -> None:
        """The server is well, but has no place before *retry_after_s*."""
        self._estimator.refused(retry_after_s, price, now_s)

    def refused_for_good(self, now_s: float) -> None:
        """The server will go on refusing until a person acts."""
        self._breaker.refuse(now_s)

    def failed(self, now_s: float) -> None:
        """The server could not be reached."""
        self._breaker.failed(now_s)
        self.was_late(now_s)

    def heard_nothing(self, cut: CutEntry, waited_s: float, now_s: float) -> bool:
        """A request for *cut* was given up after *waited_s*, and has `failed`; whether to send a probe at once.

        It will hang until the link is back, so that this is known at once.
        """
        self._estimator.took_longer(cut.uplink_bytes, cut.downlink_bytes, cut.cloud_s, waited_s, now_s)
        if self.is_probing or not (self._estimator.link_in_doubt and self._breaker.allows(now_s)):
            return False
        self.is_probing, self._probe_closes = True, False
        return True

    # --- probes ---

    def looks(self, now_s: float, *, idle: bool) -> bool:
        """Whether to send a probe now; *idle*: nothing is about to be sent that would tell as much."""
        if self.is_probing:
            return False
        self._probe_closes = not self._breaker.allows(now_s)
        if self._probe_closes:
            self.is_probing = self._breaker.probe_due(now_s)
        else:
            age_s = self._estimator.link_age_s(now_s)
            self.is_probing = is_due(age_s=age_s, silent_s=now_s - self._answered_s, idle=idle)
        return self.is_probing

    def measured(self, exchange: ObservedExchange, now_s: float) -> bool:
        """A probe saw *exchange*; whether that was a surprise, which another one would settle."""
        self._estimator.exchanged(exchange, now_s)
        return self._estimator.link_in_doubt

    def probed(self, now_s: float, *, found: bool) -> None:
        """The probe is over; if the server was *found* and had been left alone, it no longer is.

        What came instead of the server is told apart: it `failed`, or has `refused_for_good`.
        """
        self.is_probing = False
        if found and self._probe_closes:
            self._breaker.succeeded(now_s)
