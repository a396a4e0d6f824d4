"""Machines and networks, as described in `targets/*.toml` and `targets/networks/*.toml`.

Every number carries its source and how far it can be trusted; a description without them does not
load. A network only says what is usual: the real link is measured while the app runs.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from splitc.errors import TargetError
from splitc.records import RecordError, decode, did_you_mean
from splitc.shipped import shipped

Confidence = Literal["measured", "vendor", "derived", "fitted", "recalled"]
"""How a number was got. "fitted": by `benchmarks/fit_targets.py`. "recalled": from memory, unverified."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number, positive, in the unit that the name of its field ends with."""

    value: float
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        _check_positive("value", self.value)
        _check_source(self.source)


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity that varies: its usual value, and about its 5th and 95th percentile where known."""

    typical: float
    source: str
    confidence: Confidence
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check_source(self.source)
        for name, value in (("typical", self.typical), ("low", self.low), ("high", self.high)):
            if value is not None:
                _check_positive(name, value)
        if not self.lowest <= self.typical <= self.highest:
            raise ValueError("low, typical and high must be in ascending order")

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
        _check_source(self.source)
        _check_positive("low", self.low)
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not be above high ({self.high})")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal cores of one processor.

    Attributes:
        peak_macs_per_s: fp32 multiply-accumulates of one core: lanes x pipes x clock.
    """

    core: str
    cores: int
    clock_hz: Quantity
    peak_macs_per_s: Quantity

    def __post_init__(self) -> None:
        _check_positive("cores", self.cores)


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Share of the peak that each class of operators reaches; memory-bound operators have none."""

    depthwise: Quantity
    pointwise: Quantity
    dense3x3: Quantity
    conv: Quantity
    matmul: Quantity


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a prediction needs to know of a machine that is not at hand; see `predict.py`.

    Attributes:
        clusters: threads run on the fastest core first.
        thread_gain: share of its own peak that each core after the first adds.
        memory_bytes_per_s: what a model's tensors are read and written at.
        unit_overhead_s: what starting one unit costs.
        interval: how far a prediction may be off.
        interval_unknown: the same, for operators of which nothing but their bytes is known.
        caveat: what the interval does not cover, for people.
    """

    clusters: tuple[Cluster, ...]
    thread_gain: Quantity
    memory_bytes_per_s: Quantity
    unit_overhead_s: Quantity
    efficiency: Efficiencies
    interval: Interval
    interval_unknown: Interval
    caveat: str

    def __post_init__(self) -> None:
        if not self.clusters:
            raise ValueError("key 'clusters' must list at least one cluster")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that runs a head or a tail.

    Attributes:
        machine: "this" when it is the machine that compiles, so that it is measured, not predicted.
        threads: None for one per core that the measuring process may use.
        active_w: what the machine draws while it computes, beyond idle.
    """

    name: str
    kind: Literal["device", "cloud"]
    description: str
    runtime: str
    provider: str
    threads: int | None = None
    machine: Literal["this"] | None = None
    active_w: Quantity | None = None
    descriptor: Descriptor | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            _check_positive("threads", self.threads)


@dataclass(frozen=True, slots=True)
class Network:
    """A kind of network: what is usual on it. Energy is absent where no figure is well founded."""

    name: str
    description: str
    uplink_bps: Spread
    downlink_bps: Spread
    rtt_s: Spread
    uplink_j_per_byte: Quantity | None = None
    downlink_j_per_byte: Quantity | None = None


def load_target(name_or_path: str | Path) -> Target:
    """Return a shipped target by its name, or the one described in a `.toml` file.

    Raises:
        TargetError: no such target, or its description is wrong.
    """
    return _load(Target, "target", name_or_path, _targets())


def load_network(name_or_path: str | Path) -> Network:
    """Return a shipped network by its name, or the one described in a `.toml` file.

    Raises:
        TargetError: no such network, or its description is wrong.
    """
    return _load(Network, "network", name_or_path, _networks())


def target_names() -> tuple[str, ...]:
    """Return the names of the shipped targets, sorted."""
    return tuple(sorted(_targets()))


def network_names() -> tuple[str, ...]:
    """Return the names of the shipped networks, sorted."""
    return tuple(sorted(_networks()))


_Described = TypeVar("_Described", Target, Network)


def _load(cls: type[_Described], what: str, name_or_path: str | Path, known: dict[str, Path]) -> _Described:
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else known.get(text)
    if path is None:
        hint = did_you_mean(text, known) or ";"
        raise TargetError(
            f"no {what} is called '{text}'{hint} run `splitc targets`, or give the path of a .toml file"
        )
    try:
        return decode(cls, _read_toml(path, what), path.name)
    except RecordError as error:
        raise TargetError(str(error)) from error


def _read_toml(path: Path, what: str) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path.name}: not a TOML file: {error}") from error
    except OSError as error:
        raise TargetError(f"cannot read the {what} description {path}: {error.strerror}") from error


def _targets() -> dict[str, Path]:
    return {path.stem: path for path in shipped("targets").glob("*.toml")}


def _networks() -> dict[str, Path]:
    return {path.stem: path for path in (shipped("targets") / "networks").glob("*.toml")}


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} must be above zero, found {value:g}")


def _check_source(source: str) -> None:
    if not source.strip():
        raise ValueError("source must say where the number comes from")
