"""A clock that jumps from one event to the next."""

import heapq
from collections.abc import Callable
from itertools import count

Act = Callable[[float], None]
"""What happens; it is told the time."""


class Events:
    """Future events in order of time; simultaneous events in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Act]] = []
        self._numbers = count()

    def at(self, time_s: float, act: Act) -> None:
        """Schedule *act* at *time_s*, which must not lie in the past."""
        heapq.heappush(self._heap, (time_s, next(self._numbers), act))

    def run(self) -> float:
        """Run until no event is left; return the time of the last event, 0 if there was none."""
        now_s = 0.0
        while self._heap:
            now_s, _, act = heapq.heappop(self._heap)
            act(now_s)
        return now_s
