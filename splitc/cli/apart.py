"""Do the work on an untrusted file in a process of its own, with limits of time and memory.

ONNX, onnxsim and ONNX Runtime are compiled code: on a damaged or hostile file they may crash, run forever or
take all memory, and no exception or signal handler of Python can stop them. The process that the user started
only waits: it ends the other one at a signal or a limit, removes what is left of it, and says why in a sentence.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from splitc.bundle.staging import remove_leftovers
from splitc.cli.streams import show_cursor, tell
from splitc.common.errors import ModelError

# What Python and its libraries take before a model is loaded, and what reading a model takes.
_OWN_BYTES = 1 << 30
_POLL_S = 0.02
GRACE_S = 2.0
_PR_SET_PDEATHSIG = 1


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """What a process may do that works on an untrusted file.

    Attributes:
        reads: the file, for messages.
        seconds: how long the work may take; None for any time.
        memory_bytes: memory that it may take, besides a fixed amount for splitc itself; None for all that is free.
        writes: the folder that it makes; what a killed process leaves beside it is removed.
        grace_s: how long it may go on after a signal, to clean up.
    """

    reads: Path
    seconds: float | None = None
    memory_bytes: int | None = None
    writes: Path | None = None
    grace_s: float = GRACE_S


def run_apart(work: Callable[[], None], limits: WorkLimits) -> None:
    """Do *work* in a child of this process, with its output going where this one's goes.

    Raises:
        SystemExit: it failed, and has said why.
        ModelError: it crashed, or was ended because it took too long.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by whoever started splitc
            stream.flush()
    with tempfile.TemporaryDirectory(prefix="splitc-", ignore_cleanup_errors=True) as folder:
        child = os.fork()
        if child == 0:
            _become_child()
            with _temporary_files_in(folder):
                _work_within(limits, work)
            return
        _supervise(_Child(child, limits, _missing_parents(limits.writes)))


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Let temporary files lie in *folder*, which the parent removes, however this process ends."""
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]


def _become_child() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":  # nobody else would end a loop in compiled code after `kill -9` of the parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _work_within(limits: WorkLimits, work: Callable[[], None]) -> None:
    _limit_memory(_OWN_BYTES + (limits.memory_bytes if limits.memory_bytes is not None else _free_bytes()))
    try:
        work()
    except MemoryError as error:
        raise ModelError(
            f"{limits.reads}: the work on it takes more memory than there is; allow more with --build-memory, or use "
            "a machine with more"
        ) from error
    except (SystemExit, ImportError) as error:
        # A signal; during the import of ONNX Runtime, it arrives as an ImportError. The parent says so, once.
        stopped = error.__cause__ if isinstance(error, ImportError) else error
        if not isinstance(stopped, SystemExit):
            raise
        raise SystemExit(stopped.code) from None


def _limit_memory(allowed_bytes: int) -> None:
    """Let allocations fail beyond *allowed_bytes*; Linux counts what is written, not files that are mapped."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or allowed_bytes < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (allowed_bytes, hard))


def _free_bytes() -> int:
    import psutil  # noqa: PLC0415 - not needed to show help or to complete words

    return int(psutil.virtual_memory().available)


def ended_by_signals(work: Callable[[], T]) -> T:
    """Return what *work* does in a thread; a signal ends the process, whatever the thread is at.

    For what must be in this process afterwards. Locks and half-written files are left to the next start.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            future.set_exception(error)

    Thread(target=run, name="splitc-work", daemon=True).start()
    try:
        return future.result()
    except SystemExit as stopped:
        if future.done():  # the work ended by itself
            raise
        show_cursor()
        tell("interrupted")
        os._exit(stopped.code if isinstance(stopped.code, int) else 1)


# --- the process that waits ---


@dataclass(frozen=True, slots=True)
class _Child:
    """A child process; *made* are folders that it may make on the way to what it writes, deepest first."""

    pid: int
    limits: WorkLimits
    made: tuple[Path, ...]


def _missing_parents(folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    return tuple(path for path in folder.absolute().parents if not path.exists())


def _supervise(child: _Child) -> None:
    try:
        status = _wait(child.pid, child.limits.seconds)
    except BaseException:  # a signal
        _stop(child)
        raise
    if status is None:
        _end(child)
        raise ModelError(
            f"{child.limits.reads}: the work on it was ended after {child.limits.seconds:g} s; allow more with --build-timeout"
        )
    if os.WIFSIGNALED(status):
        _tidy(child)
        raise ModelError(_crash(child.limits.reads, os.WTERMSIG(status)))
    if os.WEXITSTATUS(status):
        raise SystemExit(os.WEXITSTATUS(status))


def _wait(child: int, seconds: float | None) -> int | None:
    """Return the status with which *child* ends; None if it still runs after *seconds*."""
    until = time.monotonic() + seconds if seconds is not None else None
    descriptor = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    try:
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if descriptor is not None:
                select.select([descriptor], [], [], left)
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
            if left == 0.0:
                return None
            if descriptor is None:
                time.sleep(_POLL_S)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _stop(child: _Child) -> None:
    """Let *child* clean up within its grace, or end it; a second signal ends it at once."""
    status = None
    try:
        os.kill(child.pid, signal.SIGTERM)
        status = _wait(child.pid, child.limits.grace_s)
    finally:
        if status is None:
            _end(child)
        elif os.WIFSIGNALED(status):
            _tidy(child)


def _end(child: _Child) -> None:
    """Kill *child* and all processes that it started."""
    import psutil  # noqa: PLC0415 - needed only here

    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child.pid, 0)
    _tidy(child)


def _tidy(child: _Child) -> None:
    show_cursor()
    if child.limits.writes is not None:
        remove_leftovers(child.limits.writes.absolute().parent)
    for folder in child.made:
        with contextlib.suppress(OSError):  # not made yet, or not empty
            folder.rmdir()


def _crash(reads: Path, number: int) -> str:
    if number == signal.SIGKILL:
        return (
            f"{reads}: the process that worked on it was killed, as systems do when memory runs out; "
            "allow less with --build-memory, or use a machine with more"
        )
    return (
        f"{reads}: a library crashed on it ({signal.strsignal(number)}); the file is damaged, or uses something that "
        "ONNX or ONNX Runtime does not support: check that ONNX Runtime runs it, or export it again"
    )
