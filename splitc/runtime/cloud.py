"""The server as the device uses it: requests and probes run in threads, and each result updates the estimates."""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from threading import Lock

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.common.errors import DeadlineExceeded, RuntimeFailure, ServerRefused
from splitc.common.values import Value
from splitc.runtime.client import Answer, Client
from splitc.runtime.estimate.server_state import ServerState
from splitc.runtime.workers import Workers

_LOG = logging.getLogger("splitc.runtime")

# The server works, but is overloaded.
_OVERLOADED = {503, 504}
# A wrong token: only a person can correct that.
_NOT_FOR_US = {401, 403}
# The server has nothing that computes what this cut's part here needs; a newer or an older server may have it.
_WRONG_PAIR = 412
# How long such a cut is not asked for.
_UNKNOWN_S = 60.0
# How long an overloaded server is assumed to stay so: if it sends no Retry-After, and at most.
_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
_PROBE_S = 5.0
_CLOSE_S = 5.0


class Cloud:
    """One server, or none. Several threads may share an object; a forked process needs its own, see `inherit`."""

    def __init__(self, client: Client | None, server_state: ServerState) -> None:
        self._client = client
        self._server_state = server_state
        self._workers = Workers()
        self._lock = Lock()  # guards _server_state and _unknown_until_s
        self._unknown_until_s: dict[str, float] = {}
        self._has_warned = False

    def inherit(self) -> "Cloud":
        """Make an object for a forked process, with the same estimates but new locks and threads."""
        return Cloud(self._client, self._server_state.inherited(time.monotonic()))

    def conditions(self) -> Conditions:
        """Return the conditions to expect for a request that is sent now."""
        with self._lock:
            return self._server_state.conditions(time.monotonic())

    def is_usable(self) -> bool:
        """Tell whether to send requests: not while an answer is overdue, nor while the server is avoided."""
        with self._lock:
            return self._client is not None and self._server_state.is_usable(time.monotonic())

    def unknown(self) -> frozenset[str]:
        """The ids of the cuts that the server did not know a short time ago."""
        if not self._unknown_until_s:
            return frozenset()
        now_s = time.monotonic()
        with self._lock:
            return frozenset(cut for cut, until_s in self._unknown_until_s.items() if until_s > now_s)

    def is_steady(self) -> bool:
        """Tell whether every recent answer came in time."""
        return self._server_state.is_steady(time.monotonic())

    def is_probing(self) -> bool:
        """Tell whether a probe is running."""
        return self._server_state.is_probing

    def device_ran(self, expected_s: float, took_s: float) -> None:
        """Learn from a run on the device."""
        with self._lock:
            self._server_state.device_ran(expected_s, took_s)

    def offload(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Future[Answer]:
        """Start a request for the cloud's part of *cut*; the future gets the answer, or a RuntimeFailure.

        The request is given up when `time.monotonic()` reaches *deadline_s*.
        """
        return self._workers.start(lambda: self._infer(cut, values, wanted, deadline_s))

    def was_late(self) -> None:
        """Record that an answer did not come in time."""
        with self._lock:
            self._server_state.was_late(time.monotonic())

    def leave_behind(self, offload: Future[Answer]) -> None:
        """Stop waiting for *offload*. It continues, because its duration says how fast the link is."""
        with self._lock:
            self._server_state.leave_behind(offload)
        offload.add_done_callback(self._ended)  # called at once if the future is already done

    def look(self, *, idle: bool) -> None:
        """Start a probe in another thread if one is due.

        Args:
            idle: whether no request is about to be sent, which would measure the link as well.
        """
        if self._client is None:
            return
        with self._lock:
            is_due = self._server_state.looks(time.monotonic(), idle=idle)
        if is_due:
            self._workers.start(self._probe)

    def close(self) -> None:
        """Wait for the threads, which end soon after the transport is closed."""
        self._workers.close(_CLOSE_S)

    def _ended(self, offload: Future[Answer]) -> None:
        with self._lock:
            self._server_state.ended(offload)

    def _infer(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], deadline_s: float
    ) -> Answer:
        assert self._client is not None, "a session without a server sends nothing"
        began_s = time.monotonic()
        try:
            answer = self._client.infer(cut, values, wanted, deadline_s=deadline_s)
        except RuntimeFailure as failure:
            self._learn_from(failure, cut)
            if isinstance(failure, DeadlineExceeded):
                self._learn_from_silence(cut, time.monotonic() - began_s)
            raise
        except Exception as error:
            # A defect in splitc must not cost the app its answer: the device can still compute one.
            _LOG.exception(
                "an exchange with the server failed because of a defect in splitc; please report it"
            )
            unforeseen = RuntimeFailure(f"the exchange failed ({type(error).__name__})")
            self._learn_from(unforeseen, cut)
            raise unforeseen from error
        with self._lock:
            self._server_state.answered(answer.exchange, time.monotonic())
            self._has_warned = False
        return answer

    def _probe(self) -> None:
        """Measure the link, and again if the result was unexpected. The caller has marked the probe as running."""
        found = False
        try:
            is_surprise = self._surprises()
            found = (
                True  # also if the second try fails: else an unreliable server could count as dead forever
            )
            if (
                is_surprise
            ):  # at once, while TCP's window is still open, so that slow start does not hide the rate
                self._surprises()
        except RuntimeFailure as failure:
            self._fail(failure)
        finally:
            with self._lock:
                self._server_state.probed(time.monotonic(), found=found)

    def _surprises(self) -> bool:
        """Measure the link; return whether the result was unexpected."""
        assert self._client is not None, "a session without a server probes nothing"
        is_surprise = False
        for exchange in self._client.probe(deadline_s=time.monotonic() + _PROBE_S):
            with self._lock:
                is_surprise = self._server_state.measured(exchange, time.monotonic())
        return is_surprise

    def _learn_from_silence(self, cut: CutEntry, waited_s: float) -> None:
        with self._lock:
            is_due = self._server_state.heard_nothing(cut, waited_s, time.monotonic())
        if is_due:
            self._workers.start(self._probe)

    def _learn_from(self, failure: RuntimeFailure, cut: CutEntry) -> None:
        if isinstance(failure, ServerRefused) and failure.status == _WRONG_PAIR:
            with self._lock:
                self._unknown_until_s[cut.id] = time.monotonic() + _UNKNOWN_S
            self._warn(f"{failure}; the device does without {cut.id} and will ask for it again later")
            return
        if not (isinstance(failure, ServerRefused) and failure.status in _OVERLOADED):
            self._fail(failure)
            return
        asked_s = _RETRY_S if failure.retry_after_s is None else failure.retry_after_s
        with self._lock:
            self._server_state.refused(min(asked_s, _MAX_RETRY_S), failure.price, time.monotonic())

    def _fail(self, failure: RuntimeFailure) -> None:
        """Record that the server cannot be reached, or does not accept this device."""
        is_final = isinstance(failure, ServerRefused) and failure.status in _NOT_FOR_US
        with self._lock:
            if not is_final:
                self._server_state.failed(time.monotonic())
                return
            self._server_state.refused_for_good(time.monotonic())
        self._warn(f"{failure}; the device runs the whole model and will try the server again later")

    def _warn(self, sentence: str) -> None:
        """Log *sentence*, unless there was a warning since the last answer."""
        with self._lock:
            is_known, self._has_warned = self._has_warned, True
        if not is_known:
            _LOG.warning("%s", sentence)
