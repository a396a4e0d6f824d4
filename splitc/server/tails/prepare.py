"""ONNX files as this machine runs them best: optimised once, on one file of weights, kept in a cache folder.

A session that optimises for itself holds weights of its own: as loaded, and as its kernels want them.
What ONNX Runtime saves after that (fused graph, reordered convolution weights, packed matrices) is only
mapped when a session opens, so that all sessions share the pages of one file. Measured with ONNX Runtime
1.32 on two cores: memory that is not mapped from files, after one run of each tail.

                                              3 tails of RegNetY-400MF    3 of 8 layers of 1024 x 1024
                                              (17 MB): open, memory       (34 MB): open, memory, batch of 8
    each session optimises                    125 ms   62 MB              112 ms   87 MB    2.3 ms
    saved, matrices packed when opened        123 ms   24 MB              110 ms   87 MB    2.3 ms
    saved, session.disable_prepacking          17 ms   19 MB                9 ms    3 MB   10.1 ms
    saved with the packed matrices (here)      22 ms   19 MB               90 ms    6 MB    2.2 ms

What is left is the graph and each session's own room for activations. Packing costs disk (the file holds
both forms) and is still done once while a session opens, to find out which saved form it is.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Imported before ONNX Runtime itself, to switch its telemetry off.
from splitc.common import ort

# isort: split

from splitc.bundle.folder import WEIGHTS, Bundle, check_unchanged, file_entry
from splitc.bundle.manifest import CutEntry, FileEntry
from splitc.bundle.stacking import (
    Trial,
    agrees,
    give_batch,
    has_batch,
    separates,
    time_alone,
    time_batches,
    trial_for,
)
from splitc.bundle.weights import collect, load
from splitc.common.errors import ModelError
from splitc.common.records import RecordError, decode, encode
from splitc.server.tails.files import CloudFile, cloud_files, in_cloud

_INDEX = "prepared.json"
_SAVED = "saved.onnx"
_VERSION = 3  # of what is kept, and of how it is made
_INLINE_BYTES = 1024

BatchTimes = tuple[tuple[int, float], ...]
"""Median seconds of a run by batch size, of the sizes that were tried, smallest first."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What files are prepared for: threads of a run, and how many requests may at most run as one."""

    threads: int
    max_batch: int


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """An ONNX file in the cache, under its name in the bundle.

    Attributes:
        optimised: False where the optimised form cannot be saved: it is then optimised each time it is opened.
        max_batch: how many requests may run as one; 1 where none can, or it does not pay.
        run_s: empty where no request could be made up.
    """

    file: str
    optimised: bool
    max_batch: int
    run_s: BatchTimes


@dataclass(frozen=True, slots=True)
class Prepared:
    """Every ONNX file that the cloud runs of a bundle, and what they lie in."""

    models: tuple[PreparedFile, ...]
    files: tuple[FileEntry, ...]


def batch_times(
    bundle: Bundle, cache_folder: Path, settings: Settings, say: Callable[[str], None]
) -> dict[str, BatchTimes]:
    """What batches of each ONNX file that the cloud runs of *bundle* take on this machine, up to the largest that pays.

    As `splitc serve` measures it, and from its cache where it has. A file that must run alone has the time of
    one request; one for which no request can be made up is not there.

    Raises:
        ModelError, OSError: see `prepare`.
    """
    _, prepared = prepare(bundle, in_cloud(bundle), cache_folder, settings, say)
    return {
        item.file: tuple((size, run_s) for size, run_s in item.run_s if size <= item.max_batch)
        for item in prepared.models
        if item.run_s
    }


def prepare(
    bundle: Bundle,
    cuts: Sequence[CutEntry],
    cache_folder: Path,
    settings: Settings,
    say: Callable[[str], None],
) -> tuple[Path, Prepared]:
    """Return where what the cloud runs of *cuts* of *bundle* lies prepared for this machine; it is prepared if it is not.

    Raises:
        ModelError: ONNX Runtime refuses a file.
        BundleError: a file was changed after *bundle* was read.
        OSError: the cache folder cannot be written.
    """
    wanted = cloud_files(bundle, cuts)
    key = [
        _VERSION,
        encode(wanted),
        _contents(bundle, wanted),
        ort.RUNTIME_VERSION,
        _processor(),
        encode(settings),
    ]
    folder = cache_folder / "files" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    with _lock(folder):
        found = _read(folder)
        if found is None:
            say(f"Preparing what the cloud runs of {bundle.manifest.model.name} for this machine, once")
            found = _write(folder, bundle, wanted, settings)
    return folder, found


def _contents(bundle: Bundle, wanted: Sequence[CloudFile]) -> list[str]:
    """Digests of the files and of their weights: what was packed from a bundle may hold fewer of these."""
    names = {WEIGHTS, *(item.file for item in wanted)}
    return [entry.sha256 for entry in bundle.manifest.files if entry.path in names]


def _processor() -> str:
    """What the saved form depends on: the processor's model, and the instructions that it offers."""
    wanted = {
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "flags",
        "CPU implementer",
        "CPU part",
        "Features",
    }
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    return "\n".join(line for line in first.splitlines() if line.split(":")[0].strip() in wanted)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time look at *folder*: the others then find what the first prepared."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> Prepared | None:
    """What lies in *folder*; None if it is not there, or not as it was written."""
    try:
        found = decode(Prepared, json.loads((folder / _INDEX).read_bytes()), str(folder))
        whole = all(file_entry(folder, entry.path) == entry for entry in found.files)
    except (OSError, ValueError, RecursionError, RecordError):
        return None
    return found if whole else None


def _write(folder: Path, bundle: Bundle, wanted: Sequence[CloudFile], settings: Settings) -> Prepared:
    """Prepare in a folder beside *folder*, which then takes its place."""
    partial, scratch = folder.with_suffix(".partial"), folder.with_suffix(".scratch")
    models: list[PreparedFile] = []

    def sources() -> Iterator[tuple[str, Path]]:
        for item in wanted:
            with _empty(scratch):  # one at a time: each may be as large as the model
                prepared, path = _prepare_file(item, bundle.path(item.file), scratch, settings)
                models.append(prepared)
                yield item.file, path

    with _empty(partial):
        collect(sources(), partial)
        files = tuple(file_entry(partial, path.name) for path in sorted(partial.iterdir()))
        found = Prepared(tuple(models), files)
        check_unchanged(
            bundle
        )  # else the cache would keep parts of another bundle under the name of this one
        (partial / _INDEX).write_text(json.dumps(encode(found), indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # damaged, else it would have been used
        partial.rename(folder)
    return found


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """Make *folder*, without what a killed process left in it; remove it at the end, if it is still there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare_file(
    item: CloudFile, source: Path, scratch: Path, settings: Settings
) -> tuple[PreparedFile, Path]:
    """Return the fastest equivalent form of a file, and its path."""
    try:
        tried = trial_for(source, item.inputs, item.dims, settings.threads, item.tolerance)
    except (
        ModelError
    ):  # no values can be made up for it: then one request at a time, as ONNX Runtime saves it
        tried = None
    run_s: BatchTimes = ()
    if tried is not None and settings.max_batch > 1:
        path, max_batch, run_s = _batched(source, scratch / "batched", tried, settings)
        if path is not None and max_batch > 1:
            return PreparedFile(item.file, optimised=True, max_batch=max_batch, run_s=run_s), path
    path = _saved(source.read_bytes(), source.parent, scratch / "alone", tried, settings.threads)
    if tried is not None:
        level = ort.UNCHANGED if path is not None else ort.FASTEST
        opened = ort.session(path or source, threads=settings.threads, level=level)
        run_s = run_s or ((1, time_alone(opened, tried)),)
    alone = PreparedFile(item.file, optimised=path is not None, max_batch=1, run_s=run_s)
    return alone, path if path is not None else source


def _batched(
    source: Path, folder: Path, tried: Trial, settings: Settings
) -> tuple[Path | None, int, BatchTimes]:
    """A form that takes several requests as one, how many pay, and what was timed; (None, 1, ()) if there is none."""
    proto = load(source)
    if not (has_batch(proto) or give_batch(proto)):
        return None, 1, ()
    path = _saved(proto.SerializeToString(), source.parent, folder, tried, settings.threads)
    if path is None:
        return None, 1, ()
    opened = ort.session(path, threads=settings.threads, level=ort.UNCHANGED)
    if not separates(opened, tried):
        return None, 1, ()
    return path, *time_batches(opened, tried, settings.max_batch)


def _saved(model: bytes, beside: Path, folder: Path, tried: Trial | None, threads: int) -> Path | None:
    """Where *model* lies optimised, in *folder*; None where that cannot be saved or does something else."""
    folder.mkdir()
    try:
        path = _optimise(model, beside, folder, threads)
        opened = ort.session(path, threads=threads, level=ort.UNCHANGED)
        works = tried is None or agrees(opened, tried)
    except ModelError:
        return None
    return path if works else None


def _optimise(model: bytes, beside: Path, folder: Path, threads: int) -> Path:
    """Have ONNX Runtime write *model*, whose weights lie in *beside*, as it would run it here."""
    saved = folder / _SAVED
    ort.save_optimized(
        model, saved, weights=WEIGHTS, least_bytes=_INLINE_BYTES, external_folder=beside, threads=threads
    )
    return saved
