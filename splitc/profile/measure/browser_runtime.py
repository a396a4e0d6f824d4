"""Install ONNX Runtime for browsers with npm, once, into the user's cache folder."""

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
# No scripts of packages are run, and all packages must match the lock file.
_COMMAND = ("npm", "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")


def runtime_files(page: Path, cache_folder: Path, say: Say, timeout_s: float) -> Path:
    """Return a folder with the files of ONNX Runtime that the package list beside *page* names.

    Raises:
        ProfileError: they are not there, and npm is missing or cannot install them.
    """
    lock = (page / "package-lock.json").read_bytes()
    folder = cache_folder / _PACKAGE / hashlib.sha256(lock).hexdigest()[:16]
    if not _is_whole(folder):
        say(f"installing {_PACKAGE} {locked_version(page)} with npm (only the first time)")
        _fetch(page, folder, timeout_s)
    return folder


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (SCRIPT, BINARY))


def locked_version(page: Path) -> str:
    """Return the version of ONNX Runtime in the lock file beside *page*."""
    lock = json.loads((page / "package-lock.json").read_bytes())
    return str(lock["packages"][f"node_modules/{_PACKAGE}"]["version"])


def _fetch(page: Path, folder: Path, timeout_s: float) -> None:
    """Install into a temporary folder and move the two files that are needed to *folder*."""
    npm = shutil.which(_COMMAND[0])
    if npm is None:
        raise ProfileError(
            f"profiling in a browser needs {_PACKAGE}, which is installed with npm, but there is no npm; install "
            "Node.js (version 18 or later) and try again"
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
            if not _is_whole(folder):  # files are missing; if another process was faster, its folder is kept
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(FileExistsError):
                _rename(ready, folder)
    except OSError as error:
        raise ProfileError(
            f"cannot write {_PACKAGE} to {folder.parent}: {error.strerror or error}; free space there, or choose "
            "another folder with --cache-dir"
        ) from error


def _rename(ready: Path, folder: Path) -> None:
    """Rename *ready* to *folder*; if another process was faster, its files are used."""
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
            f"npm did not install {_PACKAGE} within {timeout_s:g} s; check the network"
        ) from error
    if done.returncode:
        raise ProfileError(
            f"npm cannot install {_PACKAGE}: {_reason(done.stderr)}; check the network and npm's settings"
        )


def _reason(stderr: bytes) -> str:
    """Return the first informative line of npm's error output."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    plain = [line.removeprefix("npm").strip().removeprefix("error").strip() for line in lines]
    said = [line for line in plain if line and not line.startswith(("code ", "errno ", "syscall "))]
    return said[0][:300].rstrip(".") if said else "it gives no reason"
