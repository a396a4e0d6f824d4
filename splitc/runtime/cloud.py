"""The server as the device sees it: what was learned of it, and whether to leave it alone."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock

from splitc.bundle import CutEntry, TensorEntry
from splitc.decision import Conditions
from splitc.errors import DeadlineExceeded, RuntimeFailure, ServerRefused
from splitc.inference import Value
from splitc.runtime.breaker import Breaker
from splitc.runtime.client import Answer, Client
from splitc.runtime.estimate import Estimator
from splitc.runtime.lateness import UNSTEADY_S
from splitc.runtime.probing import is_due
from splitc.runtime.workers import Workers

_LOG = logging.getLogger("splitc.runtime")

# The server is well, but has too much to do.
_OVERLOADED = {503, 504}
# The token, or the bundle: only a person can mend that.
_WRONG_PAIR = {401, 403, 412}
# How long to believe in a long queue if the server does not say, and at most.
_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
_PROBE_S = 5.0
_CLOSE_S = 5.0


class Cloud:
    """One server, or none; for several threads, but one process: see `inherit`."""

    def __init__(self, client: Client | None, estimator: Estimator, breaker: Breaker) -> None:
        self._client = client
        self._estimator = estimator
        self._breaker = breaker
        self._workers = Workers()
        self._left: set[Future[Answer]] = set()
        self._lock = Lock()  # of what follows, the estimator and the breaker
        self._answered_s = time.monotonic()
        self._unsteady_until_s = -math.inf
        self._is_probing = False
        self._has_warned = False

    def inherit(self) -> "Cloud":
        """The same server, with all that was learned of it, for a forked process: locks and threads stay behind."""
        return Cloud(self._client, self._estimator, self._breaker)

    def conditions(self) -> Conditions:
        """What to expect if something is sent."""
        with self._lock:
            return self._estimator.conditions(time.monotonic())

    def is_usable(self) -> bool:
        """Whether something should be sent: where one answer is late, the next would be late, too."""
        with self._lock:
            return self._client is not None and not self._left and self._breaker.allows(time.monotonic())

    def device_ran(self, expected_s: float, took_s: float) -> None:
        """Learn from a run on the device."""
        with self._lock:
            self._estimator.device_ran(expected_s, took_s)

    def offload(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Future[Answer]:
        """Have the cloud's part of *cut* run; the future holds the answer, or a RuntimeFailure.

        It is given up when `time.monotonic()` is *deadline_s*.
        """
        return self._workers.start(lambda: self._infer(cut, values, wanted, deadline_s))

    def is_steady(self) -> bool:
        """Whether every answer came, and in time, lately."""
        return time.monotonic() >= self._unsteady_until_s

    def was_late(self) -> None:
        """An answer did not come in time."""
        self._unsteady_until_s = time.monotonic() + UNSTEADY_S

    def leave_behind(self, offload: Future[Answer]) -> None:
        """Wait no more for *offload*; it goes on, because its end tells how the link is."""
        self._left.add(offload)
        offload.add_done_callback(self._left.discard)  # called at once if it ended

    def look(self, *, idle: bool) -> None:
        """Probe in another thread if that is due; *idle*: nothing is about to be sent that would tell as much."""
        with self._lock:
            if self._client is None or self._is_probing:
                return
            now_s = time.monotonic()
            is_open = not self._breaker.allows(now_s)
            if is_open:
                due = self._breaker.probe_due(now_s)
            else:
                age_s = self._estimator.link_age_s(now_s)
                due = is_due(age_s=age_s, silent_s=now_s - self._answered_s, idle=idle)
            if due:
                self._start_probe(closes=is_open)

    def close(self) -> None:
        """Wait for the threads, which soon end once the transport is closed."""
        self._workers.close(_CLOSE_S)

    def _infer(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], deadline_s: float
    ) -> Answer:
        assert self._client is not None, "a session without a server sends nothing"
        began_s = time.monotonic()
        try:
            answer = self._client.infer(cut, values, wanted, deadline_s=deadline_s)
        except RuntimeFailure as failure:
            self._learn_from(failure)
            if isinstance(failure, DeadlineExceeded):
                self._learn_from_silence(cut, time.monotonic() - began_s)
            raise
        except Exception as error:
            # A mistake of ours must not take the app's answer away: the device still has one.
            _LOG.exception("an exchange failed in a way that nobody thought of; please report it")
            unforeseen = RuntimeFailure(f"the exchange failed ({type(error).__name__})")
            self._learn_from(unforeseen)
            raise unforeseen from error
        with self._lock:
            self._answered_s = time.monotonic()
            self._estimator.exchanged(answer.exchange, self._answered_s)
            self._breaker.succeeded(self._answered_s)
            self._has_warned = False
        return answer

    def _start_probe(self, *, closes: bool) -> None:
        """The caller holds the lock, and has seen that there is no other."""
        self._is_probing = True
        self._workers.start(partial(self._probe, closes=closes))

    def _probe(self, *, closes: bool) -> None:
        """Measure the link, once more if that was a surprise; *closes*: success also says that the server is back."""
        try:
            self._measure()
            with self._lock:
                is_surprise = self._estimator.link_in_doubt
            if is_surprise:  # at once, while the connection's window is open: the rate itself shows
                self._measure()
        except RuntimeFailure as failure:
            self._fail(failure)
        else:
            if closes:
                with self._lock:
                    self._breaker.succeeded(time.monotonic())
        finally:
            self._is_probing = False

    def _measure(self) -> None:
        assert self._client is not None, "a session without a server probes nothing"
        for exchange in self._client.probe(deadline_s=time.monotonic() + _PROBE_S):
            with self._lock:
                self._estimator.exchanged(exchange, time.monotonic())

    def _learn_from_silence(self, cut: CutEntry, waited_s: float) -> None:
        """There was no answer in *waited_s*. A probe then hangs until the link is back, so that this is known at once."""
        sizes = cut.uplink_bytes, cut.downlink_bytes
        with self._lock:
            now_s = time.monotonic()
            self._estimator.took_longer(*sizes, cut.cloud_s, waited_s, now_s)
            if self._estimator.link_in_doubt and self._breaker.allows(now_s) and not self._is_probing:
                self._start_probe(closes=False)

    def _learn_from(self, failure: RuntimeFailure) -> None:
        if not (isinstance(failure, ServerRefused) and failure.status in _OVERLOADED):
            self._fail(failure)
            return
        asked_s = _RETRY_S if failure.retry_after_s is None else failure.retry_after_s
        with self._lock:
            self._estimator.refused(min(asked_s, _MAX_RETRY_S), failure.price, time.monotonic())

    def _fail(self, failure: RuntimeFailure) -> None:
        """The server is not to be had, or not for us."""
        is_final = isinstance(failure, ServerRefused) and failure.status in _WRONG_PAIR
        with self._lock:
            if not is_final:
                self._breaker.failed(time.monotonic())
                self.was_late()
                return
            self._breaker.refuse(time.monotonic())
            is_known, self._has_warned = self._has_warned, True
        if not is_known:
            _LOG.warning("%s; the device goes on alone, and asks again later", failure)
