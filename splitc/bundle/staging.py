"""A folder that appears whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splitc.bundle.folder import MANIFEST, listed_files
from splitc.common.errors import BundleError

_PREFIX = ".splitc-"
# Where bundles are written if no other folder is named.
ARTIFACTS = Path("artifacts")


@contextmanager
def new_folder(folder: Path, inputs: Iterable[Path] = ()) -> Iterator[tuple[Path, Path]]:
    """Yield (staging, scratch): staging becomes *folder* if the block succeeds, scratch is deleted.

    Both are beside *folder*, so that the last step is a rename. An older bundle at *folder* is replaced; other files
    are never replaced. If *folder* is a link, what it points to is replaced, and the link stays.

    Args:
        inputs: files and folders that are read, and must not be replaced.

    Raises:
        BundleError: *folder* exists and is not a bundle, contains one of *inputs*, or the process runs in it.
        OSError: *folder* cannot be written; the error names *folder*.
    """
    _refuse_to_overwrite(folder.absolute())
    folder = place_of(folder.absolute(), inputs)
    made = _make_parents(folder.parent)
    try:
        remove_leftovers(folder.parent)
        with _work_folder(folder.parent) as work:
            staging, scratch = work / "bundle", work / "scratch"
            staging.mkdir()
            scratch.mkdir()
            yield staging, scratch
            _exchange(staging, folder, work / "replaced")
    except OSError as error:
        if error.filename is None or _PREFIX in str(error.filename):
            error.filename = str(folder)  # the name of the working folder means nothing to users
        raise
    finally:
        for parent in made:
            with suppress(OSError):  # not empty: the bundle is in it
                parent.rmdir()


def place_of(folder: Path, inputs: Iterable[Path] = ()) -> Path:
    """Return where *folder* really is, if it may be replaced.

    Raises:
        BundleError: it contains one of *inputs*, or the process runs in it.
    """
    place = Path(os.path.realpath(folder))
    if not place.exists():
        return place
    for path in inputs:
        if any(place in (form, *form.parents) for form in (path.absolute(), Path(os.path.realpath(path)))):
            raise BundleError(
                f"{path}: is read, but is in the folder that would be replaced; choose another folder with -o"
            )
    with suppress(FileNotFoundError):  # where the current folder was deleted
        here = Path.cwd()
        if place in (here, *here.parents):
            raise BundleError(
                f"{folder}: cannot be replaced while it is the current folder or contains it; "
                "start splitc in another folder, or choose another folder with -o"
            )
    return place


def _exchange(new: Path, folder: Path, old: Path) -> None:
    """Move *folder*, if it exists, to *old*, and *new* to *folder*; on an error, restore *folder*."""
    if not folder.exists():
        new.rename(folder)
        return
    try:
        folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder that is removed when the block ends; its lock shows that this process is still running."""
    work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _refuse_to_overwrite(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    if present == set():
        return
    known = listed_files(folder)
    if present is None or known is None:
        raise BundleError(f"{folder}: exists and is not a bundle; choose another folder with -o")
    foreign = sorted(present - known - {MANIFEST})
    if foreign:
        raise BundleError(
            f"{folder}: '{foreign[0]}' is not part of the bundle there and would be lost; "
            "move it away or choose another folder with -o"
        )


def _make_parents(parent: Path) -> list[Path]:
    """Make *parent*; return the folders that were missing, deepest first."""
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BundleError(f"{error.filename}: is not a folder; choose another place with -o") from error
    return missing


def remove_leftovers(parent: Path) -> None:
    """Remove working folders of processes that were killed: these folders are no longer locked."""
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, or gone already
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
