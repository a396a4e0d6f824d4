"""Open the cloud parts of some bundles, with one copy of the weights of each bundle."""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from splitc.bundle.decide import latency_s, middle_of
from splitc.bundle.folder import MANIFEST, WEIGHTS, Bundle, check_custom_ops, check_unchanged, read_bundle
from splitc.bundle.held import HeldFiles
from splitc.bundle.manifest import CutEntry, PartEntry
from splitc.bundle.pairing import pairing
from splitc.bundle.plain import stamps
from splitc.bundle.program import part_program, read_array
from splitc.bundle.stacking import stack
from splitc.common import ort
from splitc.common.custom_ops import CustomOps
from splitc.common.errors import BundleError, ModelError, RuntimeFailure
from splitc.common.formatting import format_bytes
from splitc.common.values import Array, Feeds
from splitc.server.tails.files import CloudFile, cloud_files, in_cloud
from splitc.server.tails.part import File, Series, ServedPart
from splitc.server.tails.prepare import Prepared, Settings, prepare
from splitc.server.tails.sessions import Sessions, TooLarge
from splitc.server.tails.signature import NotOffered, declared, recorded

if TYPE_CHECKING:
    from onnxruntime import GraphOptimizationLevel, InferenceSession

Say = Callable[[str], None]


def open_parts(
    folders: Sequence[Path],
    *,
    threads: int,
    max_batch: int,
    memory_limit_bytes: int | None,
    cache_folder: Path,
    say: Say,
    custom_ops: Sequence[CustomOps] = (),
    known: Sequence[ServedPart] = (),
) -> tuple[ServedPart, ...]:
    """Open the cloud parts of the cuts of the bundles in *folders*, in the order of their manifests.

    Bundles may be of one model, built for other devices or at other times. A part that computes the same as one that is
    open already, in *known* or of an earlier bundle, is not opened again.

    Under a limit of memory, the files of the parts that are best on a middling link are open from the start, as many
    as fit; others are opened when they are asked for, in the place of those that were not used for longest.
    What counts is by how much the memory of this process has grown since the call, a page that other
    processes map too counting in part; each file has then run once, the largest batch. What the
    preparation of files takes before that is not limited.

    Args:
        custom_ops: libraries of custom operators that the bundles need.
        say: told what is prepared, which files do not stay open, which parts are not offered, and why.

    Raises:
        BundleError: a bundle is damaged, packed for the device, or rebuilt meanwhile.
        ModelError: ONNX Runtime refuses a file.
        RuntimeFailure: there is nothing to serve, or nothing fits.
        OSError: the cache folder cannot be written.
    """
    ort.use_custom_ops(custom_ops)
    bundles = [_read(folder) for folder in folders]
    for bundle in bundles:
        check_custom_ops(bundle, ort.used_custom_ops(), "--custom-ops")
    settings = Settings(threads, max_batch)
    sessions = Sessions(memory_limit_bytes, say)
    found = {part.pairing: part for part in known}
    names = {part.model for part in known}
    openings: list[_Opening] = []
    for bundle, cuts in _new_cuts(bundles, found):
        folder, prepared = prepare(bundle, cuts, cache_folder, settings, say)
        label = _free_label(bundle, names | {item.label for item in openings})
        openings.append(_Opening(bundle, cuts, label, folder, prepared, threads, sessions))
    for files in zip_longest(*(opening.wanted() for opening in openings)):
        for opening, file in zip(openings, files, strict=True):
            if file is not None:
                opening.open(file)
    offered, reasons = _offered(openings, say)
    found |= {part.pairing: part for part in offered}
    for bundle in bundles:
        check_unchanged(bundle)
    parts = tuple(
        replace(found[key], model=bundle.manifest.model.name, cut=cut)
        for bundle in bundles
        for cut in in_cloud(bundle)
        if (key := pairing(bundle.manifest, cut)) in found
    )
    if not parts:
        raise RuntimeFailure(_verdict(openings, reasons, memory_limit_bytes))
    return parts


def bundle_folders(path: Path) -> tuple[Path, ...]:
    """*path*, if it is a bundle, or the bundles in it, those that were built last first; hidden folders do not count.

    Raises:
        BundleError: there is none.
    """
    if (path / MANIFEST).exists() or not path.is_dir():
        return (path,)
    found = [
        folder
        for folder in path.iterdir()
        if not folder.name.startswith(".") and (folder / MANIFEST).is_file()  # hidden: being written
    ]
    if not found:
        raise BundleError(f"{path}: not a bundle, and no folder of bundles: there is no {MANIFEST} in it")
    return tuple(sorted(found, key=lambda folder: (-(folder / MANIFEST).stat().st_mtime_ns, folder.name)))


def _read(folder: Path) -> Bundle:
    bundle = read_bundle(folder)
    if bundle.manifest.side == "device":
        raise BundleError(f"{folder}: holds only what the device needs; pack it again with --side cloud")
    return bundle


def _new_cuts(
    bundles: Iterable[Bundle], known: Container[str]
) -> Iterator[tuple[Bundle, tuple[CutEntry, ...]]]:
    """The bundles that have cuts that compute something else than what is *known* and earlier bundles; and these cuts."""
    seen: set[str] = set()
    for bundle in bundles:
        cuts = []
        for cut in in_cloud(bundle):
            key = pairing(bundle.manifest, cut)
            if key not in known and key not in seen:
                seen.add(key)
                cuts.append(cut)
        if cuts:
            yield bundle, tuple(cuts)


def _free_label(bundle: Bundle, taken: Container[str]) -> str:
    """What metrics call the model of *bundle*: by its digest too, if another bundle has the name."""
    name = bundle.manifest.model.name
    return name if name not in taken else f"{name}@{bundle.digest[:8]}"


def _offered(openings: Iterable["_Opening"], say: Say) -> tuple[list[ServedPart], list[str]]:
    """The parts that can be served, and why others cannot."""
    parts: list[ServedPart] = []
    reasons: list[str] = []
    for opening in openings:
        for cut in opening.cuts:
            try:
                parts.append(opening.part(cut))
            except NotOffered as reason:
                reasons.append(f"{opening.bundle.manifest.model.name}.{cut.id} is not offered: {reason}")
                say(reasons[-1])
    return parts, reasons


def _verdict(openings: Sequence["_Opening"], reasons: Sequence[str], limit_bytes: int | None) -> str:
    """Why there is no part at all, *reasons* being those of each."""
    needs_bytes = [item.needs_bytes for opening in openings for item in opening.too_large.values()]
    if limit_bytes is not None and needs_bytes:
        return (
            f"no part fits into {format_bytes(limit_bytes)}: each has a file that takes "
            f"{format_bytes(min(needs_bytes))} or more; allow more with --memory-limit"
        )
    return f"there is nothing to serve: {reasons[0] if reasons else 'all cuts run on the device alone'}"


class _Opening:
    """The open files of some cuts of one bundle; *label* is what metrics call its model."""

    def __init__(
        self,
        bundle: Bundle,
        cuts: tuple[CutEntry, ...],
        label: str,
        folder: Path,
        prepared: Prepared,
        threads: int,
        sessions: Sessions,
    ) -> None:
        self.bundle = bundle
        self.cuts = cuts
        self.label = label
        self.too_large: dict[str, TooLarge] = {}
        self._folder = folder
        self._threads = threads
        self._sessions = sessions
        self._prepared = {item.file: item for item in prepared.models}
        self._held = HeldFiles(
            folder,
            prepared.files,
            stamps(folder, (entry.path for entry in prepared.files)),
            "restart the server",
        )
        self._described = {item.file: item for item in cloud_files(bundle, cuts)}
        self._files: dict[str, File] = {}
        self._arrays: dict[str, Array] = {}

    def wanted(self) -> tuple[str, ...]:
        """Every file, those that will probably be asked for most first: of the cuts that are best on a middling link."""
        conditions = middle_of(self.bundle.manifest.box)
        cuts = sorted(self.cuts, key=lambda cut: latency_s(cut, conditions))
        return tuple(dict.fromkeys(file for cut in cuts for file in _calls(cut)))

    def open(self, file: str) -> None:
        """Open *file*, or note that it is too large."""
        item = self._prepared[file]
        level = ort.UNCHANGED if item.optimised else ort.FASTEST
        opening = partial(self._session, file, level)
        requests = item.max_batch if self._sessions.are_limited else 1
        try:
            run = self._sessions.add(
                self._file_name(file), opening, _together(self._described[file], requests)
            )
        except TooLarge as error:
            self.too_large[file] = error.with_traceback(None)  # which would keep its session
        else:
            self._files[file] = File(self._file_name(file), item.max_batch, run, item.run_s)

    def _session(self, file: str, level: "GraphOptimizationLevel") -> "InferenceSession":
        with self._held.opening(file, WEIGHTS):
            return ort.session(self._folder / file, threads=self._threads, level=level)

    def _file_name(self, file: str) -> str:
        """That of the part that is this file, or else its own."""
        alone = (cut for cut in self.cuts if _cloud(cut).file == file)
        cut = next(alone, None)
        return f"{self.label}.{cut.id}" if cut is not None else f"{self.label}/{file}"

    def part(self, cut: CutEntry) -> ServedPart:
        """The cloud part of *cut*.

        Raises:
            NotOffered: it is too large, or something else than tensors crosses.
        """
        calls = _calls(cut)
        too_large = next((self.too_large[file] for file in calls if file in self.too_large), None)
        if too_large is not None:
            raise NotOffered(too_large)
        file = _cloud(cut).file
        if file is not None:
            inputs, outputs = declared(self.bundle, cut, file)
            runs: File | Series = self._files[file]
        else:
            runs = self._series(cut, calls)
            inputs, outputs = recorded(self.bundle, cut, runs.program.makes or ())
        manifest = self.bundle.manifest
        found = pairing(manifest, cut)
        return ServedPart(manifest.model.name, self.bundle.digest, found, cut, inputs, outputs, runs)

    def _series(self, cut: CutEntry, calls: Mapping[str, int]) -> Series:
        part = _cloud(cut)
        outputs = [entry.name for entry in self.bundle.manifest.model.outputs]
        files = {file: self._files[file] for file in calls}
        arrays = [array for stage in part.program if stage.loop for array in stage.loop.each.values()]
        for array in arrays:
            if array not in self._arrays:
                self._arrays[array] = read_array(self.bundle, array)
        return Series(
            part_program(cut, part, outputs),
            files,
            {array: self._arrays[array] for array in arrays},
            calls,
            files[_slowest(files, calls)].max_batch,
        )


def _cloud(cut: CutEntry) -> PartEntry:
    assert cut.cloud is not None, "the cloud has no part in all-head"
    return cut.cloud


def _calls(cut: CutEntry) -> Counter[str]:
    """How often the cloud runs each file for *cut*, in the order of their first runs."""
    calls: Counter[str] = Counter()
    for stage in _cloud(cut).program:
        times = stage.loop.end - stage.loop.first if stage.loop is not None else 1
        for call in stage.calls:
            calls[call.file] += times
    return calls


def _slowest(files: Mapping[str, File], calls: Mapping[str, int]) -> str:
    """The file that takes most of the time; a file of unknown time counts as the slowest."""

    def total_s(file: str) -> float:
        alone_s = files[file].alone_s
        return math.inf if alone_s is None else calls[file] * alone_s

    return max(files, key=total_s)


def _together(file: CloudFile, requests: int) -> Feeds | None:
    """A batch of made-up requests; None if no request can be made up."""
    try:
        return stack([file.made_up()] * requests)
    except ModelError:
        return None
