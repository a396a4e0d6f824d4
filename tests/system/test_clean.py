"""Nothing is left behind: after many requests, a fork, a Ctrl-C, an end in the middle. And what else an app may do."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from splitc.bundle.pack import pack
from splitc.runtime.aio import AsyncSession
from splitc.runtime.session import Session
from tests import running
from tests.runtime.servers import exit_status
from tests.system.proxy import Fault, Plan, every, proxied
from tests.system.serving import (
    FAST,
    LIMIT_S,
    App,
    Crowd,
    Held,
    Server,
    device,
    serving,
    times,
    until,
)

_FAULTS = (
    Fault("up", 60_000, "reset"),
    Fault("down", 60_000, "close"),
    Fault("up", 60_000, "stall", 0.3),
    Fault("down", 60_000, "stall", 0.3),
    Fault("down", 0, "close"),
)
# Pages that an allocator keeps for the next time are no leak; over ten thousand requests they would be.
_KEPT_BYTES = 32 << 20


@pytest.fixture(scope="module")
def server(app: App) -> Iterator[Server]:
    with serving(app.bundle.folder) as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "plan"),
    [("all-tail", lambda _: None), ("split", every(25, *_FAULTS))],
    ids=["all of them well", "some of them cut or stalled"],
)
def test_many_requests_leave_nothing_on_either_side(app: App, tmp_path: Path, kind: str, plan: Plan) -> None:
    samples = app.save_samples(tmp_path / "samples.npz")
    options = {"deadline_s": 1.0, "cut": app.cut(kind).id}
    with (
        serving(app.bundle.folder) as server,
        proxied(server.port, plan) as proxy,
        device(app.bundle.folder, samples, server=proxy.url, **options) as process,
    ):
        first = process.request(150)
        pids = (process.process.pid, server.process.pid)
        before = [Held.by(pid) for pid in pids]
        count = times(300, 10_000)
        done = [process.request(count)]
        # How many the device makes alone while a connection stalls depends on how fast this machine is just then.
        end_s = time.monotonic() + LIMIT_S
        while sum(item["cloud"] for item in done) < count / 3 and time.monotonic() < end_s:
            done.append(process.request(count // 6))
        after = [Held.by(pid) for pid in pids]
        in_cloud = sum(item["cloud"] for item in done)
        sys.stdout.write(
            f"{in_cloud} in the cloud, {len(proxy.applied)} faults; {before} before, {after} after\n"
        )
        assert [(item["wrong"], item["nowhere"]) for item in [first, *done]] == [(0, 0)] * (1 + len(done))
        assert in_cloud >= count / 3
        assert bool(proxy.applied) == (kind == "split")
        for early, late in zip(before, after, strict=True):
            assert late.memory_bytes < early.memory_bytes + _KEPT_BYTES
            assert late.files <= early.files + 8
            assert late.threads <= early.threads + 3
        assert len(done[-1]["threads"]) <= len(first["threads"]) + 3
        assert process.end() == 0
        until(lambda: server.value("splitc_in_flight_requests") == 1, "there is none but the one who asks")


def test_two_sessions_in_parallel_threads(app: App, namesake: App, server: Server) -> None:
    """One of them goes to another server, of another model: nothing is mixed up, and the end of one is not the other's."""
    with (
        serving(namesake.bundle.folder) as other,
        Session(app.bundle.folder, server=server.url, start=FAST) as one,
        Session(namesake.bundle.folder, server=other.url, start=FAST) as two,
    ):
        pairs = [(app, one), (namesake, two)] * 2
        found: list[tuple[bool, str]] = []

        def work(made: App, session: Session) -> None:
            for number in range(times(40, 2000)):
                outcome = session.request(made.input(number))
                found.append((made.is_right(number, outcome.outputs), outcome.finished))

        workers = [threading.Thread(target=work, args=pair) for pair in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(LIMIT_S)
        two.close()
        until(lambda: one.request(app.input(0)).finished == "cloud", "the cloud is used")
    assert len(found) == 4 * times(40, 2000)
    assert all(is_right for is_right, _ in found)
    assert sum(where == "cloud" for _, where in found) > len(found) / 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # since Python 3.12, where there are threads
def test_forks_of_a_process_in_the_middle_of_requests(app: App, server: Server) -> None:
    with Session(app.bundle.folder, server=server.url, start=FAST, cut=app.cut("split").id) as session:

        def work(number: int) -> None:
            assert app.is_right(number, session.run(app.input(number)))

        with Crowd(2, work):
            until(lambda: server.value("splitc_receive_seconds_count") > 10, "requests are served")
            assert [exit_status(_fork(app, session)) for _ in range(times(3, 100))] == [0] * times(3, 100)
        until(lambda: session.request(app.input(0)).finished == "cloud", "the cloud is used")


def _fork(app: App, session: Session) -> int:
    """A child that makes requests; it exits with 0 if each came back right, and the cloud was used."""
    child = os.fork()
    if child:
        return child
    status = 1
    with suppress(BaseException):
        outcomes = [session.request(app.input(number)) for number in range(10)]
        right = [app.is_right(number, outcome.outputs) for number, outcome in enumerate(outcomes)]
        session.close()
        status = 0 if all(right) and any(outcome.finished == "cloud" for outcome in outcomes) else 2
    os._exit(status)


# --- ends in the middle ---


@pytest.mark.parametrize("silent", [False, True], ids=["while it answers", "while it is silent"])
@pytest.mark.parametrize("cut", ["auto", "all-tail", "split"])
def test_ctrl_c_in_the_middle_of_many_requests(app: App, tmp_path: Path, cut: str, silent: bool) -> None:
    with serving(app.bundle.folder) as server:
        command = [*running.LAUNCH, "run", app.bundle.folder, "--server", server.url, "--repeat", "1000000"]
        command += ["--cut", cut if cut == "auto" else app.cut(cut).id]
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=running.hear_interrupts,
        )
        with process:
            until(lambda: server.value("splitc_receive_seconds_count") > 20, "requests are served")
            if silent:
                server.process.send_signal(signal.SIGSTOP)
                time.sleep(0.1)  # for a request to be under way
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            out, err = process.communicate(timeout=LIMIT_S)
            took_s = time.monotonic() - began_s
            sys.stdout.write(f"{took_s:.2f} s, {err!r}\n")
            server.process.send_signal(signal.SIGCONT)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "Traceback" not in out
        assert not list(tmp_path.iterdir())
        assert server.is_well()


def test_ctrl_c_that_an_app_survives(headless: App) -> None:
    """While the server is silent and the device cannot do without it; then the session goes on as before."""
    with (
        serving(headless.bundle.folder) as server,
        Session(headless.bundle.folder, server=server.url, start=FAST) as session,
    ):
        assert headless.is_right(0, session.run(headless.input(0)))
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                session.run(headless.input(0))
            timer.join()
        server.process.send_signal(signal.SIGCONT)
        for number in range(5):
            assert headless.is_right(number, session.run(headless.input(number)))
        assert server.is_well()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_requests_in_flight(heavy: App, tmp_path: Path, number: signal.Signals) -> None:
    samples = heavy.save_samples(tmp_path / "samples.npz")
    options = {"cut": heavy.cut("all-tail").id, "deadline_s": 1.0}
    with serving(heavy.bundle.folder, "--max-batch", "1") as server:
        with (
            device(heavy.bundle.folder, samples, server=server.url, **options) as one,
            device(heavy.bundle.folder, samples, server=server.url, **options) as two,
        ):
            for process in (one, two):
                assert process.request(5)["cloud"] > 0
                process.tell(60)
            until(lambda: server.value("splitc_in_flight_requests") > 1, "requests are in flight")
            assert server.end(number) == 0
            for process in (one, two):
                done = process.hear()
                assert (done["wrong"], done["nowhere"]) == (0, 0)
                assert done["cloud"] + done["device"] == 60
                assert process.end() == 0
        assert [line["event"] for line in server.log()] == ["start", "stop"]
        assert server.log()[-1]["unanswered"] == 0


# --- what else an app may do ---


def test_fifty_requests_at_once_some_of_which_are_cancelled(app: App, server: Server) -> None:
    async def work() -> None:
        async with AsyncSession(app.bundle.folder, server=server.url, start=FAST) as session:
            for _ in range(times(3, 200)):
                tasks = [asyncio.create_task(session.request(app.input(number))) for number in range(50)]
                await asyncio.sleep(0.005)
                for task in tasks[::7]:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                for number, outcome in enumerate(outcomes):
                    if isinstance(outcome, asyncio.CancelledError):
                        assert number % 7 == 0
                    else:
                        assert not isinstance(outcome, BaseException)
                        assert app.is_right(number, outcome.outputs)
            again = [await session.request(app.input(0)) for _ in range(5)]
            assert any(outcome.finished == "cloud" for outcome in again)

    before = threading.active_count()
    asyncio.run(asyncio.wait_for(work(), LIMIT_S))
    until(lambda: threading.active_count() <= before, "the threads of the session end")
    assert server.is_well()


def test_an_app_has_numpy_and_onnxruntime_only(app: App, server: Server, tmp_path: Path) -> None:
    """In an environment without the compiler, from a pack for the device."""
    blocked = "click jinja2 ml_dtypes onnx onnx_ir onnxsim platformdirs psutil rich scipy uvicorn".split()
    pack(app.bundle.folder, "device", tmp_path / "app.zip")
    samples = app.save_samples(tmp_path / "samples.npz")
    options = {"server": server.url, "cache": str(tmp_path / "cache"), "blocked": blocked}
    for kind in ("all-head", "split", "all-tail"):
        with device(tmp_path / "app.zip", samples, cut=app.cut(kind).id, **options) as process:
            done = process.request(10)
            assert done["wrong"] == 0
            # The device may be ahead of an answer that a busy machine delays; by itself it never needs the cloud.
            assert done["cloud"] + done["device"] == 10
            assert done["device"] == 10 if kind == "all-head" else done["cloud"] > 0
            assert set(blocked) & set(done["modules"]) == set()
            assert process.end() == 0


def test_a_client_of_triton(app: App, server: Server, tmp_path: Path) -> None:
    """Unmodified; in an environment of its own if SPLITC_TRITON_PYTHON names its interpreter."""
    python = os.environ.get("SPLITC_TRITON_PYTHON", sys.executable)
    here = [python, str(Path(__file__).with_name("triton_client.py"))]
    known = subprocess.run([python, "-c", "import tritonclient.http"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip("tritonclient[http] is not installed; name a Python that has it in SPLITC_TRITON_PYTHON")
    samples = app.save_samples(tmp_path / "samples.npz")
    address = server.url.removeprefix("http://")
    done = subprocess.run(
        [*here, address, app.tail("all-tail"), str(samples)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4
