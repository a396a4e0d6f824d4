"""Slow a process down: stop and continue it in turns of milliseconds.

Its computations take a multiple of their time, with little jitter and without privileges. A quota of a control group
works in turns of tens of milliseconds, and far less evenly.

A program of its own makes the turns, in two processes that watch each other: if either ends, the slowed process
continues at full speed. They avoid the cores of the slowed process, if there are others.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from splitc.common.errors import TestBedError
from splitc.testbed.realtime import be_prompt

# A shorter run finds colder caches each time (3 % of the time at 1 ms, 10 % at 0.5 ms); a longer turn makes the
# process answer later to what happens while it is stopped.
_RUN_S = 0.001
_TURN_S = 0.005
_PATIENCE_S = 5.0


class Slowed:
    """Until this is closed, the process *pid* takes *factor* times as long, with all its threads but not its children."""

    def __init__(self, pid: int, factor: float) -> None:
        """Begin at once.

        Raises:
            TestBedError: the factor is below 1, or there is no such process.
        """
        if not (1 <= factor < float("inf")):
            raise TestBedError(f"a process can be slowed down by a factor of 1 or more, not {factor:g}")
        self._program = subprocess.Popen(
            [sys.executable, "-m", "splitc.testbed.slow", str(pid), repr(factor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._program.stdout is not None
        if not self._program.stdout.read(1):  # it comes when the first turn begins
            self.close()
            raise TestBedError(f"there is no process {pid} to slow down; it may have ended already")

    def close(self) -> None:
        """Let the process continue at full speed."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        with suppress(BrokenPipeError):
            self._program.stdin.write(b"\n")  # closing is not enough: a forked process may have a copy
        self._program.stdin.close()
        self._program.stdout.close()
        try:
            self._program.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Threads:
    """The threads of a process, as they come and go."""

    def __init__(self, pid: int) -> None:
        """Begin.

        Raises:
            OSError: there is no such process.
        """
        self._pid = pid
        self._process = os.pidfd_open(pid)
        self._folder = os.open(f"/proc/{pid}/task", os.O_RDONLY)
        self._tgkill = ctypes.CDLL(None).tgkill  # Python's own function reaches its own threads only
        self._own_cores = self._cores = os.sched_getaffinity(0)

    @property
    def process(self) -> int:
        """A descriptor that becomes readable when the process has ended."""
        return self._process

    def go_on(self) -> None:
        """Continue all threads.

        Raises:
            OSError: the process has ended.
        """
        signal.pidfd_send_signal(self._process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop all threads.

        Any thread may take a signal to the process. A thread that waits for the network must first get a core for that,
        and the others compute until then, for several turns. So each thread gets a signal of its own.

        Raises:
            OSError: the process has ended.
        """
        threads = os.listdir(self._folder)  # noqa: PTH208 - a descriptor stays with the process, a path need not
        signal.pidfd_send_signal(self._process, 0)  # until this fails, no other process has this number
        for thread in threads:  # one that has ended meanwhile needs no signal
            self._tgkill(self._pid, int(thread), signal.SIGSTOP)

    def keep_off(self) -> None:
        """Let this process run on other cores than the main thread, if there are any."""
        cores = os.sched_getaffinity(self._pid)
        if cores != self._cores:
            self._cores = cores
            os.sched_setaffinity(0, self._own_cores - cores or self._own_cores)


def take_turns(threads: Threads, factor: float, guard_pid: int) -> None:
    """Stop and continue *threads*, until they or the parent *guard_pid* have ended."""
    run_s = min(_RUN_S, _TURN_S / factor)
    owed_s = 0.0
    while os.getppid() == guard_pid:
        threads.keep_off()
        threads.go_on()
        began_s = time.monotonic()
        time.sleep(run_s)
        threads.stop()
        stopped_s = time.monotonic()
        # Sleeping too long is compensated, so that the shares are exact on average.
        owed_s += (factor - 1) * (stopped_s - began_s)
        if owed_s > 0:
            time.sleep(owed_s)
        owed_s -= time.monotonic() - stopped_s


def main(pid: int, factor: float) -> int:
    """Slow the process *pid* down until stdin is written to or closed, or the process has ended; return the exit status."""
    be_prompt()
    try:
        threads = Threads(pid)
    except (ProcessLookupError, FileNotFoundError):
        return 0
    guard_pid = os.getpid()
    child_pid = os.fork()
    if child_pid == 0:
        os.write(sys.stdout.fileno(), b"\n")
        try:
            take_turns(threads, factor, guard_pid)
        finally:
            _go_on(threads)
            os._exit(0)
    select.select([sys.stdin.fileno(), threads.process, os.pidfd_open(child_pid)], [], [])
    os.kill(child_pid, signal.SIGKILL)
    os.waitpid(child_pid, 0)
    _go_on(threads)
    return 0


def _go_on(threads: Threads) -> None:
    with suppress(ProcessLookupError):
        threads.go_on()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
