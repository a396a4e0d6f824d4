"""Profiles: how long a model and each of its nodes took on one machine, as a JSON document.

Programs print them, `splitc profile` keeps them, a pipeline commits them. `profile.schema.json` says the
same to other languages. `attribution.py` turns one into times of units.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Literal

from splitc.common.digests import json_sha256
from splitc.common.errors import ProfileError
from splitc.common.kinds import Source
from splitc.common.records import (
    NOT_EMPTY,
    Amount,
    Count,
    Limit,
    PositiveAmount,
    PositiveCount,
    RecordError,
    check,
    decode,
    encode,
)
from splitc.model.graph import Work

VERSION = 1
_THIRDS = 3
_MIN_DRIFT_RUNS = 6


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """A node as the runtime ran it: fused nodes bear one of the names of what they replace.

    Attributes:
        seconds: one for each profiled run; what bodies of an If, Loop or Scan took is in their node's.
        events: how often the profiler wrote something down for this node in one run, bodies included.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: Annotated[tuple[Amount, ...], NOT_EMPTY]
    events: PositiveCount = 1

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A model at one thread count and one size of its inputs.

    Attributes:
        dims: what symbolic dimensions were.
        warmup: runs that came first and are not in here.
        whole_s: runs without profiling, which itself slows a run down.
        profiled_whole_s: runs with profiling, taken in turns with the others.
        fixed_s: runs of a model that does nothing: what any call costs. Empty if that is not known.
        nodes: empty if only the whole is known.
    """

    threads: PositiveCount
    dims: dict[str, Count]
    warmup: Count
    whole_s: Annotated[tuple[PositiveAmount, ...], NOT_EMPTY]
    profiled_whole_s: tuple[PositiveAmount, ...]
    fixed_s: tuple[Amount, ...]
    nodes: tuple[NodeTimes, ...]

    def __post_init__(self) -> None:
        check(self)

    def spread(self) -> tuple[float, float] | None:
        """The 5th and 95th percentile of whole runs over their median; None if there was one run."""
        if len(self.whole_s) == 1:
            return None
        twentieths, middle = quantiles(self.whole_s, n=20, method="inclusive"), median(self.whole_s)
        return twentieths[0] / middle, twentieths[-1] / middle

    def drift(self) -> float | None:
        """The median of the last third of whole runs over that of the first; None for fewer than 6 runs.

        Well above 1, the machine grew hot, or something else began to run on it.
        """
        third = len(self.whole_s) // _THIRDS
        if len(self.whole_s) < _MIN_DRIFT_RUNS:
            return None
        return median(self.whole_s[-third:]) / median(self.whole_s[:third])


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What is known of the machine that it ran on.

    Attributes:
        system, machine: such as "Linux" and "aarch64".
        processor: the name of the board or of the processor.
        python: version of what ran the program, where that was Python.
    """

    system: str | None
    machine: str | None
    processor: str | None
    cores: int | None
    python: str | None


@dataclass(frozen=True, slots=True)
class UnitRun:
    """A unit of the model: what it has to do, and how long it took in each measurement, where that is known."""

    name: str
    work: tuple[Work, ...]
    seconds: tuple[Amount | None, ...]

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Profile:
    """Every run of a model on one machine.

    Attributes:
        model: SHA-256 of the profiled model, as `Model.sha256`, or of its file alone.
        source: "measured" by a program of splitc, or "imported" from what somebody else recorded.
        units: what `splitc profile` adds, so that a target can be calibrated without the model.
    """

    splitc_profile: Annotated[int, Limit("const", VERSION, f"version {VERSION}")]
    model: str
    source: Literal["measured", "imported"]
    runtime: str
    runtime_version: str | None
    provider: str
    machine: MachineFacts
    measurements: Annotated[tuple[Measurement, ...], NOT_EMPTY]
    units: tuple[UnitRun, ...] | None = None

    def __post_init__(self) -> None:
        check(self)
        if any(len(unit.seconds) != len(self.measurements) for unit in self.units or ()):
            raise ValueError("a unit must have one entry in seconds for each measurement")


@dataclass(frozen=True, slots=True)
class UnitTimes:
    """Seconds per unit of a graph on one target, and how they were obtained.

    Attributes:
        seconds: they and `fixed_s` add up to one run of the whole model.
        fixed_s: what a run of any part costs besides its units; None if that is not known.
        interval: nine of ten real times lie between these multiples of the stated ones: from errors on what was
            held out if predicted, else from the spread of the runs, None if there was one.
        sha256: of the measurement, or of what the prediction was made from.
        here: measured on this machine, so that parts may be timed here too.
        calibration_runs: runs on the device that a prediction was adjusted to.
        notes: what a user should know of how they were obtained, a sentence each.
    """

    target: str
    source: Source
    runtime: str
    runtime_version: str | None
    provider: str
    threads: int
    seconds: tuple[float, ...]
    fixed_s: float | None
    interval: tuple[float, float] | None
    sha256: str
    here: bool = False
    calibration_runs: int = 0
    notes: tuple[str, ...] = ()


def read_profile(path: Path) -> Profile:
    """Read the profile in the file *path*.

    Raises:
        ProfileError: it cannot be read, or is no profile.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_profile(data, str(path))


def parse_profile(data: bytes, where: str) -> Profile:
    """Return the profile in *data*; every message begins with *where* it came from.

    Raises:
        ProfileError: it is no profile.
    """
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ProfileError(
            f"{where}: not a JSON profile ({error}); record one with `splitc profile`"
        ) from error
    return decode_profile(value, where)


def decode_profile(value: object, where: str) -> Profile:
    """Return the profile that the JSON value *value* describes; every message begins with *where*.

    Raises:
        ProfileError: it is no profile.
    """
    try:
        return decode(Profile, value, where)
    except RecordError as error:
        raise ProfileError(f"{error}; this is no profile that `splitc profile` wrote") from error


def write_profile(profile: Profile, path: Path) -> None:
    """Write *profile* to *path*; through a temporary name, so never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(encode(profile)) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def measurement_sha256(profile: Profile, measurement: Measurement) -> str:
    """SHA-256 of one measurement of *profile*, whatever else the profile holds."""
    alone = replace(profile, measurements=(measurement,), units=None)
    return json_sha256(encode(alone))
