"""A device of a simulation: what it believes, and its processor, which does one thing after the other."""

import math
from dataclasses import replace

from splitc.bundle import CutEntry, Manifest
from splitc.decision import Conditions
from splitc.price import personal
from splitc.runtime.breaker import Breaker
from splitc.runtime.estimate import Estimator, Exchange, middle_of
from splitc.runtime.lateness import UNSTEADY_S
from splitc.runtime.probing import is_due
from splitc.simulate.events import Events
from splitc.simulate.line import Line
from splitc.simulate.processor import Processor


class Device:
    """One device; *learns*: only from what it sees, as a `splitc.Session` does.

    Attributes:
        line: its connections.
        processor: what it computes with.
    """

    def __init__(self, manifest: Manifest, events: Events, *, learns: bool, seed: int) -> None:
        self.manifest = manifest
        self.alone: CutEntry | None = next((cut for cut in manifest.cuts if cut.kind == "all-head"), None)
        self.learns = learns
        self.line = Line()
        self.processor = Processor(events)
        self._estimator = Estimator(middle_of(manifest.box)) if learns else None
        self._breaker = Breaker(seed=seed)
        self._left = 0  # exchanges that nobody waits for any more
        self._probing = self._probe_closes = False
        self._answered_s = 0.0
        self._unsteady_until_s = -math.inf

    # --- what it believes ---

    def believed(self, truth: Conditions, share: float, now_s: float) -> Conditions:
        """What it decides on; *truth* is what it would see if it looked. No link where the cloud is left alone."""
        if self._estimator is None:
            return replace(truth, price=personal(truth.price, share))
        found = self._estimator.conditions(now_s)
        found = replace(found, price=personal(found.price, share))
        return found if self.alone is None or self.is_usable(now_s) else replace(found, uplink_bps=0.0)

    def is_usable(self, now_s: float) -> bool:
        """Whether something should be sent: where one answer is late, the next would be late, too."""
        return not self._left and self._breaker.allows(now_s)

    def is_steady(self, now_s: float) -> bool:
        """Whether every answer came, and in time, lately."""
        return now_s >= self._unsteady_until_s

    def looks(self, now_s: float, *, idle: bool) -> bool:
        """Whether a probe is to be sent now; *idle*: nothing is about to be sent that would tell as much."""
        if self._estimator is None or self._probing:
            return False
        self._probe_closes = not self._breaker.allows(now_s)
        if self._probe_closes:
            self._probing = self._breaker.probe_due(now_s)
        else:
            age_s = self._estimator.link_age_s(now_s)
            self._probing = is_due(age_s=age_s, silent_s=now_s - self._answered_s, idle=idle)
        return self._probing

    # --- what it learns ---

    def ran(self, cut: CutEntry, took_s: float) -> None:
        """Its part of *cut* took so long, without waiting for its turn."""
        if self._estimator is not None:
            self._estimator.device_ran(cut.device_s, took_s)

    def saw(self, exchange: Exchange, now_s: float) -> None:
        """A request or probe was answered."""
        if self._estimator is not None:
            self._estimator.exchanged(exchange, now_s)

    def answered(self, exchange: Exchange, now_s: float) -> None:
        """A request was."""
        self.saw(exchange, now_s)
        self._answered_s = now_s
        self._breaker.succeeded(now_s)

    def refused(self, retry_after_s: float, price: float, now_s: float) -> None:
        """The cloud had no place."""
        if self._estimator is not None:
            self._estimator.refused(retry_after_s, price, now_s)

    def failed(self, now_s: float) -> None:
        """There was no answer."""
        self.line.broke()
        self._breaker.failed(now_s)

    def heard_nothing(self, cut: CutEntry, waited_s: float, now_s: float) -> bool:
        """An answer was waited for in vain; whether the link is to be probed at once."""
        self.failed(now_s)
        if self._estimator is None:
            return False
        sizes = cut.uplink_bytes, cut.downlink_bytes
        self._estimator.took_longer(*sizes, cut.cloud_s, waited_s, now_s)
        if self._probing or not (self._estimator.link_in_doubt and self._breaker.allows(now_s)):
            return False
        self._probing, self._probe_closes = True, False
        return True

    def was_late(self, now_s: float) -> None:
        """An answer did not come in time."""
        self._unsteady_until_s = now_s + UNSTEADY_S

    def left_behind(self, change: int) -> None:
        """One more exchange that nobody waits for, or (-1) one less."""
        self._left += change

    @property
    def is_surprised(self) -> bool:
        """Whether a second probe would settle what the first one told."""
        return self._estimator is not None and self._estimator.link_in_doubt

    def probed(self, now_s: float, *, found: bool) -> None:
        """A probe is over; *found*: somebody answered."""
        self._probing = False
        if not found:
            self.failed(now_s)
        elif self._probe_closes:
            self._breaker.succeeded(now_s)
