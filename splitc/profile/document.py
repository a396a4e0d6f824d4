"""Profiles: how long a model and each of its nodes took on one machine, as a JSON document.

The programs in `profilers/` print profiles, and `splitc profile` keeps them. `profile.schema.json` describes
the format for other languages. `attribution.py` computes times of units from a profile.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Literal

from splitc.common.digests import json_sha256
from splitc.common.errors import ProfileError
from splitc.common.files import refuse_special
from splitc.common.kinds import Source
from splitc.common.parse import parse_json
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
_ENDLESS = Limit("maximum", 10**9, "a number of seconds of at most 1e9")
Seconds = Annotated[Amount, _ENDLESS]
PositiveSeconds = Annotated[PositiveAmount, _ENDLESS]


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """A node as the runtime ran it; a fused node has the name of one of the nodes that it replaces.

    Attributes:
        seconds: one for each profiled run; the time of an If, Loop or Scan includes its bodies.
        events: how many events the profiler recorded for this node in one run, including its bodies.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: Annotated[tuple[Seconds, ...], NOT_EMPTY]
    events: PositiveCount = 1

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times of a model with one thread count and one size of its inputs.

    Attributes:
        dims: the sizes of symbolic dimensions.
        warmup: number of runs that came first and are left out.
        whole_s: seconds of whole runs without profiling, which itself slows a run down.
        profiled_whole_s: seconds of whole runs with profiling, in turns with the others.
        fixed_s: seconds of runs of a model that does nothing: the cost of any call. Empty if unknown.
        nodes: empty if only times of the whole model are known.
    """

    threads: PositiveCount
    dims: dict[str, Count]
    warmup: Count
    whole_s: Annotated[tuple[PositiveSeconds, ...], NOT_EMPTY]
    profiled_whole_s: tuple[PositiveSeconds, ...]
    fixed_s: tuple[Seconds, ...]
    nodes: tuple[NodeTimes, ...]

    def __post_init__(self) -> None:
        check(self)

    def spread(self) -> tuple[float, float] | None:
        """Return the 5th and 95th percentile of whole runs over their median; None if there was one run."""
        if len(self.whole_s) == 1:
            return None
        twentieths, middle = quantiles(self.whole_s, n=20, method="inclusive"), median(self.whole_s)
        return twentieths[0] / middle, twentieths[-1] / middle

    def drift(self) -> float | None:
        """Return the median of the last third of whole runs over that of the first; None for fewer than 6 runs.

        A value well above 1 means that the machine grew hot, or that another program began to run.
        """
        third = len(self.whole_s) // _THIRDS
        if len(self.whole_s) < _MIN_DRIFT_RUNS:
            return None
        return median(self.whole_s[-third:]) / median(self.whole_s[:third])


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What is known about the machine that the model ran on.

    Attributes:
        system, machine: such as "Linux" and "aarch64".
        processor: the name of the board or of the processor.
        python: version of the Python that ran the profiler; None if it was not a Python program.
    """

    system: str | None
    machine: str | None
    processor: str | None
    cores: int | None
    python: str | None


@dataclass(frozen=True, slots=True)
class UnitRun:
    """A unit of the model: its work, and the seconds that it took in each measurement (None if unknown)."""

    name: str
    work: tuple[Work, ...]
    seconds: tuple[Seconds | None, ...]

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Profile:
    """All measurements of a model on one machine.

    Attributes:
        model: SHA-256 of the profiled model: `Model.sha256`, or that of the .onnx file without external data.
        source: "measured" by a splitc program, or "imported" from a recording of another program.
        units: added by `splitc profile`, so that a target can be calibrated without the model.
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
        seconds: one for each unit; together with `fixed_s` they add up to one run of the whole model.
        fixed_s: the cost of a run of any part besides its units; None if unknown.
        interval: nine of ten real times lie between these multiples of the stated ones. For a prediction, it comes
            from errors on held-out data, else from the spread of the runs; None if there was one run.
        sha256: of the measurement, or of the inputs of the prediction.
        here: measured on this machine, so that parts may be timed here too.
        calibration_runs: number of runs on the device that a prediction was corrected with.
        notes: messages for the user on how the times were obtained, one sentence each.
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
        ProfileError: it cannot be read, or is not a profile.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return parse_profile(data, str(path))


def parse_profile(data: bytes, where: str) -> Profile:
    """Return the profile in *data*; every error message begins with *where*, the origin of *data*.

    Raises:
        ProfileError: it is not a profile.
    """
    try:
        value = parse_json(data)
    except ValueError as error:
        raise ProfileError(
            f"{where}: not a JSON profile ({error}); record one with `splitc profile`"
        ) from error
    return decode_profile(value, where)


def decode_profile(value: object, where: str) -> Profile:
    """Return the profile that the JSON value *value* describes; every error message begins with *where*.

    Raises:
        ProfileError: it is not a profile.
    """
    try:
        return decode(Profile, value, where)
    except RecordError as error:
        raise ProfileError(f"{error}; record a profile with `splitc profile`") from error


def write_profile(profile: Profile, path: Path) -> None:
    """Write *profile* to *path* atomically, through a file of another name."""
    refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(encode(profile)) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def measurement_sha256(profile: Profile, measurement: Measurement) -> str:
    """Return the SHA-256 of one measurement of *profile*, independent of its other measurements."""
    alone = replace(profile, measurements=(measurement,), units=None)
    return json_sha256(encode(alone))
