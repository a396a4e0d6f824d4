"""Requests that are queued or running, and the choice of the next batch."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from splitc.bundle.program import Call, Steps
from splitc.common.errors import ModelError
from splitc.common.values import Array
from splitc.server.request_limits import rows
from splitc.server.tails.part import File, Series, ServedPart

OnRun = Callable[[str, int, float], None]
"""Called with the file's name, the number of requests and the seconds of each run."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a request: its outputs, its time in the queue, and the time of its runs."""

    outputs: Mapping[str, Array]
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False)
class ServerJob:
    """A request that is queued or running: its current run, and totals of its earlier runs.

    Attributes:
        inputs: of the part; then those of `file` for this run.
        outputs: the names of the requested outputs of the part.
        deadline_s: when the client stops waiting, on the clock of `time.monotonic`; infinite if unknown.
        waits: whether the thread was busy when it came.
        wanted: the outputs of `file` that this run is for.
        rows: how many rows of a batch it takes; all of them if it must run alone.
        has_begun: whether its first run has begun.
        is_given_up: whether the client has stopped waiting, so that this run is the last.
        arrived_s, since_s: when the request came, and when it began to wait for this run.
        queue_s, compute_s, share_s: of the runs before this one: waits, times of the batches, and shares of those.

    Raises:
        BundleError: the part cannot begin, see `Series.begin`.
    """

    part: ServedPart
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    deadline_s: float
    waits: bool
    future: asyncio.Future[Ran | Exception]
    file: File = field(init=False)
    wanted: tuple[str, ...] = field(init=False)
    rows: int = field(init=False)
    has_begun: bool = False
    is_given_up: bool = False
    arrived_s: float = field(default_factory=time.monotonic)
    since_s: float = field(init=False)
    queue_s: float = 0.0
    compute_s: float = 0.0
    share_s: float = 0.0
    _rest: Steps | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        runs = self.part.runs
        self.since_s = self.arrived_s
        if isinstance(runs, File):
            self._turn_to(runs, self.inputs, self.outputs)
        else:
            self._rest = runs.begin(self.inputs)
            self._call(next(self._rest))

    @property
    def is_series(self) -> bool:
        """Whether it may have further runs."""
        return self._rest is not None

    @property
    def at_once(self) -> float:
        """How many requests to parts of its bundle may be under way when it begins."""
        return self.part.runs.at_once if isinstance(self.part.runs, Series) else math.inf

    def joins(self, first: "ServerJob") -> bool:
        """Whether it can be part of a batch with *first*."""
        return (
            self.file is first.file
            and self.wanted == first.wanted
            and all(array.shape[1:] == first.inputs[name].shape[1:] for name, array in self.inputs.items())
        )

    def go_on(self, ran: Ran | Exception, batch_size: int) -> Ran | Exception | None:
        """Record the result of this run and prepare the next; return the request's result if no run is left."""
        if isinstance(ran, Exception):
            return ran
        self.queue_s += ran.queue_s
        self.compute_s += ran.compute_s
        self.share_s += ran.compute_s / batch_size
        if self._rest is None:
            return ran
        try:
            self._call(self._rest.send(ran.outputs))
            self.since_s = time.monotonic()
        except StopIteration as done:
            made = {name: done.value[name] for name in self.outputs}
            return Ran(made, self.queue_s, self.compute_s)
        except Exception as error:  # noqa: BLE001 - any error becomes the answer to this request
            return error
        return None

    def _call(self, call: Call) -> None:
        assert isinstance(self.part.runs, Series), "one file makes no calls"
        self._turn_to(self.part.runs.files[call.file], call.feeds, call.outputs or ())

    def _turn_to(self, file: File, inputs: Mapping[str, Array], wanted: tuple[str, ...]) -> None:
        self.file, self.inputs, self.wanted = file, inputs, wanted
        self.rows = rows(file, inputs)


def next_batch(queue: Sequence[ServerJob]) -> list[ServerJob]:
    """The next batch from *queue*, which is in the order of waiting: the job that has waited longest, and companions.

    Jobs wait for single runs. A request of one run therefore waits for one iteration of another request, not for all
    of them, and a new request can soon join requests that iterate. The companions are the oldest requests that can
    join, up to the rows that the file takes. A request of many runs does not begin while a full batch of requests to
    its bundle is under way: it would only delay them, and all would be late instead of some.
    """
    under_way = Counter(job.part.bundle for job in queue if job.has_begun)

    def may_run(job: ServerJob) -> bool:
        return job.has_begun or under_way[job.part.bundle] < job.at_once

    first = next(filter(may_run, queue), None)
    if first is None:
        return []
    if first.rows >= first.file.max_batch:
        return [first]
    batch, total = [first], first.rows
    under_way[first.part.bundle] += not first.has_begun
    for job in sorted(queue, key=lambda job: job.arrived_s):
        if (
            job is not first
            and total + job.rows <= first.file.max_batch
            and job.joins(first)
            and may_run(job)
        ):
            batch.append(job)
            total += job.rows
            under_way[job.part.bundle] += not job.has_begun
    return batch


def run_batch(batch: Sequence[ServerJob], on_run: OnRun) -> list[Ran | Exception]:
    """Run *batch* as one; if that fails, run each job alone, so that a bad request cannot make others fail."""
    began_s = time.monotonic()
    try:
        made = _run_together(batch)
    except Exception as error:  # noqa: BLE001 - any error becomes the answer to this request
        if len(batch) == 1:
            return [error]
        return [outcome for job in batch for outcome in run_batch([job], on_run)]
    compute_s = time.monotonic() - began_s
    on_run(batch[0].file.name, len(batch), compute_s)
    return [Ran(outputs, began_s - job.since_s, compute_s) for job, outputs in zip(batch, made, strict=True)]


def _run_together(batch: Sequence[ServerJob]) -> list[Mapping[str, Array]]:
    first = batch[0]
    if len(batch) == 1:
        return [first.file.run(first.inputs, first.wanted)]
    joined = {name: np.concatenate([job.inputs[name] for job in batch]) for name in first.inputs}
    made = first.file.run(joined, first.wanted)
    ends = np.cumsum([job.rows for job in batch]).tolist()
    for name, array in made.items():
        if array.ndim == 0 or array.shape[0] != ends[-1]:
            raise ModelError(f"output '{name}' of '{first.file.name}' does not follow axis 0 of its inputs")
    # Slices along axis 0 are views, and lie in memory as they are sent.
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in made.items()}
        for start, end in zip(starts, ends, strict=True)
    ]
