"""A slowed process computes for its share of the time, and goes on whatever happens to who slows it down."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import psutil
import pytest

from splitc.testbed.errors import TestBedError
from splitc.testbed.slow import Slowed
from tests.testbed.watching import eventually

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="only Linux has descriptors of processes"
)


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that computes all the time."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        yield program.pid
        program.kill()


def share(pid: int, seconds: float) -> float:
    """How much of the time from now on a process computes, by its own clock: clock_getcpuclockid(3)."""
    clock = ~pid << 3 | 2
    began_s, computed_s = time.monotonic(), time.clock_gettime(clock)
    time.sleep(seconds)
    return (time.clock_gettime(clock) - computed_s) / (time.monotonic() - began_s)


def slowers(pid: int) -> list[psutil.Process]:
    """The programs that slow *pid* down: the guard first, then its child."""
    command = ["splitc.testbed.slow", str(pid)]
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[2:4] == command
    ]
    return sorted(found, key=lambda process: process.ppid() != os.getpid())


def test_it_gets_its_share(busy: int) -> None:
    full, slowed = [], []
    for _ in range(4):
        full.append(share(busy, 0.1))
        with Slowed(busy, 4.0):
            slowed.append(share(busy, 0.3))
    # However busy the machine is, it cannot compute while it is stopped.
    assert median(slowed) < 1.3 / 4
    assert median(full) / median(slowed) > 2 or median(full) < 0.7
    assert median(slowed) > 0.02


def test_a_factor_of_one_leaves_it_alone(busy: int) -> None:
    with Slowed(busy, 1.0):
        assert eventually(lambda: share(busy, 0.1) > 0.3)


def test_it_goes_on_at_full_speed(busy: int) -> None:
    with Slowed(busy, 20.0):
        assert share(busy, 0.3) < 0.15
    assert not slowers(busy)
    assert goes_on(busy)


@pytest.mark.parametrize("which", [0, 1], ids=["guard", "child"])
def test_it_goes_on_when_the_slower_is_killed(which: int, busy: int) -> None:
    with Slowed(busy, 20.0):
        slowers(busy)[which].send_signal(signal.SIGKILL)
        assert eventually(lambda: not running(slowers(busy)))
        assert goes_on(busy)


def test_it_goes_on_when_the_owner_is_killed(busy: int) -> None:
    script = f"from splitc.testbed.slow import Slowed; s = Slowed({busy}, 20.0); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        owner.kill()
    assert eventually(lambda: not slowers(busy))
    assert goes_on(busy)


def running(processes: list[psutil.Process]) -> bool:
    return any(process.status() != psutil.STATUS_ZOMBIE for process in processes)


def goes_on(pid: int) -> bool:
    return (
        eventually(lambda: share(pid, 0.1) > 0.25) and psutil.Process(pid).status() != psutil.STATUS_STOPPED
    )


def test_slowers_end_with_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program, Slowed(program.pid, 2.0):
        program.terminate()
        assert program.wait(20) == -signal.SIGTERM
        assert eventually(lambda: not running(slowers(program.pid)))


def test_no_such_process() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as program:
        program.wait()
    with pytest.raises(TestBedError, match=rf"there is no process {program.pid} to slow down"):
        Slowed(program.pid, 2.0)


@pytest.mark.parametrize("factor", [0.5, 0.0, float("nan"), float("inf")])
def test_slower_not_faster(factor: float) -> None:
    with pytest.raises(TestBedError, match="made slower, by a factor from 1 on, not by"):
        Slowed(os.getpid(), factor)
