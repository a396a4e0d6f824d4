"""Write the part of a bundle that one side needs, as a zip file, a folder or a model repository for Triton."""

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from splitc.bundle.folder import MANIFEST, Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import CutEntry, PartEntry, part_files
from splitc.bundle.plain import open_plain
from splitc.bundle.stacking import has_batch, separates, trial
from splitc.bundle.staging import new_folder, place_of
from splitc.bundle.triton import config
from splitc.bundle.weights import Span, collect, covers, load, load_part, spans
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError

Side = Literal["device", "cloud"]
# The time of every zip member: the earliest that the format can hold.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_ZIP_MODE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3
_MODEL = ".onnx"
_ORIGIN = "Written by splitc pack"
# Triton does not wait for further requests, so a larger limit costs nothing where it has no benefit.
_TRITON_BATCH = 8


def pack(bundle_folder: Path, side: Side, output: Path) -> None:
    """Write the part of a bundle that *side* needs to *output*: a zip file if the name ends in .zip, else a folder.

    It contains the manifest, the ONNX files of that side, and the weights that they use. The same bundle always
    gives the same bytes.

    Raises:
        BundleError: the bundle is damaged or was packed for the other side, or *output* exists and is something else.
        ModelError: a file of the bundle is not an ONNX file.
        OSError: *output* cannot be written.
    """
    bundle = _read(bundle_folder, side)
    if output.suffix != ".zip":
        with new_folder(output, [bundle_folder]) as (staging, _):
            _fill(bundle, side, staging)
        return
    if os.path.lexists(output) and not _is_pack(output):
        raise BundleError(f"{output}: exists and is not a packed bundle; choose another name with -o")
    place = Path(os.path.realpath(output))
    with _beside(place) as work:
        content = work / "content"
        content.mkdir()
        _fill(bundle, side, content)
        _zip(content, work / place.name)
        (work / place.name).replace(place)


def pack_triton(bundle_folder: Path, output: Path) -> None:
    """Write the tails of a bundle as a model repository for Triton and KServe, the folder *output*.

    Raises:
        BundleError: the bundle is damaged or was packed for the device, or *output* contains other files.
        ModelError: a tail has inputs or outputs that Triton's ONNX Runtime backend does not support.
        OSError: *output* cannot be written.
    """
    bundle = _read(bundle_folder, "cloud")
    _refuse_to_overwrite(output)
    output = place_of(output, [bundle_folder])
    with _beside(output) as work:
        files, repository = work / "files", work / "repository"
        files.mkdir()
        repository.mkdir()
        _fill(bundle, "cloud", files)
        for cut in bundle.manifest.cuts:
            if cut.cloud is not None:
                _write_model(bundle, cut, files / _only_file(bundle, cut, cut.cloud), repository)
        if output.exists():
            output.rename(work / "replaced")
        repository.rename(output)


def _is_pack(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as opened:
            return MANIFEST in opened.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _read(folder: Path, side: Side) -> Bundle:
    bundle = read_bundle(folder)
    if bundle.manifest.side not in ("both", side):
        raise BundleError(
            f"{folder}: was packed for the {bundle.manifest.side}, and lacks what the {side} needs; "
            "pack the whole bundle"
        )
    return bundle


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """Yield a temporary folder on the disk of *output*; it is removed when the block ends."""
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".packing-") as work:
        yield Path(work)


def _fill(bundle: Bundle, side: Side, folder: Path) -> None:
    """Write the manifest of *side*, its ONNX files, and their weights."""
    parts = [cut.device if side == "device" else cut.cloud for cut in bundle.manifest.cuts]
    needed = {file for part in parts if part is not None for file in part_files(part)}
    models = {file: bundle.path(file) for file in sorted(needed) if file.endswith(_MODEL)}
    for file in needed - models.keys():
        _copy(bundle, file, folder)
    used = {span for file in models for span in spans(load_part(bundle, file))}
    if _use_all(bundle, used):
        for file in {*models, *(span.location for span in used)}:
            _copy(bundle, file, folder)
    else:
        collect(models.items(), folder)
    files = tuple(file_entry(folder, path.name) for path in sorted(folder.iterdir()))
    write_manifest(folder, replace(bundle.manifest, side=side, files=files))


def _copy(bundle: Bundle, file: str, folder: Path) -> None:
    with open_plain(bundle.folder, file) as source, (folder / file).open("xb") as target:
        shutil.copyfileobj(source, target)


def _use_all(bundle: Bundle, used: set[Span]) -> bool:
    """Return whether the files of weights contain only what is *used*."""
    return all(
        covers({span for span in used if span.location == file}, bundle.path(file).stat().st_size)
        for file in {span.location for span in used}
    )


def _zip(folder: Path, target: Path) -> None:
    """Zip *folder* without compression, because weights hardly shrink and members can then be read in place."""
    with zipfile.ZipFile(target, "w") as out:
        for path in sorted(folder.iterdir()):
            member = zipfile.ZipInfo(path.name, _ZIP_TIME)
            member.external_attr = _ZIP_MODE
            member.create_system = _UNIX
            member.file_size = path.stat().st_size  # decides whether the zip uses the format for large files
            with path.open("rb") as source, out.open(member, "w") as sink:
                shutil.copyfileobj(source, sink)


# --- Triton ---


def _write_model(bundle: Bundle, cut: CutEntry, tail: Path, repository: Path) -> None:
    """Write the folder of one tail: its configuration, and in folder 1 (version 1) the model and its own weights.

    Tails do not share a file of weights: onnx refuses hard links and links, ONNX Runtime other folders.
    ONNX Runtime gets the path of the model and looks for weights in the same folder. Triton's documentation
    puts a model of several files into a folder named model.onnx instead. Triton's code (onnxruntime_backend,
    src/onnxruntime.cc, LoadModel) accepts both forms; other servers accept only the form used here.
    """
    name = f"{bundle.manifest.model.name}.{cut.id}"
    if Path(name).name != name:
        raise BundleError(
            f"{bundle.folder}: '{name}' cannot be the name of a folder; compile the bundle again"
        )
    proto = load(tail)
    given = {entry.name for entry in cut.sent}
    text = config(
        name,
        [port for port in proto.graph.input if port.name in given],
        proto.graph.output,
        max_batch=_TRITON_BATCH if has_batch(proto) and _separates(bundle, cut, tail) else 0,
        origin=f"{_ORIGIN}, bundle {bundle.digest}",
    )
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(text, encoding="utf-8")
    collect([("model.onnx", tail)], version)


def _only_file(bundle: Bundle, cut: CutEntry, part: PartEntry) -> str:
    if part.file is None:
        raise BundleError(
            f"{bundle.folder}: the cloud's part of cut {cut.id} runs several models in turn, which a repository "
            "of single models cannot express; serve the bundle with splitc serve"
        )
    return part.file


def _separates(bundle: Bundle, cut: CutEntry, tail: Path) -> bool:
    """Return whether Triton may run several requests as one batch; a symbolic first axis alone is not enough."""
    try:
        tried = trial(tail, cut, bundle.manifest.model.dims, threads=0)
        return separates(ort.session(tail), tried)
    except ModelError:
        return False


def _refuse_to_overwrite(output: Path) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or not all(_is_ours(path) for path in output.iterdir()):
        raise BundleError(
            f"{output}: holds files that splitc pack did not write; choose another folder with -o"
        )


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / "config.pbtxt").read_text(encoding="utf-8").startswith(f"# {_ORIGIN}")
    except (OSError, ValueError):
        return False
