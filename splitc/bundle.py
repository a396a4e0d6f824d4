"""What a bundle holds: manifest version 1, and the folder that it indexes (DESIGN section 7).

Read on devices: the standard library only, nothing of the compiler.
"""

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from splitc.errors import BundleError
from splitc.records import RecordError, decode, encode

MANIFEST = "manifest.json"
VERSION = 1

Source = Literal["measured", "imported", "predicted"]


def _check_ranges(record: Any) -> None:
    """Refuse negative amounts and malformed digests, as the JSON Schema does."""
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{field.name} must not be below zero, found {value:g}")
        if field.name.endswith("sha256") and not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{field.name} must be 64 hexadecimal digits, found {value!r}")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A model input or output; `shape` holds names for symbolic dimensions, "?" for unnamed ones."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: int | None

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class BoundaryEntry:
    """A tensor that crosses, as the tail takes it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: int
    codec: Literal["raw"] = "raw"

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The model that was cut.

    Attributes:
        dims: what symbolic dimensions were fixed to for every size and time in the manifest.
        simplified: whether heads and tails were cut from the simplified graph.
    """

    name: str
    sha256: str
    opsets: dict[str, int]
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    dims: dict[str, int]
    simplified: bool

    def __post_init__(self) -> None:
        _check_ranges(self)


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
    calibration_runs: int
    runtime: str
    runtime_version: str | None
    provider: str
    threads: int
    profile_sha256: str

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class TargetsEntry:
    """The two machines."""

    head: TargetEntry
    tail: TargetEntry


@dataclass(frozen=True, slots=True)
class BoxEntry:
    """The range of conditions that the cuts were chosen for."""

    head_slowdown: tuple[float, float]
    tail_slowdown: tuple[float, float]
    uplink_bps: tuple[float, float]
    downlink_bps: tuple[float, float]
    rtt_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class RegretEntry:
    """How much slower than the best possible cut the best shipped one can be inside the box."""

    limit: float
    certified: float
    frontier_cuts: int
    shipped_cuts: int

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """The part on the device; `interval` as in `TargetEntry`, of this part."""

    file: str
    latency_s: float
    weight_bytes: int
    peak_bytes: int
    source: Source
    interval: tuple[float, float] | None

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class TailEntry:
    """The part in the cloud; `interval` as in `TargetEntry`, of this part."""

    file: str
    latency_s: float
    weight_bytes: int
    source: Source
    interval: tuple[float, float] | None

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """How the composed pair differed from the whole model; `max_rel` is relative to output scale."""

    seeds: int
    max_abs: float
    max_rel: float
    tolerance: float

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class CutEntry:
    """One shipped cut. `check` is null where the pair could not be run; `Manifest.notes` says why."""

    id: str
    kind: Literal["all-head", "split", "all-tail"]
    head: HeadEntry | None
    tail: TailEntry | None
    boundary: tuple[BoundaryEntry, ...]
    uplink_bytes: int
    downlink_bytes: int
    check: CheckEntry | None

    def __post_init__(self) -> None:
        _check_ranges(self)
        has = {"all-head": (True, False), "split": (True, True), "all-tail": (False, True)}[self.kind]
        if (self.head is not None, self.tail is not None) != has:
            raise ValueError(f"a cut of kind {self.kind} has the wrong parts")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle."""

    path: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a scheduler needs; bytes, seconds, bits per second.

    Attributes:
        side: whose files are there; one side's only in what was packed for it. Every cut is described all the same.
    """

    splitc_manifest: int
    generator: dict[str, str]
    direction: Literal["device-first"]
    model: ModelEntry
    targets: TargetsEntry
    box: BoxEntry
    regret: RegretEntry
    cuts: tuple[CutEntry, ...]
    files: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()
    side: Literal["both", "device", "cloud"] = "both"

    def __post_init__(self) -> None:
        if self.splitc_manifest != VERSION:
            raise ValueError(f"manifest version {self.splitc_manifest}, not {VERSION}")
        listed = {entry.path for entry in self.files}
        heads = {cut.head.file for cut in self.cuts if cut.head is not None and self.side != "cloud"}
        tails = {cut.tail.file for cut in self.cuts if cut.tail is not None and self.side != "device"}
        missing = sorted((heads | tails) - listed)
        if missing:
            raise ValueError(f"cuts refer to {missing[0]}, which is not among the files")
        if not self.cuts:
            raise ValueError("there are no cuts")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder and the manifest in it."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Where *file* of the manifest lies."""
        return self.folder / file

    @property
    def digest(self) -> str:
        """SHA-256 of what both sides must agree on: the same for the whole and for what was packed for one side."""
        facts: Any = encode(self.manifest)
        plain = json.dumps({key: facts[key] for key in facts if key not in ("files", "side")}, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest in *folder* and check every file's size and digest.

    Raises:
        BundleError: no manifest, another version, a file missing, changed or outside the folder.
    """
    manifest = _read_manifest(folder / MANIFEST)
    for entry in manifest.files:
        _check_file(folder, entry)
    return Bundle(folder, manifest)


def listed_files(folder: Path) -> set[str] | None:
    """Names of the files that the manifest in *folder*, of any version, lists; None if there is none."""
    try:
        value = json.loads((folder / MANIFEST).read_bytes())
        listed = {PurePosixPath(entry["path"]).parts[0] for entry in value["files"]}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return listed if "splitc_manifest" in value else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write *manifest* into *folder*; equal manifests give equal bytes."""
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def file_entry(folder: Path, path: str) -> FileEntry:
    """Describe the file at *path* inside *folder*."""
    target = folder / path
    return FileEntry(path, target.stat().st_size, _sha256(target))


def _read_manifest(path: Path) -> Manifest:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent}: not a bundle, there is no {MANIFEST} in it") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSON or UTF-8
        raise BundleError(f"{path}: not JSON: {error}; compile the bundle again") from error
    version = value.get("splitc_manifest") if isinstance(value, dict) else None
    if version != VERSION:
        raise BundleError(
            f"{path}: manifest version {version!r}, but this splitc reads version {VERSION}; compile the bundle again"
        )
    try:
        return decode(Manifest, value, str(path))
    except RecordError as error:
        raise BundleError(str(error)) from error


def _check_file(folder: Path, entry: FileEntry) -> None:
    target = folder / entry.path
    if not _is_inside(folder, entry.path):
        raise BundleError(f"{folder}: the manifest names a file outside the bundle: '{entry.path}'")
    if not target.is_file():
        raise BundleError(f"{folder}: '{entry.path}' is missing; copy or compile the bundle again")
    if target.stat().st_size != entry.bytes:
        raise BundleError(
            f"{folder}: '{entry.path}' has {target.stat().st_size} bytes instead of {entry.bytes}; "
            "copy or compile the bundle again"
        )
    if _sha256(target) != entry.sha256:
        raise BundleError(
            f"{folder}: '{entry.path}' was changed (SHA-256 differs); copy or compile the bundle again"
        )


def _is_inside(folder: Path, path: str) -> bool:
    parts = PurePosixPath(path)
    try:
        target = (folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
        return False
    return not parts.is_absolute() and ".." not in parts.parts and target.is_relative_to(folder.resolve())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
