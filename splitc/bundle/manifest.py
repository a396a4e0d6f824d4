"""The records of manifest.json, version 1: what a bundle holds.

Read on devices: the standard library only, nothing of the compiler.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from splitc.common.kinds import Direction, Source
from splitc.common.records import (
    GIVEN,
    NOT_EMPTY,
    SPARSE,
    Amount,
    Count,
    Forms,
    Limit,
    PositiveCount,
    Sha256,
    check,
)

VERSION = 1


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A model input or output; `shape` holds names for symbolic dimensions, "?" for unnamed ones."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: Count | None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class BoundaryEntry:
    """A tensor that crosses, as the tail takes it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: Count
    codec: Literal["raw"] = "raw"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class CustomOpsEntry:
    """A library of custom operators that the model needs; who runs it names the library, it is never in a bundle.

    Attributes:
        name: of the library, without what differs by system; or "onnxruntime-extensions".
        sha256: of the file that the bundle was built and verified with.
    """

    name: str
    sha256: Sha256

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The model that was cut.

    Attributes:
        dims: what symbolic dimensions were fixed to for every size and time in the manifest.
        simplified: whether heads and tails were cut from the simplified graph.
    """

    name: str
    sha256: Sha256
    opsets: dict[str, int]
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    dims: dict[str, int]
    simplified: bool
    custom_ops: tuple[CustomOpsEntry, ...] | None = field(default=None, metadata=SPARSE)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """Where times come from.

    Attributes:
        interval: nine of ten real times lie between these multiples of the stated ones. If predicted, from the
            errors on devices and models that were held out; else the spread of the runs, None if there was one.
        calibration_runs: runs on the device that a prediction was adjusted to.
    """

    name: str
    source: Source
    interval: tuple[float, float] | None
    calibration_runs: Count
    runtime: str
    runtime_version: str | None
    provider: str
    threads: Count
    profile_sha256: Sha256

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class TargetsEntry:
    """The two machines."""

    device: TargetEntry
    cloud: TargetEntry


@dataclass(frozen=True, slots=True)
class BoxEntry:
    """The range of conditions that the cuts were chosen for."""

    device_slowdown: tuple[float, float]
    cloud_slowdown: tuple[float, float]
    uplink_bps: tuple[float, float]
    downlink_bps: tuple[float, float]
    rtt_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class RegretEntry:
    """How much slower than the best possible cut the best shipped one can be inside the box."""

    limit: Amount
    certified: Amount
    frontier_cuts: Count
    shipped_cuts: Count

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class CallEntry:
    """One run of an ONNX file.

    Attributes:
        inputs: from the file's inputs to the values that they take; where a part is one file, they are namesakes.
        outputs: from those of the file's outputs that count to the values that they make, likewise.
    """

    file: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoopEntry:
    """Iterations *first* to *end* - 1 of a stage that repeats.

    Attributes:
        carry: from values that the loop makes anew each time to those that they begin as, in iteration 0.
        each: from values to .npy files, whose row i is the value in iteration i.
    """

    first: Count
    end: PositiveCount
    carry: dict[str, str]
    each: dict[str, str]

    def __post_init__(self) -> None:
        check(self)
        if self.first >= self.end:
            raise ValueError(f"there are no iterations from {self.first} to {self.end}")


@dataclass(frozen=True, slots=True)
class StageEntry:
    """Runs of ONNX files one after the other, once or repeatedly."""

    name: str
    calls: Annotated[tuple[CallEntry, ...], NOT_EMPTY]
    loop: LoopEntry | None = field(default=None, metadata=SPARSE)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """What one machine runs of a cut: the head or the tail.

    Attributes:
        file: the one ONNX file that is run; None where `stages` say which.
        latency_s: seconds that it takes on its machine.
        interval: as in `TargetEntry`, of this part.
        peak_bytes: memory that it needs at once; known only where it runs on the device.
    """

    file: str | None
    latency_s: Amount
    source: Source
    interval: tuple[float, float] | None
    weight_bytes: Count
    peak_bytes: Count | None = field(default=None, metadata=SPARSE)
    stages: Annotated[tuple[StageEntry, ...], NOT_EMPTY] | None = field(default=None, metadata=SPARSE)

    FORMS: ClassVar = Forms(
        "either a file or stages", ({"file": GIVEN, "stages": None}, {"file": None, "stages": GIVEN})
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def program(self) -> tuple[StageEntry, ...]:
        """What is run, in order."""
        if self.stages is not None:
            return self.stages
        assert self.file is not None, "a part has either a file or stages"
        return (StageEntry("", (CallEntry(self.file, {}, {}),)),)


def part_files(part: PartEntry) -> tuple[str, ...]:
    """Every file that *part* names, each once: ONNX files, and arrays of values for iterations."""
    calls = [call.file for stage in part.program for call in stage.calls]
    loops = [stage.loop for stage in part.program if stage.loop is not None]
    return tuple(dict.fromkeys([*calls, *(file for loop in loops for file in loop.each.values())]))


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """How the composed pair differed from the whole model.

    Attributes:
        seeds: how many sets of inputs it ran on.
        max_abs: the largest difference of any output; of integers, in steps.
        max_rel: the largest difference of floats, relative to the largest value of their output.
        tolerance: the largest `max_rel` that was allowed for any output.
    """

    seeds: Count
    max_abs: Amount
    max_rel: Amount
    tolerance: Amount

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class LeakEntry:
    """How much of a private tensor can be rebuilt from what crosses.

    Attributes:
        share: of the variance of the private tensor, 0 to 1, that a linear decoder explains on samples that it was not
            fitted to: a lower bound on what an attacker gets. None if unknown.
        samples: how many different samples of the user there were.
        tensor: the private tensor; of several, the one of which most can be rebuilt. None if nothing crosses, or
            the share is unknown.
    """

    share: Amount | None
    samples: Count
    tensor: str | None

    def __post_init__(self) -> None:
        check(self)
        if self.share is not None and self.share > 1:
            raise ValueError(f"a share is at most 1, found {self.share}")


_DEVICE_FIRST = {"direction": "device-first", "uploads": None, "downloads": None}
_CLOUD_FIRST = {"direction": "cloud-first", "uploads": GIVEN, "downloads": GIVEN}


@dataclass(frozen=True, slots=True)
class CutEntry:
    """One shipped cut.

    Attributes:
        boundary: what the tail takes from the head; where the tail runs in the cloud, also the raw inputs that it reads.
        check: None where the pair could not be run; `Manifest.notes` says why.
        uploads, downloads: of a cloud-first split, the raw inputs that the head takes, and all that it makes for the
            device: the boundary, and outputs of the model.
        leak: only in bundles that were built with private tensors.
    """

    id: str
    kind: Literal["all-head", "split", "all-tail"]
    head: PartEntry | None
    tail: PartEntry | None
    boundary: tuple[BoundaryEntry, ...]
    uplink_bytes: Count
    downlink_bytes: Count
    check: CheckEntry | None
    direction: Direction = field(default="device-first", metadata=SPARSE)
    uploads: tuple[TensorEntry, ...] | None = field(default=None, metadata=SPARSE)
    downloads: tuple[TensorEntry, ...] | None = field(default=None, metadata=SPARSE)
    leak: LeakEntry | None = field(default=None, metadata=SPARSE)

    FORMS: ClassVar = Forms(
        "a head, a tail, uploads and downloads that belong to its kind and direction",
        (
            {"kind": "all-head", "head": GIVEN, "tail": None, **_DEVICE_FIRST},
            {"kind": "split", "head": GIVEN, "tail": GIVEN, **_DEVICE_FIRST},
            {"kind": "split", "head": GIVEN, "tail": GIVEN, **_CLOUD_FIRST},
            {"kind": "all-tail", "head": None, "tail": GIVEN, **_DEVICE_FIRST},
        ),
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def is_cloud_first(self) -> bool:
        """Whether the cloud begins and the device finishes."""
        return self.direction == "cloud-first"

    @property
    def words(self) -> str:
        """The kind, for people."""
        return "cloud-first split" if self.is_cloud_first else self.kind

    @property
    def device(self) -> PartEntry | None:
        """What runs on the device."""
        return self.tail if self.is_cloud_first else self.head

    @property
    def cloud(self) -> PartEntry | None:
        """What runs in the cloud."""
        return self.head if self.is_cloud_first else self.tail

    @property
    def device_s(self) -> float:
        """Seconds of the device, as recorded."""
        part = self.device
        return part.latency_s if part is not None else 0.0

    @property
    def cloud_s(self) -> float:
        """Seconds of the cloud, as recorded."""
        part = self.cloud
        return part.latency_s if part is not None else 0.0

    @property
    def sent(self) -> tuple[TensorEntry | BoundaryEntry, ...]:
        """What goes up, if anything runs in the cloud."""
        return self.boundary if self.uploads is None else self.uploads


def direction_of(cuts: Iterable[CutEntry]) -> Literal["device-first", "cloud-first", "both"]:
    """What the splits among *cuts* are; device-first where there is none."""
    found: set[Direction] = {cut.direction for cut in cuts if cut.kind == "split"}
    return "both" if len(found) > 1 else found.pop() if found else "device-first"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle."""

    path: str
    bytes: Count
    sha256: Sha256

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a scheduler needs; bytes, seconds, bits per second.

    Attributes:
        direction: what the splits among the cuts are.
        computes: digests of what the files of both sides compute, by name: equal ones do the same, wherever their
            weights lie. From these, device and cloud tell whether they belong together; see `splitc.bundle.pairing`.
        side: whose files are there; one side's only in what was packed for it. Every cut is described all the same.
    """

    splitc_manifest: Annotated[int, Limit("const", VERSION, f"version {VERSION}")]
    generator: dict[str, str]
    direction: Literal["device-first", "cloud-first", "both"]
    model: ModelEntry
    targets: TargetsEntry
    box: BoxEntry
    regret: RegretEntry
    cuts: Annotated[tuple[CutEntry, ...], NOT_EMPTY]
    files: tuple[FileEntry, ...]
    computes: dict[str, Sha256]
    notes: tuple[str, ...] = ()
    side: Literal["both", "device", "cloud"] = "both"

    def __post_init__(self) -> None:
        check(self)
        listed = {entry.path for entry in self.files}
        parts = [cut.device for cut in self.cuts if self.side != "cloud"]
        parts += [cut.cloud for cut in self.cuts if self.side != "device"]
        missing = sorted({file for part in parts if part is not None for file in part_files(part)} - listed)
        if missing:
            raise ValueError(f"cuts refer to {missing[0]}, which is not among the files")
        named = {
            file for cut in self.cuts for part in (cut.head, cut.tail) if part for file in part_files(part)
        }
        unknown = sorted(named - self.computes.keys())
        if unknown:
            raise ValueError(f"what {unknown[0]} computes is not listed")
        if self.direction != direction_of(self.cuts):
            raise ValueError(
                f"direction is {self.direction}, but that of the cuts is {direction_of(self.cuts)}"
            )
