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

from splitc.common.errors import TestBedError
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


# On one core: a thread that waits for the network and one that computes; and threads that come, compute a while and go.
WAITING = """
import hashlib, os, socket, threading
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
near, far = socket.socketpair()
near.settimeout(600)
def compute():
    while True: hashlib.sha256(bytes(1 << 20))
threading.Thread(target=compute, daemon=True).start()
print(flush=True)
near.recv(1)
"""
COMING_AND_GOING = """
import hashlib, os, threading
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
print(flush=True)
while True:
    threads = [threading.Thread(target=hashlib.sha256, args=(bytes(1 << 20),)) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@pytest.mark.parametrize("script", [WAITING, COMING_AND_GOING], ids=["waiting", "coming and going"])
def test_all_threads_are_stopped(script: str) -> None:
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        slowed = []
        for _ in range(3):
            with Slowed(program.pid, 8.0):
                slowed.append(share(program.pid, 0.5))
        program.kill()
    assert 0.01 < median(slowed) < 1.3 / 8


def test_the_slower_keeps_off_the_cores_of_the_slowed(busy: int) -> None:
    all_cores = sorted(os.sched_getaffinity(0))
    if len(all_cores) < 2:
        pytest.skip("there is no other core to keep on")

    def cores() -> list[int]:
        found: list[int] = slowers(busy)[1].cpu_affinity()
        return found

    with Slowed(busy, 4.0):
        assert cores() == all_cores
        os.sched_setaffinity(busy, {all_cores[-1]})
        assert eventually(lambda: cores() == all_cores[:-1])
        os.sched_setaffinity(busy, all_cores)
        assert eventually(lambda: cores() == all_cores)


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
    with pytest.raises(TestBedError, match="slowed down by a factor of 1 or more, not"):
        Slowed(os.getpid(), factor)
