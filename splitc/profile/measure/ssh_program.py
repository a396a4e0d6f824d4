"""Run one program on a board and remove all its files. `ssh.py` sends this as text; it needs only Python 3.9.

Input on stdin: a line of JSON, the bytes of the files that it lists, then a byte every few seconds. When stdin
ends or nothing arrives for a while, the other side is gone: the program is ended and its files are removed.
Output on stdout: lines that begin with a mark, which distinguishes them from output of the login shell.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

SILENCE_S = 60.0  # the other side sends a byte every few seconds
PATIENCE_S = 2.0
CHUNK_BYTES = 1 << 16
KEPT_BYTES = 1 << 16


class Gone(Exception):  # noqa: N818 - the name says what happened
    """The other side is gone."""


class Failed(Exception):  # noqa: N818 - the name says what happened
    """The task cannot be done; the arguments are the kind of failure and its details."""


def main(mark: str) -> int:
    """Do the task that arrives on stdin; return the exit status."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), leave)
    try:
        tell(mark, "begun", None)
        kind, content = serve(mark)
        tell(mark, kind, content)
    except (Gone, BrokenPipeError):
        return 1
    return 0


def serve(mark: str) -> tuple[str, Any]:
    """Receive the files, run the program and clean up; return the kind and content of the result."""
    try:
        task = json.loads(take_line())
        check_modules(task["needs"])
        folder = make_folder(sum(size for _, size in task["files"]))
        try:
            take_files(folder, task["files"])
            return run(mark, folder, task)
        finally:
            remove(folder)
    except Failed as failure:
        return failure.args[0], failure.args[1]
    except OSError as error:
        return "refused", str(error)


def leave(number: int, _frame: object) -> None:
    """Exit on a signal; `finally` blocks clean up."""
    sys.exit(128 + number)


def tell(mark: str, kind: str, content: Any) -> None:
    """Write one line; the line break before it ends any unfinished output of the login shell."""
    data = f"\n{mark} {json.dumps([kind, content])}\n".encode("ascii")
    while data:
        data = data[os.write(1, data) :]


# --- input ---


def take(count: int) -> bytes:
    """Return at most *count* bytes, at least one."""
    ready, _, _ = select.select([0], [], [], SILENCE_S)
    data = os.read(0, min(count, CHUNK_BYTES)) if ready else b""
    if not data:
        raise Gone
    return data


def take_line() -> bytes:
    """Return one line; data after it stays in the pipe."""
    line = b""
    while not line.endswith(b"\n"):
        line += take(1)
    return line


def check_modules(names: list[str]) -> None:
    """Check that modules exist, before a large model is sent."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise Failed("missing", name)


def make_folder(size: int) -> str:
    """Make a temporary folder where *size* bytes fit."""
    places = [tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~")]  # noqa: PTH111, S108
    free = {place: shutil.disk_usage(place).free for place in places if os.access(place, os.W_OK)}
    for place, room in free.items():
        if room > size + (64 << 20):  # leave space for a trace and the optimised graph
            return tempfile.mkdtemp(prefix="splitc-", dir=place)
    raise Failed("full", [size, max(free.values(), default=0)])


def take_files(folder: str, files: list[tuple[str, int]]) -> None:
    """Receive files, given by name and size, and write them to *folder*."""
    for name, size in files:
        # Bytes, because under a C locale Python 3.9 does not support all file names.
        path = os.path.join(folder.encode(), name.encode())  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            left = size
            while left:
                left -= file.write(take(left))


# --- the program ---


def run(mark: str, folder: str, task: dict[str, Any]) -> tuple[str, Any]:
    """Run the program to its end, and pass on its lines on stderr."""
    scratch = os.path.join(folder, "tmp")  # noqa: PTH118
    os.mkdir(scratch)  # noqa: PTH102
    process = subprocess.Popen(
        [sys.executable, "-B", *task["arguments"]],
        cwd=folder,
        env=dict(os.environ, TMPDIR=scratch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = listen(mark, process, time.monotonic() + task["timeout_s"])
        code = process.wait()
    finally:
        end(process)
    if code:
        return "ended", [code, err.decode("utf-8", "replace")]
    return "printed", out.decode("utf-8", "replace")


def listen(mark: str, process: subprocess.Popen[bytes], until: float) -> tuple[bytes, bytes]:
    """Return the program's stdout, and the end of its stderr."""
    out_fd, err_fd = process.stdout.fileno(), process.stderr.fileno()  # type: ignore[union-attr]
    out, err, said = bytearray(), bytearray(), bytearray()
    open_fds = {out_fd, err_fd}
    heard_s = time.monotonic()
    while open_fds:
        now_s = time.monotonic()
        if now_s > heard_s + SILENCE_S:
            raise Gone
        if now_s > until:
            raise Failed("late", None)
        ready, _, _ = select.select([0, *open_fds], [], [], min(SILENCE_S, until - now_s + 0.1))
        for fd in ready:
            data = os.read(fd, CHUNK_BYTES)
            if fd == 0:
                if not data:
                    raise Gone
                heard_s = time.monotonic()
            elif not data:
                open_fds.remove(fd)
            elif fd == out_fd:
                out += data
            else:
                err = (err + data)[-KEPT_BYTES:]
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    tell(mark, "say", line.decode("utf-8", "replace"))
    return bytes(out), bytes(err)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its children: with SIGTERM, so that they can clean up, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)


def remove(folder: str) -> None:
    """Remove *folder*; signals are ignored meanwhile."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
