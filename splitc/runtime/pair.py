"""Runs a cut on both sides: one part on the device, one in the cloud, and all on the device if the cloud fails."""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from splitc.bundle.decide import Decision
from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.bundle.program import made_by
from splitc.common.errors import BundleError, DeadlineExceeded, ModelError, RuntimeFailure
from splitc.common.ort import Interrupt
from splitc.common.values import Value
from splitc.runtime.client import Answer
from splitc.runtime.cloud import Cloud
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.estimate.patience import patience
from splitc.runtime.workers import beside

# An answer that comes this soon after the deadline is still received, because it says how slow the link is.
_AFTERWARDS_S = 0.5

Values = dict[str, Value]


class HeadFailed(Exception):  # noqa: N818 - the session goes on with another cut
    """The device's part of *cut* cannot be opened or run, because of *error*."""

    def __init__(self, cut: CutEntry, error: ModelError | BundleError) -> None:
        super().__init__(f"the device's part of {cut.id} failed: {error}")
        self.cut = cut
        self.error = error


@dataclass(frozen=True, slots=True)
class Done:
    """The values that were computed, and how.

    Attributes:
        device_s: seconds that the device's part of the chosen cut took; None if it has none or did not run it.
        exchange: the exchange with the server; None if the device computed everything.
        fallback: why the device did the cloud's work; None if it did not.
    """

    values: Values
    device_s: float | None
    exchange: ObservedExchange | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class _Limits:
    """When the device also begins, when an answer is late, and when it is given up, by `time.monotonic()`."""

    alone_s: float
    late_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class _Alone:
    """All values, computed by the device without the cloud, and the reason for it."""

    values: Values
    reason: str


class Pair:
    """The device's parts and a server in one process; for several threads.

    Args:
        hedges: let the device begin at the same time as the cloud while answers are sometimes late.

    Attributes:
        process: id of the process that may use this object; a forked process calls `inherit`.
        excluded: why the device's part of a cut is no longer tried, by the id of the cut.
    """

    def __init__(
        self,
        parts: DeviceParts,
        cloud: Cloud,
        all_head: CutEntry | None,
        outputs: Iterable[TensorEntry],
        *,
        hedges: bool,
    ) -> None:
        self.process = os.getpid()
        self.parts = parts
        self.cloud = cloud
        self.excluded: dict[str, str] = {}
        self._given_all_head = all_head
        self._outputs = tuple(outputs)
        self._hedges = hedges

    def inherit(self) -> "Pair":
        """Make an object for a forked process, with the same estimates."""
        made = Pair(
            self.parts, self.cloud.inherit(), self._given_all_head, self._outputs, hedges=self._hedges
        )
        made.excluded.update(self.excluded)
        return made

    @property
    def all_head(self) -> CutEntry | None:
        """The cut with which the device can do without the cloud, if there is one that works."""
        given = self._given_all_head
        return None if given is None or given.id in self.excluded else given

    def run(self, decision: Decision, inputs: Values, deadline_s: float | None) -> Done:
        """Run the chosen cut on *inputs*.

        Args:
            deadline_s: when the result must be there, on the clock of `time.monotonic()`.

        Raises:
            RuntimeFailure: the cloud did not run its part, and the bundle has no all-head cut.
            HeadFailed: the device's part of the cut, or of the all-head cut, cannot be opened or run on these inputs.
        """
        cut, alone = decision.cut, self.all_head
        if cut.cloud is None:
            return Done(*self._on_device(cut, inputs))
        if not decision.conditions.uplink_bps and alone is not None:
            return self._alone(alone, inputs, None, "the server is avoided for a while after it failed")
        if alone is not None and cut.id in self.cloud.unknown():
            return self._alone(alone, inputs, None, f"the server knows nothing that belongs to {cut.id}")
        values, device_s = inputs, None
        if cut.device is not None and not cut.is_cloud_first:
            values, device_s = self._on_device(cut, values)
        try:
            first = self._in_cloud(decision, inputs, values, deadline_s)
        except RuntimeFailure as failure:
            if alone is None:
                raise
            return self._alone(alone, inputs, device_s, str(failure))
        if isinstance(first, _Alone):
            return Done(first.values, device_s, fallback=first.reason)
        values = values | first.outputs
        if cut.is_cloud_first:
            values, device_s = self._on_device(cut, values)
        return Done(values, device_s, first.exchange)

    def _alone(self, all_head: CutEntry, inputs: Values, device_s: float | None, reason: str) -> Done:
        values, _ = self._on_device(all_head, inputs)
        return Done(values, device_s, fallback=reason)

    def _on_device(
        self, cut: CutEntry, values: Values, interrupt: Interrupt | None = None
    ) -> tuple[Values, float]:
        """Run the device's part of *cut*; return *values* with its results added, and the seconds that it took."""
        try:
            made, took_s = self.parts.run(cut, values, interrupt)
        except (ModelError, BundleError) as error:
            raise self._failed(cut, error) from error
        self.cloud.device_ran(cut.device_s, took_s)
        return values | made, took_s

    def _failed(self, cut: CutEntry, error: ModelError | BundleError) -> HeadFailed:
        failed = HeadFailed(cut, error)
        if isinstance(error, BundleError) or not self.parts.is_ready(cut):  # whatever the inputs are
            self.excluded[cut.id] = str(failed)
        return failed

    def _in_cloud(
        self, decision: Decision, inputs: Values, values: Values, deadline_s: float | None
    ) -> Answer | _Alone:
        """Have the server run its part on *values*. The device may run all on *inputs* too; the first result counts.

        Raises:
            RuntimeFailure: the server gave no answer, and the device has not begun.
        """
        limits = self._limits(decision, deadline_s)
        wanted = self._wanted(decision.cut, values)
        offload = self.cloud.offload(decision.cut, values, wanted, deadline_s=limits.give_up_s)
        try:
            # If the exchange is given up at the moment when the device begins, its failure may arrive first.
            if _has_ended(offload, limits.alone_s) and not isinstance(offload.exception(), DeadlineExceeded):
                return offload.result()
            alone = self.all_head
            if alone is None:
                self.cloud.leave_behind(offload)
                raise DeadlineExceeded(
                    "the server did not answer in time, and the bundle has no all-head cut to fall back on"
                )
            return self._first(offload, alone, inputs, limits.late_s)
        finally:
            # The future's error refers to this frame: the cycle would keep tensors until the next garbage collection.
            del offload

    def _wanted(self, cut: CutEntry, values: Values) -> Sequence[TensorEntry]:
        """List the outputs to ask the cloud's part of *cut* for."""
        if cut.downloads is not None:
            return cut.downloads
        if (
            cut.cloud is not None and cut.cloud.stages is not None
        ):  # stages in the cloud may compute again what the device has computed for them
            made = made_by(cut.cloud)
            return [entry for entry in self._outputs if entry.name in made]
        return [entry for entry in self._outputs if entry.name not in values]

    def _first(
        self, offload: Future[Answer], all_head: CutEntry, inputs: Values, late_s: float
    ) -> Answer | _Alone:
        """Run everything on the device as well, and return the result that comes first.

        If the device loses, its run is interrupted. If the server loses, the exchange continues and updates the estimates.
        """
        interrupt = Interrupt()
        local = beside(partial(self._on_device, all_head, inputs, interrupt))
        both: list[Future[Any]] = [offload, local]
        if not wait(both, late_s - time.monotonic(), FIRST_COMPLETED).done:
            self.cloud.was_late()
            self.cloud.leave_behind(offload)
        for _ in as_completed(both):
            if offload.done() and offload.exception() is None:
                interrupt.set()
                return offload.result()
            if local.done() and local.exception() is None:
                break
        if offload.done() and (failure := offload.exception()) is not None:
            return _Alone(local.result()[0], str(failure))
        self.cloud.leave_behind(offload)
        is_late = time.monotonic() >= late_s
        return _Alone(local.result()[0], "the server was late" if is_late else "the device was faster")

    def _limits(self, decision: Decision, deadline_s: float | None) -> _Limits:
        now_s, alone = time.monotonic(), self.all_head
        usual = patience(decision, alone)
        late_s, give_up_s = now_s + usual.late_s, now_s + usual.give_up_s
        if deadline_s is not None:
            if deadline_s <= now_s:
                raise DeadlineExceeded("the deadline had passed before anything could be sent to the server")
            here_s = 0.0
            if alone is None:
                give_up_s = min(give_up_s, deadline_s + _AFTERWARDS_S)
            else:
                here_s = decision.conditions.device_slowdown * alone.device_s
            # If the device cannot meet the deadline, the server gets all of the time.
            late_s = min(late_s, deadline_s - here_s if deadline_s - here_s > now_s else deadline_s)
        begins_at_once = self._hedges and alone is not None and not self.cloud.is_steady()
        # One exchange that outlives its request is enough to learn from; more would pile up at a silent server.
        give_up_s = max(late_s, give_up_s) if self.cloud.is_usable() else late_s
        return _Limits(min(now_s, late_s) if begins_at_once else late_s, late_s, give_up_s)


def _has_ended(future: Future[Any], until_s: float) -> bool:
    """Wait for *future* until `time.monotonic()` is *until_s*."""
    try:
        future.exception(max(until_s - time.monotonic(), 0.0))
    except TimeoutError:  # raised by the wait; an error of the task itself would be returned
        return False
    return True
