"""The two sides of a pair, as one process runs them: the head here, the tail there, all of it here if that fails."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, as_completed, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from splitc.bundle import CutEntry, TensorEntry
from splitc.decision import Decision
from splitc.errors import DeadlineExceeded, RuntimeFailure
from splitc.inference import Value
from splitc.runtime.client import Answer
from splitc.runtime.cloud import Cloud
from splitc.runtime.estimate import Exchange
from splitc.runtime.parts import Heads
from splitc.runtime.workers import beside

# An answer is late after so many times what it should take, plus what a new connection or a pause may cost.
_LATE_FACTOR, _LATE_S = 2.0, 0.1
# So long it is waited for by others than the caller: it may only be slow, and then says how slow.
_GIVE_UP_FACTOR, _GIVE_UP_S = 4.0, 0.5
# Where the device cannot do without the server, it waits as long as a person might.
_ALONE_S = 30.0
_LONGEST_S = 60.0

Values = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Done:
    """The values that were made, and how.

    Attributes:
        head_s: what the head of the chosen cut took, None if it has none.
        exchange: None if the device finished.
        fallback: why the device finished what the cloud should have, None if it did not have to.
    """

    values: Values
    head_s: float | None
    exchange: Exchange | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class _Limits:
    """When an answer is late, and when it is given up; `time.monotonic()`."""

    late_s: float
    give_up_s: float


class Pair:
    """Heads and a server in one process; for several threads.

    Attributes:
        process: which one; after a fork, `inherit`.
    """

    def __init__(
        self, heads: Heads, cloud: Cloud, all_head: CutEntry | None, outputs: Iterable[TensorEntry]
    ) -> None:
        self.process = os.getpid()
        self.heads = heads
        self.cloud = cloud
        self._all_head = all_head
        self._outputs = tuple(outputs)

    def inherit(self) -> "Pair":
        """The same for a forked process."""
        return Pair(self.heads, self.cloud.inherit(), self._all_head, self._outputs)

    def run(self, decision: Decision, inputs: Values, deadline_s: float | None) -> Done:
        """Run the chosen cut on *inputs*; the result is wanted before `time.monotonic()` is *deadline_s*.

        Raises:
            RuntimeFailure: the cloud did not do its part, and there is no all-head cut.
            ModelError: ONNX Runtime cannot run a head on these inputs.
        """
        cut, alone = decision.cut, self._all_head
        if cut.tail is not None and not decision.conditions.uplink_bps and alone is not None:
            return self._alone(alone, inputs, None, "the server is left alone for a while")
        made, head_s = self._run_head(cut, inputs) if cut.head is not None else ({}, None)
        values = inputs | made
        if cut.tail is None:
            return Done(values, head_s)
        try:
            first = self._in_cloud(decision, inputs, values, deadline_s)
        except RuntimeFailure as failure:
            if alone is None:
                raise
            return self._alone(alone, inputs, head_s, str(failure))
        if isinstance(first, Answer):
            return Done(values | first.outputs, head_s, first.exchange)
        return Done(inputs | first, head_s, fallback="the server was late")

    def _alone(self, all_head: CutEntry, inputs: Values, head_s: float | None, reason: str) -> Done:
        made, _ = self._run_head(all_head, inputs)
        return Done(inputs | made, head_s, fallback=reason)

    def _run_head(self, cut: CutEntry, inputs: Values) -> tuple[Values, float]:
        values, took_s = self.heads.run(cut, inputs)
        assert cut.head is not None, "it just ran"
        self.cloud.head_ran(cut.head.latency_s, took_s)
        return values, took_s

    def _in_cloud(
        self, decision: Decision, inputs: Values, values: Values, deadline_s: float | None
    ) -> Answer | Values:
        """What the server makes of *values*; if it is late, that or what the device makes of *inputs*.

        Raises:
            RuntimeFailure: there is no answer; the device did not try yet.
        """
        limits = self._limits(decision, deadline_s)
        wanted = [entry for entry in self._outputs if entry.name not in values]
        offload = self.cloud.offload(decision.cut, values, wanted, deadline_s=limits.give_up_s)
        try:
            if wait([offload], limits.late_s - time.monotonic()).done:
                return offload.result()
            self.cloud.leave_behind(offload)
            if self._all_head is None:
                raise DeadlineExceeded(
                    "the server did not answer in time, and the bundle holds no all-head cut"
                )
            return self._first(offload, beside(partial(self._run_head, self._all_head, inputs)))
        finally:
            # The error in it would hold this frame, which holds it: tensors would stay until the next collection.
            del offload

    def _first(self, offload: Future[Answer], local: Future[tuple[Values, float]]) -> Answer | Values:
        """Whichever comes first; the other goes on, and what it tells is learned."""
        both: list[Future[Any]] = [offload, local]
        for future in as_completed(both):
            if future is offload and offload.exception() is None:
                return offload.result()
            if future is local:
                break
        return local.result()[0]

    def _limits(self, decision: Decision, deadline_s: float | None) -> _Limits:
        conditions, head, now_s = decision.conditions, decision.cut.head, time.monotonic()
        expected_s = decision.latency_s - (conditions.head_slowdown * head.latency_s if head else 0.0)
        late_s = now_s + min(_LATE_FACTOR * expected_s + _LATE_S, _LONGEST_S)
        give_up_s = now_s + min(_GIVE_UP_FACTOR * expected_s + _GIVE_UP_S, _LONGEST_S)
        here_s = 0.0
        if self._all_head is None:
            late_s = max(give_up_s, now_s + _ALONE_S)
        elif self._all_head.head is not None:
            here_s = conditions.head_slowdown * self._all_head.head.latency_s
        if deadline_s is not None:
            if deadline_s <= now_s:
                raise DeadlineExceeded("no time was left for the server")
            # A device that cannot make it anyway leaves all of the time to the server, which may.
            late_s = min(late_s, deadline_s - here_s if deadline_s - here_s > now_s else deadline_s)
        # One exchange that outlives its caller tells enough; more would pile up while the server is silent.
        return _Limits(late_s, max(late_s, give_up_s) if self.cloud.is_usable() else late_s)
