"""Coefficients of a runtime: `targets/coefficients/*.toml`, written by `benchmarks/fit_targets.py`.

A description of a machine has only facts about its hardware. Coefficients tell, for each kind of work, how
close a runtime comes to the peak of the hardware, and how large the errors of predictions were on machines
that were held out of the fit.
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

from splitc.common.errors import TargetError
from splitc.common.parse import parse_toml
from splitc.common.records import RecordError, decode, did_you_mean
from splitc.profile.targets.description import coefficients_paths
from splitc.profile.targets.quantity import Confidence, Quantity, not_positive, refuse, without_source


@dataclass(frozen=True, slots=True)
class Term:
    """The cost of one kind of work.

    Attributes:
        per: the property of the machine that sets its speed: the peak of its fastest core, the bandwidth of
            its memory, the clock of that core, or none ("second").
        cost: how many times longer it takes than at that peak or bandwidth; cycles per unit for "clock".
        threads: an exponent: cores with g times the peak of the fastest one are g ** threads times as fast.
        spread: standard deviation of log(cost) between machines.
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
    """The kinds of work, each with the amount that it is counted in.

    Attributes:
        depthwise, grouped, pointwise, dense3x3, conv, matmul: multiply-accumulates, by class of operator.
        transcendental: values computed with exponentials and the like.
        dense_traffic: bytes of activations that dense 3x3 convolutions read and write.
        traffic: bytes of activations that other convolutions and matrix products read and write.
        moved: bytes read and written by operators without multiply-accumulates.
        weights: bytes of weights.
        other: bytes read and written by operators of unknown class.
        unit: the number of units; each has a cost of starting.
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
"""Names of the terms, in the order of every vector of terms."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of cores.

    Attributes:
        whole: factor on the cost of every term.
        memory, unit: additional factors on the costs of memory and of starting units.
    """

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
    """A kind of core.

    Attributes:
        whole: factor on the cost of every term, beyond that of its family.
        machines: how many machines with this core were in the fit.
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
    """Errors of predictions on data held out of the fit: standard deviations of log(measured / predicted).

    Attributes:
        known_core: for a whole machine, if the fit had other machines with its core.
        known_family: if the fit had machines with other cores of its family only.
        unknown_core: if the fit had neither.
        model: for one model on one machine, beyond the error of the machine.
        low, high: 5th and 95th percentile of log(measured / predicted), in standard deviations; low is
            negative and stored without its sign.
        calibrated_low, calibrated_high: the same with a run on the machine.
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
    """The coefficients of one runtime on one kind of processor.

    Attributes:
        core_bytes_per_cycle: the most bytes that one core can read from memory; None if cores do not limit it.
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
            f"core '{core.name}' has the unknown family '{core.family}'"
            for core in self.cores
            if core.family not in known
        ]
        refuse(*strays)

    def core(self, name: str) -> Core | None:
        """Return the core called *name*; None if it is unknown."""
        return next((core for core in self.cores if core.name == name), None)

    def family(self, name: str) -> Family:
        """Return the family called *name*, which must exist."""
        return next(family for family in self.families if family.name == name)


@cache
def load_coefficients(name: str) -> Coefficients:
    """Return the coefficients called *name*: shipped ones, or the user's own.

    Raises:
        TargetError: there are none of this name, or their file is invalid.
    """
    paths = coefficients_paths()
    if name not in paths:
        hint = did_you_mean(name, paths) or ";"
        raise TargetError(f"unknown coefficients '{name}'{hint} known: {', '.join(sorted(paths))}")
    path = paths[name]
    try:
        return decode(Coefficients, parse_toml(path.read_bytes()), path.name)
    except RecordError as error:
        raise TargetError(str(error)) from error
    except ValueError as error:
        raise TargetError(f"{path.name}: not a TOML file: {error}") from error
    except OSError as error:
        raise TargetError(f"{path}: cannot be read: {error.strerror}") from error
