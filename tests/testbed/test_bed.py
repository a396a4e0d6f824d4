"""Two sides of this machine see each other through the link that was asked for, and nothing is left of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from splitc.common.errors import TestBedError
from splitc.testbed.bed import Bed
from splitc.testbed.spec import LinkSpec, LinkTrace, Rate
from tests.running import hear_interrupts
from tests.testbed import echo
from tests.testbed.watching import eventually, network_of

SPEC = LinkSpec(Rate(8e6), Rate(32e6), rtt_s=0.02, queue_bytes=1_000_000)
ECHO = [sys.executable, echo.__file__]
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Pair:
    """A bed with a server that answers, and a client that asks when it is told to."""

    bed: Bed
    server: subprocess.Popen[bytes]
    client: subprocess.Popen[bytes]

    def ask(self, uplink_bytes: int, downlink_bytes: int) -> str:
        """Seconds, or the name of the error."""
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write(f"{uplink_bytes} {downlink_bytes}\n".encode())
        self.client.stdin.flush()
        return self.client.stdout.readline().decode().strip()

    def best_s(self, uplink_bytes: int, downlink_bytes: int, times: int = 3) -> float:
        """The shortest of some: what a busy machine adds is not the link's."""
        return min(float(self.ask(uplink_bytes, downlink_bytes)) for _ in range(times))


@pytest.fixture(scope="module")
def made() -> Iterator[Pair]:
    try:
        bed = Bed(SPEC)
    except TestBedError as error:
        pytest.skip(str(error))
    with bed:
        server = bed.start("cloud", [*ECHO, "serve", bed.cloud_address], stdout=subprocess.PIPE)
        client = bed.start(
            "device", [*ECHO, "ask", bed.cloud_address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        server.stdout.readline()
        yield Pair(bed, server, client)
    for stream in (server.stdout, client.stdin, client.stdout):
        assert stream is not None
        stream.close()


@pytest.fixture
def pair(made: Pair) -> Pair:
    """The link as at first."""
    made.bed.restore()
    made.bed.change(SPEC)
    assert answers(made)
    return made


def answers(pair: Pair) -> bool:
    def once() -> bool:
        return pair.ask(1, 1)[0].isdigit()

    return eventually(once)


def test_there_and_back_takes_the_round_trip(pair: Pair) -> None:
    assert SPEC.rtt_s <= pair.best_s(1, 1, times=20) < SPEC.rtt_s + 0.02


def test_bytes_take_their_time_each_way(pair: Pair) -> None:
    assert 0.12 * 0.98 < pair.best_s(100_000, 1) < 0.12 * 1.5
    assert 0.12 * 0.98 < pair.best_s(1, 400_000) < 0.12 * 1.5


def test_the_link_changes_while_it_is_used(pair: Pair) -> None:
    pair.bed.change(replace(SPEC, uplink=Rate(2e6), rtt_s=0.1))
    assert pair.best_s(50_000, 1) > 0.3 * 0.98
    pair.bed.change(replace(SPEC, uplink=Rate(100e6)))
    assert pair.best_s(50_000, 1) < 0.2


def test_a_trace_is_followed(pair: Pair) -> None:
    pair.bed.change(replace(SPEC, uplink=LinkTrace((50,)), rtt_s=0.0))
    assert pair.best_s(3 * 1448, 1, times=2) > 3 * 0.05


def test_a_full_queue_drops_and_all_arrives_in_the_end(pair: Pair) -> None:
    before = pair.bed.counts().up
    pair.bed.change(replace(SPEC, queue_bytes=6000))
    assert float(pair.ask(100_000, 1)) > 0.1
    after = pair.bed.counts().up
    assert after.dropped > before.dropped
    assert after.arrived >= before.arrived + 100_000 // 1448


def test_random_loss_is_made_up_for(pair: Pair) -> None:
    before = pair.bed.counts().down
    pair.bed.change(replace(SPEC, loss=0.05))
    assert float(pair.ask(1, 100_000)) > 0
    assert pair.bed.counts().down.lost > before.lost


def test_a_black_hole_tells_nobody(pair: Pair) -> None:
    pair.bed.black_hole()
    assert pair.ask(1, 1) == "TimeoutError None"
    pair.bed.restore()
    assert answers(pair)


def test_a_cut_is_seen_at_once(pair: Pair) -> None:
    pair.bed.cut()
    pair.ask(1, 1)  # an open connection does not break
    assert pair.ask(1, 1).startswith("OSError 101")  # network is unreachable
    pair.bed.restore()
    assert answers(pair)


def test_nothing_else_can_be_reached(pair: Pair) -> None:
    script = f"import socket; socket.create_connection(('192.0.2.1', {echo.PORT}), 5)"
    outside = pair.bed.start("device", [sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    assert outside.wait(20) == 1
    assert network_of(os.getpid()) not in {network_of(pair.server.pid), network_of(pair.client.pid)}


def kinds_of_tcp(bed: Bed) -> list[str]:
    """The congestion control of both ends of a new connection: that of the cloud, then that of the device."""
    report = "print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode(), flush=True)"
    serve = f"import socket; l = socket.create_server(('{bed.cloud_address}', 0)); print(l.getsockname()[1], flush=True)"
    server = bed.start(
        "cloud", [sys.executable, "-c", f"{serve}; c, _ = l.accept(); {report}"], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    with server.stdout:
        port = int(server.stdout.readline())
        connect = f"import socket; c = socket.create_connection(('{bed.cloud_address}', {port}), 20)"
        client = bed.start("device", [sys.executable, "-c", f"{connect}; {report}"], stdout=subprocess.PIPE)
        assert client.stdout is not None
        with client.stdout:
            return [stream.readline().decode().strip() for stream in (server.stdout, client.stdout)]


def test_tcp_is_that_of_phones_and_servers_whatever_this_machine_uses(pair: Pair) -> None:
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text(encoding="ascii").split()
    if "cubic" in known:
        assert pair.bed.congestion_control == "cubic"
    assert kinds_of_tcp(pair.bed) == 2 * [pair.bed.congestion_control]
    pair.bed.cut()
    pair.bed.restore()
    assert kinds_of_tcp(pair.bed) == 2 * [pair.bed.congestion_control]


def test_a_device_can_be_slow(pair: Pair) -> None:
    script = "import time\nb = time.monotonic()\nwhile time.process_time() < 0.3: pass\nprint(time.monotonic() - b)"
    program = pair.bed.start("device", [sys.executable, "-c", script], slowdown=4.0, stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout:
        assert float(program.stdout.read()) > 0.6


# A child in a session of its own, deaf to polite signals; it tells its number, and then that of its parent.
LONG_LIVED = """
import os, subprocess, sys
script = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), os.getppid()); time.sleep(600)"
subprocess.Popen([sys.executable, "-u", "-c", script], start_new_session=True)
input()
"""
OWNER = """
import subprocess, sys
from splitc.testbed.bed import Bed
from splitc.testbed.spec import LinkSpec, Rate

with Bed(LinkSpec(Rate(1e6), Rate(1e6), rtt_s=0.02, queue_bytes=9000)) as bed:
    programs = [
        bed.start(place, [sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for place in ("device", "cloud")
    ]
    inside = [program.stdout.readline().decode() for program in programs]
    print(bed._forwarder.pid, *" ".join(inside).split(), flush=True)
    exec(sys.argv[2])
"""


@dataclass
class Owner:
    """A process with a bed: its forwarder, and what runs on both sides."""

    program: subprocess.Popen[str]
    forwarder: psutil.Process
    inside: list[psutil.Process]


def own(then: str) -> Owner:
    """Have a process make a bed with programs in it, and then do something."""
    program = subprocess.Popen(
        [sys.executable, "-c", OWNER, LONG_LIVED, then],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    assert program.stdout is not None
    forwarder, *inside = (int(word) for word in program.stdout.readline().split())
    assert len(inside) == 4
    return Owner(program, psutil.Process(forwarder), [psutil.Process(pid) for pid in inside])


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("then", "end", "code"),
    [
        ("input()", lambda _: None, 0),
        ("input(); raise SystemExit(3)", lambda _: None, 3),
        ("input(); 1 / 0", lambda _: None, 1),
        ("input()", lambda owner: owner.program.send_signal(signal.SIGINT), -signal.SIGINT),
        ("input()", lambda owner: owner.program.kill(), -signal.SIGKILL),
        ("input()", lambda owner: owner.forwarder.kill(), 0),
    ],
    ids=["end", "exit", "exception", "Ctrl-C", "killed", "forwarder killed"],
)
def test_nothing_is_left(then: str, end: Callable[[Owner], None], code: int) -> None:
    """With the last process in it, the kernel removes a namespace and the interfaces in it."""
    owner = own(then)
    with owner.program:
        sides = {network_of(process.pid) for process in owner.inside}
        assert len(sides) == 2
        assert network_of(os.getpid()) not in sides
        end(owner)
        owner.program.communicate("\n", timeout=60)
    assert owner.program.returncode == code
    assert eventually(lambda: not any(alive(process) for process in [owner.forwarder, *owner.inside]))


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


TRY = """
from splitc.testbed.bed import Bed
from splitc.common.errors import TestBedError
from splitc.testbed.spec import LinkSpec, Rate
try:
    with Bed(LinkSpec(Rate(1e6), Rate(1e6), rtt_s=0.02, queue_bytes=9000)) as bed:
        print(bed.start("device", ["true"]).wait(20), bed.congestion_control)
except TestBedError as error:
    print(error)
"""


def try_as(*prefix: str) -> str:
    """Make a bed in another process and say how it went."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", TRY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_without_privileges(pair: Pair) -> None:
    """Root without CAP_SYS_ADMIN, as in many containers, needs a user namespace like anybody else."""
    weak = ["setpriv", "--bounding-set=-sys_admin"] if os.geteuid() == 0 else []
    if subprocess.run([*weak, "unshare", "--user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets this user make no user namespaces")
    assert try_as(*weak) == f"0 {pair.bed.congestion_control}"


def test_where_namespaces_are_not_allowed() -> None:
    enter = ["unshare", "--user", "--map-root-user"]
    forbid = "echo 0 >/proc/sys/user/max_net_namespaces"
    if subprocess.run([*enter, "sh", "-c", forbid], check=False, capture_output=True).returncode:
        pytest.skip("this system lets this user make no user namespaces")
    said = try_as(*enter, "sh", "-c", f'{forbid}; exec "$@"', "sh")
    assert said.startswith(
        "this system does not allow namespaces to this user (No space left on device); run as "
    )
    assert "\n" not in said


def test_without_nsenter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TestBedError, match="needs the program nsenter; install the package util-linux"):
        Bed(SPEC)
