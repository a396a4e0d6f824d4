"""Open the files of a bundle: only regular files inside its folder, never what a link points to."""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

from splitc.common.errors import BundleError

# Without O_NONBLOCK, opening a FIFO waits for a writer. Windows has neither flag, and needs O_BINARY.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file this is, and when it was last changed, as the file system tells it."""

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @staticmethod
    def of(found: os.stat_result) -> "Stamp":
        """Return the stamp of the file that *found* describes."""
        return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def open_plain(folder: Path, path: str) -> BufferedReader:
    """Open the regular file *path* inside *folder* for reading. *folder* itself may be a link.

    Raises:
        BundleError: *path* leaves the folder, is missing or not a regular file, or it or a folder on the way is a link.
    """
    names = PurePosixPath(path).parts
    if not names or PurePosixPath(path).is_absolute() or ".." in names or "\0" in path:
        raise BundleError(f"{folder}: the manifest names a file outside the bundle: '{path}'")
    try:
        for depth in range(1, len(names) + 1):
            if _is_link(folder.joinpath(*names[:depth])):
                raise _link(folder, "/".join(names[:depth]))
        descriptor = os.open(folder.joinpath(*names), _FLAGS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{folder}: '{path}' is missing; copy or compile the bundle again") from error
    except OSError as error:
        raise BundleError(f"{folder / path}: cannot be read: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise BundleError(f"{folder}: '{path}' is not a regular file; copy or compile the bundle again")


def stamps(folder: Path, paths: Iterable[str]) -> dict[str, Stamp]:
    """Return the stamps that files in *folder* have now."""
    return {path: Stamp.of((folder / path).lstat()) for path in paths}


def sha256_of(stream: BufferedReader) -> str:
    """Return the SHA-256 of all of *stream*."""
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_link(path: Path) -> bool:
    return path.is_symlink() or path.is_junction() if hasattr(path, "is_junction") else path.is_symlink()


def _link(folder: Path, path: str) -> BundleError:
    return BundleError(
        f"{folder}: '{path}' is a link, and links in a bundle are not followed; "
        "copy the bundle with the files themselves, for example with cp -rL"
    )
