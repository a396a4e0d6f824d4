"""Numbers with their source: what descriptions of machines, networks and runtimes consist of."""

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["measured", "vendor", "published", "derived", "fitted", "recalled"]
"""How a number was got.

"vendor": the maker's own figure. "published": what somebody else published of it. "derived": computed from others.
"fitted": by a program in `benchmarks/`. "recalled": from memory, not looked up; its source says what
it is recalled from.
"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number, positive, in the unit that the name of its field ends with."""

    value: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        refuse(not_positive("value", self.value), without_source(self.source))


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity that varies: its usual value, and about its 5th and 95th percentile where known."""

    typical: float
    source: str
    confidence: Confidence
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        values = (("typical", self.typical), ("low", self.low), ("high", self.high))
        signs = [not_positive(name, value) for name, value in values if value is not None]
        ordered = self.lowest <= self.typical <= self.highest
        order = None if ordered else "low, typical and high must be in ascending order"
        refuse(*signs, order, without_source(self.source))

    @property
    def lowest(self) -> float:
        """`low`, or the typical value where nothing lower is known."""
        return self.typical if self.low is None else self.low

    @property
    def highest(self) -> float:
        """`high`, or the typical value where nothing higher is known."""
        return self.typical if self.high is None else self.high


@dataclass(frozen=True, slots=True)
class Interval:
    """Measured over predicted time: 5th and 95th percentile of errors on what was held out of the fit."""

    low: float
    high: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        order = f"low ({self.low}) must not be above high ({self.high})" if self.low > self.high else None
        refuse(not_positive("low", self.low), order, without_source(self.source))


def not_positive(name: str, value: float) -> str | None:
    """Return what is wrong with *value* unless it is above zero; *name* is its key."""
    return f"{name} must be above zero, found {value:g}" if value <= 0 else None


def without_source(source: str) -> str | None:
    """Return what is wrong with *source* unless it says something."""
    return None if source.strip() else "source must say where the number comes from"


def refuse(*complaints: str | None) -> None:
    """Raise ValueError with every complaint that is not None, if there is one."""
    found = [complaint for complaint in complaints if complaint is not None]
    if found:
        raise ValueError(*found)
