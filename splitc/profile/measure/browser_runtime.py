"""ONNX Runtime for browsers: fetched once with npm, kept in the user's cache folder."""

import hashlib
import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from splitc.common.errors import ProfileError
from splitc.profile.measure.job import Say

SCRIPT = "ort.wasm.bundle.min.mjs"
BINARY = "ort-wasm-simd-threaded.wasm"
_PACKAGE = "onnxruntime-web"
_LISTS = ("package.json", "package-lock.json")
# Nothing of the packages is run, and everything must be what the lock file says.
_COMMAND = ("npm", "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")


def runtime_files(page: Path, cache_folder: Path, say: Say, timeout_s: float) -> Path:
    """Return a folder with the files of ONNX Runtime that the package list beside *page* names.

    Raises:
        ProfileError: they are not there yet, and npm is missing or cannot fetch them.
    """
    lock = (page / "package-lock.json").read_bytes()
    folder = cache_folder / _PACKAGE / hashlib.sha256(lock).hexdigest()[:16]
    if not _is_whole(folder):
        say(f"fetching {_PACKAGE} {locked_version(page)} with npm, this once")
        _fetch(page, folder, timeout_s)
    return folder


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (SCRIPT, BINARY))


def locked_version(page: Path) -> str:
    """The version of ONNX Runtime in the lock file beside *page*."""
    lock = json.loads((page / "package-lock.json").read_bytes())
    return str(lock["packages"][f"node_modules/{_PACKAGE}"]["version"])


def _fetch(page: Path, folder: Path, timeout_s: float) -> None:
    """Install into a temporary folder and keep two files, under their name only when they are whole."""
    npm = shutil.which(_COMMAND[0])
    if npm is None:
        raise ProfileError(
            f"profiling in a browser needs {_PACKAGE}, which npm fetches, and npm is not installed; install Node.js "
            "(version 18 or later) and try again"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="splitc-npm-") as work,
            tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial,
        ):
            for name in _LISTS:
                shutil.copyfile(page / name, Path(work) / name)
            _npm(npm, work, timeout_s)
            ready = Path(partial) / "ready"
            ready.mkdir()
            for name in (SCRIPT, BINARY):
                shutil.copyfile(Path(work) / "node_modules" / _PACKAGE / "dist" / name, ready / name)
            if not _is_whole(folder):  # half of it was deleted; or another process was faster, then it stays
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(FileExistsError):
                _rename(ready, folder)
    except OSError as error:
        raise ProfileError(
            f"cannot keep {_PACKAGE} in {folder.parent}: {error.strerror or error}; make room there, or name another "
            "folder with --cache-dir"
        ) from error


def _rename(ready: Path, folder: Path) -> None:
    """Rename; where another process was faster, its files are as good."""
    try:
        ready.rename(folder)
    except OSError:
        if not _is_whole(folder):
            raise


def _npm(npm: str, work: str, timeout_s: float) -> None:
    command = [npm, *_COMMAND[1:]]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProfileError(
            f"npm did not fetch {_PACKAGE} within {timeout_s:g} s; check the network"
        ) from error
    if done.returncode:
        raise ProfileError(
            f"npm cannot fetch {_PACKAGE}: {_reason(done.stderr)}; check the network and npm's settings"
        )


def _reason(stderr: bytes) -> str:
    """The first line of npm's complaint that says something."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    plain = [line.removeprefix("npm").strip().removeprefix("error").strip() for line in lines]
    said = [line for line in plain if line and not line.startswith(("code ", "errno ", "syscall "))]
    return said[0][:300].rstrip(".") if said else "it does not say why"
