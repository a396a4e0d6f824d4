"""Open the cloud parts of some bundles, with one copy of the weights of each bundle."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from splitc.bundle.decide import latency_s, middle_of
from splitc.bundle.folder import WEIGHTS, Bundle, check_unchanged, read_bundle
from splitc.bundle.held import HeldFiles
from splitc.bundle.manifest import CutEntry, PartEntry
from splitc.bundle.plain import stamps
from splitc.bundle.program import part_program, read_array
from splitc.bundle.stacking import stack
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError, RuntimeFailure
from splitc.common.formatting import format_bytes
from splitc.common.values import Array, Feeds
from splitc.server.tails.files import CloudFile, cloud_files
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
) -> tuple[ServedPart, ...]:
    """Open the cloud parts of the cuts of the bundles in *folders*, in the order of their manifests.

    Under a limit of memory, the files of the parts that are best on a middling link are open from the start, as many
    as fit; others are opened when they are asked for, in the place of those that were not used for longest.
    What counts is by how much the memory of this process has grown since the call, a page that other
    processes map too counting in part; each file has then run once, the largest batch. What the
    preparation of files takes before that is not limited.

    Args:
        say: told what is prepared, which files do not stay open, which parts are not offered, and why.

    Raises:
        BundleError: a bundle is damaged, packed for the device, rebuilt meanwhile, or of the same model as another one.
        ModelError: ONNX Runtime refuses a file.
        RuntimeFailure: there is nothing to serve, or nothing fits.
        OSError: the cache folder cannot be written.
    """
    bundles = [_read(folder) for folder in folders]
    _refuse_namesakes(bundles)
    settings = Settings(threads, max_batch)
    prepared = [prepare(bundle, cache_folder, settings, say) for bundle in bundles]
    sessions = Sessions(memory_limit_bytes, say)
    openings = [
        _Opening(bundle, folder, found, threads, sessions)
        for bundle, (folder, found) in zip(bundles, prepared, strict=True)
    ]
    for files in zip_longest(*(opening.wanted() for opening in openings)):
        for opening, file in zip(openings, files, strict=True):
            if file is not None:
                opening.open(file)
    parts: list[ServedPart] = []
    reasons: list[str] = []
    for opening in openings:
        for cut in _in_cloud(opening.bundle):
            try:
                parts.append(opening.part(cut))
            except NotOffered as reason:
                reasons.append(f"{opening.name(cut)} is not offered: {reason}")
                say(reasons[-1])
    for bundle in bundles:
        check_unchanged(bundle)
    if not parts:
        raise RuntimeFailure(_verdict(openings, reasons, memory_limit_bytes))
    return tuple(parts)


def _read(folder: Path) -> Bundle:
    bundle = read_bundle(folder)
    if bundle.manifest.side == "device":
        raise BundleError(f"{folder}: holds only what the device needs; pack it again with --side cloud")
    return bundle


def _refuse_namesakes(bundles: Iterable[Bundle]) -> None:
    folders: dict[str, Path] = {}
    for bundle in bundles:
        name = bundle.manifest.model.name
        if name in folders:
            raise BundleError(
                f"{bundle.folder}: its model is called '{name}', as the one in {folders[name]}, so clients could "
                "not tell them apart; serve one of them"
            )
        folders[name] = bundle.folder


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
    """The open files of one bundle."""

    def __init__(
        self, bundle: Bundle, folder: Path, prepared: Prepared, threads: int, sessions: Sessions
    ) -> None:
        self.bundle = bundle
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
        self._described = {item.file: item for item in cloud_files(bundle)}
        self._files: dict[str, File] = {}
        self._arrays: dict[str, Array] = {}

    def name(self, cut: CutEntry) -> str:
        """The name of the cloud part of *cut* for clients."""
        return f"{self.bundle.manifest.model.name}.{cut.id}"

    def wanted(self) -> tuple[str, ...]:
        """Every file, those that will probably be asked for most first: of the cuts that are best on a middling link."""
        conditions = middle_of(self.bundle.manifest.box)
        cuts = sorted(_in_cloud(self.bundle), key=lambda cut: latency_s(cut, conditions))
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
        alone = (cut for cut in _in_cloud(self.bundle) if _cloud(cut).file == file)
        cut = next(alone, None)
        return self.name(cut) if cut is not None else f"{self.bundle.manifest.model.name}/{file}"

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
        return ServedPart(self.name(cut), self.bundle.digest, cut, inputs, outputs, runs)

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


def _in_cloud(bundle: Bundle) -> tuple[CutEntry, ...]:
    return tuple(cut for cut in bundle.manifest.cuts if cut.cloud is not None)


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
