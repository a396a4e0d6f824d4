"""Unpacks a bundle from a .zip file, once, into a folder that is named after the digest of the file."""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from splitc.bundle.folder import Bundle, read_bundle
from splitc.common.errors import BundleError

# Weights hardly compress: a file that grows by more than this factor is not a bundle.
_MAX_GROWTH = 100
_ALWAYS_ALLOWED_BYTES = 1 << 24
_CHUNK_BYTES = 1 << 20
_PREFIX = ".unpacking-"
_PATIENCE_S = 600
_PAUSE_S = 0.05


def unpacked(archive: Path, cache_folder: Path | None = None) -> Bundle:
    """Unpack *archive* below *cache_folder* (None: the user's cache folder) if necessary, and read the bundle.

    Raises:
        BundleError: *archive* is not a .zip file of a bundle, holds unsafe entries, or cannot be unpacked there.
    """
    parent = cache_folder if cache_folder is not None else _user_folder() / "bundles"
    try:
        folder = parent / _sha256(archive)
        with suppress(BundleError):  # not there, or changed: it is unpacked again
            return read_bundle(folder)
        parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(parent) as is_alone:
            with suppress(BundleError):  # another process may have unpacked it meanwhile
                return read_bundle(folder)
            if is_alone:
                _remove_leftovers(parent)
            with tempfile.TemporaryDirectory(
                prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True
            ) as staging:
                _unpack(archive, Path(staging) / "bundle")
                _move(Path(staging) / "bundle", folder, Path(staging) / "replaced")
        return read_bundle(folder)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise BundleError(
            f"{archive}: cannot be unpacked ({where}{error.strerror or error}); set cache_folder to a folder that can "
            "be written"
        ) from error


@contextmanager
def _alone_in(parent: Path) -> Iterator[bool]:
    """Let one process or thread at a time unpack into *parent*; yield whether this is certain.

    It is not on Windows, nor on a disk without locks. Then processes may unpack the same file at the same time, and
    the first one counts.
    """
    if sys.platform == "win32":
        yield False
        return
    lock = os.open(parent, os.O_RDONLY)
    try:
        yield _locked(lock, parent)
    finally:
        os.close(lock)


def _locked(lock: int, parent: Path) -> bool:
    import fcntl  # noqa: PLC0415 - Windows lacks it

    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until_s:
                raise BundleError(
                    f"{parent}: another process has been unpacking a bundle there for {_PATIENCE_S} s; end it, "
                    "or set cache_folder to another folder"
                ) from error
            time.sleep(_PAUSE_S)
        except OSError:
            return False
        else:
            return True


def _remove_leftovers(parent: Path) -> None:
    """Remove what processes left behind that were killed: only one at a time unpacks."""
    for path in parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        opened = zipfile.ZipFile(archive)
    except OSError:
        raise
    except Exception as error:
        raise _damaged(archive, error) from error
    with opened:
        _check(archive, opened.infolist())
        folder.mkdir()
        for entry in opened.infolist():
            path = folder / entry.filename
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, opened, entry, path)
    try:
        read_bundle(folder)
    except BundleError as error:
        raise BundleError(str(error).replace(str(folder), str(archive))) from error


def _extract(archive: Path, opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    with path.open("xb") as target, ExitStack() as stack:
        source = None
        while True:
            try:
                source = source or stack.enter_context(opened.open(entry))
                data = source.read(_CHUNK_BYTES)
            # Each format of compression has errors of its own, some of them plain OSError or MemoryError.
            except Exception as error:
                raise _damaged(archive, error) from error
            if not data:
                return
            target.write(data)


def _damaged(archive: Path, error: Exception) -> BundleError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return BundleError(
        f"{archive}: cannot be read as a .zip file ({reason}); copy it again or pack the bundle again"
    )


def _move(new: Path, folder: Path, old: Path) -> None:
    """Rename *new* to *folder*; what is there goes to *old*, unless it is the same bundle."""
    try:
        new.rename(folder)
    except OSError:
        with suppress(BundleError):  # another process was faster
            read_bundle(folder)
            return
        folder.rename(old)
        new.rename(folder)


def _check(archive: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse entries that no bundle contains, before anything is written."""
    seen: set[str] = set()
    total_bytes = 0
    allowed_bytes = _MAX_GROWTH * archive.stat().st_size + _ALWAYS_ALLOWED_BYTES
    for entry in entries:
        total_bytes += entry.file_size
        name = PurePosixPath(entry.filename).as_posix().casefold()
        if not _is_plain(entry) or name in seen:
            raise BundleError(
                f"{archive}: '{entry.filename}' does not belong in a bundle; do not trust this file"
            )
        if total_bytes > allowed_bytes:
            raise BundleError(
                f"{archive}: would unpack to over {allowed_bytes} bytes; do not trust this file"
            )
        seen.add(name)


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Tell whether *entry* is a file or folder that stays inside the target folder, on any system."""
    mode = entry.external_attr >> 16
    parts = (*PurePosixPath(entry.filename).parts, *PureWindowsPath(entry.filename).parts)
    outside = entry.filename.startswith("/") or PureWindowsPath(entry.filename).drive or ".." in parts
    is_usual = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
    return bool(parts) and not outside and "\\" not in entry.orig_filename and is_usual


def _user_folder() -> Path:
    """The user's cache folder for splitc."""
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "splitc"
    except RuntimeError as error:
        raise BundleError(
            "the home folder of this user is not known; set HOME, or cache_folder to a folder that can be written"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
