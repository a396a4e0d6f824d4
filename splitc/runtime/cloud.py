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
from splitc.errors import RuntimeFailure, ServerRefused
from splitc.inference import Value
from splitc.runtime.breaker import Breaker
from splitc.runtime.client import Answer, Client
from splitc.runtime.estimate import Estimator
from splitc.runtime.workers import Workers

_LOG = logging.getLogger("splitc.runtime")

# The server is well, but has too much to do.
_OVERLOADED = {503, 504}
# The token, or the bundle: only a person can mend that.
_WRONG_PAIR = {401, 403, 412}
# How long to believe in a long queue if the server does not say, and at most.
_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
# While nothing is sent, what is known of the link grows old.
_STALE_S = 5.0
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

    def head_ran(self, expected_s: float, took_s: float) -> None:
        """Learn from a run on the device."""
        with self._lock:
            self._estimator.head_ran(expected_s, took_s)

    def offload(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Future[Answer]:
        """Have the tail of *cut* run; the future holds the answer, or a RuntimeFailure.

        It is given up when `time.monotonic()` is *deadline_s*.
        """
        return self._workers.start(lambda: self._infer(cut, values, wanted, deadline_s))

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
                due = math.isinf(age_s) or (idle and age_s > _STALE_S)
            self._is_probing = due
        if due:
            self._workers.start(partial(self._probe, closes=is_open))

    def close(self) -> None:
        """Wait for the threads, which soon end once the transport is closed."""
        self._workers.close(_CLOSE_S)

    def _infer(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], deadline_s: float
    ) -> Answer:
        assert self._client is not None, "a session without a server sends nothing"
        try:
            answer = self._client.infer(cut, values, wanted, deadline_s=deadline_s)
        except RuntimeFailure as failure:
            self._learn_from(failure)
            raise
        except Exception as error:
            # A mistake of ours must not take the app's answer away: the device still has one.
            _LOG.exception("an exchange failed in a way that nobody thought of; please report it")
            unforeseen = RuntimeFailure(f"the exchange failed ({type(error).__name__})")
            self._learn_from(unforeseen)
            raise unforeseen from error
        with self._lock:
            self._estimator.exchanged(answer.exchange, time.monotonic())
            self._breaker.succeeded(time.monotonic())
            self._has_warned = False
        return answer

    def _probe(self, *, closes: bool) -> None:
        """Measure the link; *closes*: success also says that the server is back."""
        assert self._client is not None, "a session without a server probes nothing"
        try:
            for exchange in self._client.probe(deadline_s=time.monotonic() + _PROBE_S):
                with self._lock:
                    self._estimator.exchanged(exchange, time.monotonic())
        except RuntimeFailure as failure:
            self._fail(failure)
        else:
            if closes:
                with self._lock:
                    self._breaker.succeeded(time.monotonic())
        finally:
            self._is_probing = False

    def _learn_from(self, failure: RuntimeFailure) -> None:
        if not (isinstance(failure, ServerRefused) and failure.status in _OVERLOADED):
            self._fail(failure)
            return
        asked_s = _RETRY_S if failure.retry_after_s is None else failure.retry_after_s
        with self._lock:
            self._estimator.refused(min(asked_s, _MAX_RETRY_S), time.monotonic())

    def _fail(self, failure: RuntimeFailure) -> None:
        """The server is not to be had, or not for us."""
        is_final = isinstance(failure, ServerRefused) and failure.status in _WRONG_PAIR
        with self._lock:
            if not is_final:
                self._breaker.failed(time.monotonic())
                return
            self._breaker.refuse(time.monotonic())
            is_known, self._has_warned = self._has_warned, True
        if not is_known:
            _LOG.warning("%s; the device goes on alone, and asks again later", failure)
