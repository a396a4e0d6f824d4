"""The server as the device uses it: requests and probes in threads, whose ends are learned from."""

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

    def __init__(self, client: Client | None, server_state: ServerState) -> None:
        self._client = client
        self._server_state = server_state
        self._workers = Workers()
        self._lock = Lock()  # of the server_state
        self._has_warned = False

    def inherit(self) -> "Cloud":
        """The same server, with all that was learned of it, for a forked process: locks and threads stay behind."""
        return Cloud(self._client, self._server_state.inherited(time.monotonic()))

    def conditions(self) -> Conditions:
        """What to expect if something is sent."""
        with self._lock:
            return self._server_state.conditions(time.monotonic())

    def is_usable(self) -> bool:
        """Whether something should be sent: where one answer is late, the next would be late, too."""
        with self._lock:
            return self._client is not None and self._server_state.is_usable(time.monotonic())

    def is_steady(self) -> bool:
        """Whether every answer came, and in time, lately."""
        return self._server_state.is_steady(time.monotonic())

    def is_probing(self) -> bool:
        """Whether a probe is under way."""
        return self._server_state.is_probing

    def device_ran(self, expected_s: float, took_s: float) -> None:
        """Learn from a run on the device."""
        with self._lock:
            self._server_state.device_ran(expected_s, took_s)

    def offload(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Future[Answer]:
        """Have the cloud's part of *cut* run; the future holds the answer, or a RuntimeFailure.

        It is given up when `time.monotonic()` is *deadline_s*.
        """
        return self._workers.start(lambda: self._infer(cut, values, wanted, deadline_s))

    def was_late(self) -> None:
        """An answer did not come in time."""
        with self._lock:
            self._server_state.was_late(time.monotonic())

    def leave_behind(self, offload: Future[Answer]) -> None:
        """Wait no more for *offload*; it goes on, because its end tells how the link is."""
        with self._lock:
            self._server_state.leave_behind(offload)
        offload.add_done_callback(self._ended)  # called at once if it ended

    def look(self, *, idle: bool) -> None:
        """Probe in another thread if that is due; *idle*: nothing is about to be sent that would tell as much."""
        if self._client is None:
            return
        with self._lock:
            is_due = self._server_state.looks(time.monotonic(), idle=idle)
        if is_due:
            self._workers.start(self._probe)

    def close(self) -> None:
        """Wait for the threads, which soon end once the transport is closed."""
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
            self._server_state.answered(answer.exchange, time.monotonic())
            self._has_warned = False
        return answer

    def _probe(self) -> None:
        """Measure the link, once more if that was a surprise; the server_state has it that this is under way."""
        found = False
        try:
            is_surprise = self._surprises()
            found = True  # whatever fails from here on: else what fails now and then could look dead for ever
            if is_surprise:  # at once, while the connection's window is open: the rate itself shows
                self._surprises()
        except RuntimeFailure as failure:
            self._fail(failure)
        finally:
            with self._lock:
                self._server_state.probed(time.monotonic(), found=found)

    def _surprises(self) -> bool:
        """Measure the link; whether that was a surprise."""
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

    def _learn_from(self, failure: RuntimeFailure) -> None:
        if not (isinstance(failure, ServerRefused) and failure.status in _OVERLOADED):
            self._fail(failure)
            return
        asked_s = _RETRY_S if failure.retry_after_s is None else failure.retry_after_s
        with self._lock:
            self._server_state.refused(min(asked_s, _MAX_RETRY_S), failure.price, time.monotonic())

    def _fail(self, failure: RuntimeFailure) -> None:
        """The server is not to be had, or not for us."""
        is_final = isinstance(failure, ServerRefused) and failure.status in _WRONG_PAIR
        with self._lock:
            if not is_final:
                self._server_state.failed(time.monotonic())
                return
            self._server_state.refused_for_good(time.monotonic())
            is_known, self._has_warned = self._has_warned, True
        if not is_known:
            _LOG.warning("%s; the device goes on alone, and asks again later", failure)
