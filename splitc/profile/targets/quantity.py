"""Numbers with a source and a confidence, for descriptions of machines, networks and runtimes."""

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["measured", "vendor", "published", "derived", "fitted", "recalled"]
"""How a number was obtained.

"measured": by a measurement of splitc. "vendor": the vendor's own figure. "published": a figure published by
others. "derived": computed from other numbers. "fitted": by a program in `benchmarks/`. "recalled": from memory,
not verified; the source names the origin.
"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A positive number, in the unit at the end of its field's name."""

    value: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        refuse(not_positive("value", self.value), without_source(self.source))


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity that varies: its typical value, and roughly its 5th and 95th percentile if known."""

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
        """`low`, or the typical value if `low` is unknown."""
        return self.typical if self.low is None else self.low

    @property
    def highest(self) -> float:
        """`high`, or the typical value if `high` is unknown."""
        return self.typical if self.high is None else self.high


@dataclass(frozen=True, slots=True)
class Interval:
    """5th and 95th percentile of measured over predicted time, on data held out of the fit."""

    low: float
    high: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        order = f"low ({self.low}) must not be above high ({self.high})" if self.low > self.high else None
        refuse(not_positive("low", self.low), order, without_source(self.source))


def not_positive(name: str, value: float) -> str | None:
    """Return an error text if *value*, of the key *name*, is not above zero; else None."""
    return f"{name} must be above zero, found {value:g}" if value <= 0 else None


def without_source(source: str) -> str | None:
    """Return an error text if *source* is empty; else None."""
    return None if source.strip() else "source must say where the number comes from"


def refuse(*complaints: str | None) -> None:
    """Raise ValueError with all complaints that are not None, if there are any."""
    found = [complaint for complaint in complaints if complaint is not None]
    if found:
        raise ValueError(*found)
