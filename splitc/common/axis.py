"""A logarithmic axis, for charts."""

import math
from dataclasses import dataclass

_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: values from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the position at which *value* is drawn."""
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(
            self.high / self.low
        )

    def ticks(self) -> tuple[float, ...]:
        """Return round values on the axis, or its two ends if it has fewer than two round values."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            inside = [
                n * 10.0**power for power in powers for n in steps if self.low <= n * 10.0**power <= self.high
            ]
            if len(inside) <= _MOST_TICKS:
                break
        return tuple(inside) if len(inside) > 1 else (self.low, self.high)
