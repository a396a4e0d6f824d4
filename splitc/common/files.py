"""Paths, and writing files so that a reader never sees a partly written file."""

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def is_unicode(path: Path) -> bool:
    """Whether libraries that take a path as UTF-8 can open *path*: a name on Linux may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def resolved(path: Path) -> Path | None:
    """Return *path* without links; None if links lead in a circle, or if no file can have this name."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def refuse_special(path: Path) -> None:
    """Refuse to replace a device or a pipe, such as /dev/null, by a file.

    Raises:
        OSError: *path* is neither a file nor a folder, but something else.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(
            errno.EINVAL, "a device or a pipe, which is not replaced; choose another name", str(path)
        )


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write each file under a temporary name in its folder, then rename all of them.

    Missing folders are made. If a write fails, no file is replaced. Only the owner can read the new files.

    Raises:
        OSError: a folder or a file cannot be written.
    """
    partial: list[Path] = []
    for path in contents:
        refuse_special(path)
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
            partial.append(Path(name))
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
        for written, path in zip(partial, contents, strict=True):
            written.replace(path)
    finally:
        for written in partial:
            with suppress(FileNotFoundError):
                written.unlink()
