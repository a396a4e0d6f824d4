"""A bundle that comes as one .zip: unpacked once, into a folder named after what is in it."""

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from splitc.bundle.folder import Bundle, read_bundle
from splitc.common.errors import BundleError

# Weights hardly shrink; what grows so many times over is no bundle.
_MAX_GROWTH = 100
_ALWAYS_ALLOWED_BYTES = 1 << 24


def unpacked(archive: Path, cache_folder: Path | None = None) -> Bundle:
    """The bundle in *archive*, read from a folder below *cache_folder*; that of the user if None.

    Raises:
        BundleError: it is no .zip, holds no bundle or what no bundle holds, or cannot be unpacked there.
    """
    parent = cache_folder if cache_folder is not None else _user_folder() / "bundles"
    try:
        folder = parent / _sha256(archive)
        if folder.is_dir():
            try:
                return read_bundle(folder)
            except BundleError:  # changed since; the archive still holds the right one
                shutil.rmtree(folder)
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".splitc-", dir=parent, ignore_cleanup_errors=True
        ) as staging:
            _unpack(archive, Path(staging) / "bundle")
            _move(Path(staging) / "bundle", folder)
        return read_bundle(folder)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise BundleError(
            f"{archive}: cannot be unpacked ({where}{error.strerror or error}); name a folder that can be written "
            "with cache_folder"
        ) from error


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            _check(archive, opened.infolist())
            opened.extractall(folder)
    # zipfile says RuntimeError of encrypted files, and lets the errors of the formats inside through.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"{archive}: cannot be read as .zip ({error}); copy it again or pack the bundle again"
        ) from error
    try:
        read_bundle(folder)
    except BundleError as error:
        raise BundleError(str(error).replace(str(folder), str(archive))) from error


def _move(new: Path, folder: Path) -> None:
    """Rename *new* to *folder*; another process that was faster put the same there."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _check(archive: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse what no bundle holds, before anything is written."""
    seen: set[str] = set()
    total_bytes = 0
    allowed_bytes = _MAX_GROWTH * archive.stat().st_size + _ALWAYS_ALLOWED_BYTES
    for entry in entries:
        total_bytes += entry.file_size
        if not _is_plain(entry) or entry.filename in seen:
            raise BundleError(f"{archive}: '{entry.filename}' in it is no file of a bundle; do not trust it")
        if total_bytes > allowed_bytes:
            raise BundleError(f"{archive}: would unpack to over {allowed_bytes} bytes; do not trust it")
        seen.add(entry.filename)


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Whether it is a file or folder that stays where it is put, on any system."""
    mode = entry.external_attr >> 16
    parts = (*PurePosixPath(entry.filename).parts, *PureWindowsPath(entry.filename).parts)
    outside = entry.filename.startswith("/") or PureWindowsPath(entry.filename).drive or ".." in parts
    return bool(parts) and not outside and "\\" not in entry.orig_filename and not stat.S_ISLNK(mode)


def _user_folder() -> Path:
    """The user's cache folder for splitc."""
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(given) if given else Path.home() / ".cache") / "splitc"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
