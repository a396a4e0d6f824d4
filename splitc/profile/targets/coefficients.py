"""What a runtime makes of hardware: `targets/coefficients/*.toml`, written by `benchmarks/fit_targets.py`.

A description of a machine holds facts of its hardware only. How near a runtime comes to them, per
kind of work, and how far predictions made so were off on machines held out of the fit, is here.
"""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

from splitc.common.errors import TargetError
from splitc.common.records import RecordError, decode, did_you_mean
from splitc.profile.targets.description import coefficients_paths
from splitc.profile.targets.quantity import Confidence, Quantity, not_positive, refuse, without_source


@dataclass(frozen=True, slots=True)
class Term:
    """What one kind of work costs.

    Attributes:
        per: what of the machine it is measured by: the peak of its fastest core, its memory's
            bandwidth, that core's clock, or nothing ("second").
        cost: how many times longer than at that peak or bandwidth; cycles per unit for "clock".
        threads: threads with g times the peak of the first one are g ** threads times as fast.
        spread: standard deviation of log(cost) from machine to machine.
    """

    per: Literal["peak", "memory", "clock", "second"]
    cost: float
    threads: float
    spread: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        refuse(not_positive("cost", self.cost), without_source(self.source))


@dataclass(frozen=True, slots=True)
class Terms:
    """The kinds of work, with what they are counted in.

    Attributes:
        depthwise, grouped, pointwise, dense3x3, conv, matmul: multiply-accumulates, by class of operator.
        transcendental: values computed with exponentials and the like.
        dense_traffic: bytes of activations that dense 3x3 convolutions read and write.
        traffic: those of other convolutions and matrix products.
        moved: bytes read and written by operators that do no multiply-accumulates.
        weights: bytes of weights.
        other: bytes of operators of which nothing else is known.
        unit: units, each started once.
    """

    depthwise: Term
    grouped: Term
    pointwise: Term
    dense3x3: Term
    conv: Term
    matmul: Term
    transcendental: Term
    dense_traffic: Term
    traffic: Term
    moved: Term
    weights: Term
    other: Term
    unit: Term


TERMS: tuple[str, ...] = tuple(field.name for field in fields(Terms))
"""Their names, in the order of every vector of this kind."""


@dataclass(frozen=True, slots=True)
class Family:
    """Cores of one make: how many times the cost of every term, and beyond that of memory and units."""

    name: str
    whole: float
    memory: float
    unit: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        values = (("whole", self.whole), ("memory", self.memory), ("unit", self.unit))
        refuse(*(not_positive(name, value) for name, value in values), without_source(self.source))


@dataclass(frozen=True, slots=True)
class Core:
    """A kind of core: how many times the cost of its family.

    Attributes:
        machines: how many that have it were in the fit.
    """

    name: str
    family: str
    whole: float
    machines: int
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        refuse(not_positive("whole", self.whole), without_source(self.source))


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions are off, from what was held out of the fit; standard deviations of logarithms.

    Attributes:
        known_core: of a whole machine, when others with its core were in the fit.
        known_family: when others of its family were.
        unknown_core: when neither.
        model: of one model on one machine, beyond the machine's own error.
        low, high: 5th and 95th percentile of log(measured / predicted), in standard deviations; low is
            below zero, and stored without its sign.
        calibrated_low, calibrated_high: the same, once a run on the machine is known.
    """

    known_core: Quantity
    known_family: Quantity
    unknown_core: Quantity
    model: Quantity
    low: Quantity
    high: Quantity
    calibrated_low: Quantity
    calibrated_high: Quantity


@dataclass(frozen=True, slots=True)
class Coefficients:
    """One runtime on one kind of processor.

    Attributes:
        core_bytes_per_cycle: what one core can draw from memory at best; None if only the memory limits.
    """

    name: str
    description: str
    terms: Terms
    errors: Errors
    core_bytes_per_cycle: Quantity | None = None
    families: tuple[Family, ...] = ()
    cores: tuple[Core, ...] = ()

    def __post_init__(self) -> None:
        known = {family.name for family in self.families}
        strays = [
            f"core '{core.name}' is of no listed family" for core in self.cores if core.family not in known
        ]
        refuse(*strays)

    def core(self, name: str) -> Core | None:
        """The core called *name*, if it is known."""
        return next((core for core in self.cores if core.name == name), None)

    def family(self, name: str) -> Family:
        """The family called *name*, which a listed core has."""
        return next(family for family in self.families if family.name == name)


@cache
def load_coefficients(name: str) -> Coefficients:
    """Return the coefficients called *name*: shipped, or the user's own.

    Raises:
        TargetError: there are none, or their file is damaged.
    """
    paths = coefficients_paths()
    if name not in paths:
        hint = did_you_mean(name, paths) or ";"
        raise TargetError(f"no coefficients are called '{name}'{hint} known: {', '.join(sorted(paths))}")
    path = paths[name]
    try:
        return decode(Coefficients, tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    except RecordError as error:
        raise TargetError(str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path.name}: not a TOML file: {error}") from error
