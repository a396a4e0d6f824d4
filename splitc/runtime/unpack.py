"""Unpacks a bundle from a .zip file, once, into a folder that is named after the digest of the file."""

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

# Weights hardly compress: a file that grows by more than this factor is not a bundle.
_MAX_GROWTH = 100
_ALWAYS_ALLOWED_BYTES = 1 << 24


def unpacked(archive: Path, cache_folder: Path | None = None) -> Bundle:
    """Unpack *archive* below *cache_folder* (None: the user's cache folder) if necessary, and read the bundle.

    Raises:
        BundleError: *archive* is not a .zip file of a bundle, holds unsafe entries, or cannot be unpacked there.
    """
    parent = cache_folder if cache_folder is not None else _user_folder() / "bundles"
    try:
        folder = parent / _sha256(archive)
        if folder.is_dir():
            try:
                return read_bundle(folder)
            except BundleError:  # the folder was changed; unpack it again
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
            f"{archive}: cannot be unpacked ({where}{error.strerror or error}); set cache_folder to a folder that can "
            "be written"
        ) from error


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            _check(archive, opened.infolist())
            opened.extractall(folder)
    # zipfile raises RuntimeError for encrypted files, and passes on the errors of the compression formats.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"{archive}: cannot be read as a .zip file ({error}); copy it again or pack the bundle again"
        ) from error
    try:
        read_bundle(folder)
    except BundleError as error:
        raise BundleError(str(error).replace(str(folder), str(archive))) from error


def _move(new: Path, folder: Path) -> None:
    """Rename *new* to *folder*, unless another process has put the same folder there first."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _check(archive: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse entries that no bundle contains, before anything is written."""
    seen: set[str] = set()
    total_bytes = 0
    allowed_bytes = _MAX_GROWTH * archive.stat().st_size + _ALWAYS_ALLOWED_BYTES
    for entry in entries:
        total_bytes += entry.file_size
        if not _is_plain(entry) or entry.filename in seen:
            raise BundleError(
                f"{archive}: '{entry.filename}' does not belong in a bundle; do not trust this file"
            )
        if total_bytes > allowed_bytes:
            raise BundleError(
                f"{archive}: would unpack to over {allowed_bytes} bytes; do not trust this file"
            )
        seen.add(entry.filename)


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Tell whether *entry* is a file or folder that stays inside the target folder, on any system."""
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
