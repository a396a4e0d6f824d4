"""The processor of a device: one run after the other, in the order of the requests."""

from collections import deque
from dataclasses import dataclass
from functools import partial

from splitc.simulate.events import Act, Events


@dataclass(slots=True, eq=False)
class ProcessorRun:
    """A run that was requested."""

    duration_s: float
    then: Act
    is_over: bool = False


class Processor:
    """The processor of one device."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._waiting: deque[ProcessorRun] = deque()
        self._running: ProcessorRun | None = None

    def run(self, duration_s: float, then: Act, now_s: float) -> ProcessorRun:
        """Queue a run of that duration; *then* is called when it has ended."""
        run = ProcessorRun(duration_s, then)
        self._waiting.append(run)
        self._next(now_s)
        return run

    def end(self, run: ProcessorRun, now_s: float) -> None:
        """Cancel *run*: its result is no longer needed."""
        run.is_over = True
        if run is self._running:
            self._running = None
            self._next(now_s)

    def _next(self, now_s: float) -> None:
        while self._running is None and self._waiting:
            run = self._waiting.popleft()
            if not run.is_over:
                self._running = run
                self._events.at(now_s + run.duration_s, partial(self._done, run))

    def _done(self, run: ProcessorRun, now_s: float) -> None:
        if run is self._running:
            self.end(run, now_s)
            run.then(now_s)
