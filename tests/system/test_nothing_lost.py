"""Whatever happens to the server or the way to it, each request ends in what the whole model makes of it."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from splitc.common.errors import DeadlineExceeded, RuntimeFailure, TestBedError, TransportError
from splitc.protocol import messages
from splitc.runtime.session import Outcome, Session
from splitc.testbed.bed import Bed
from splitc.testbed.spec import LinkSpec, Rate
from tests import running
from tests.system.proxy import Fault, every, proxied
from tests.system.serving import (
    BUSY_S,
    FAST,
    LIMIT_S,
    App,
    Crowd,
    Device,
    Server,
    ask,
    device,
    device_command,
    serving,
    times,
    until,
)

OK, FULL = 200, 503
DEADLINE_S = 1.0
# In the manifest, all-head takes 30 s, and no device is believed to be more than 100 times as fast as that.
DEVICE_S = 0.3


@dataclass
class Ledger:
    """What came of the requests to a session, from several threads."""

    app: App
    session: Session
    outcomes: list[Outcome] = field(default_factory=list)
    wrong: list[Outcome] = field(default_factory=list)
    number: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, _: int = 0) -> None:
        with self.lock:
            number, self.number = self.number, self.number + 1
        outcome = self.session.request(self.app.input(number))
        with self.lock:
            self.outcomes.append(outcome)
            if not self.app.is_right(number, outcome.outputs):
                self.wrong.append(outcome)

    def finished(self, where: str) -> int:
        with self.lock:
            return sum(outcome.finished == where for outcome in self.outcomes)

    def wait_for_more(self, where: str, count: int = 10) -> None:
        before = self.finished(where)
        until(lambda: self.finished(where) >= before + count, f"{count} more requests end in the {where}")

    def check(self) -> None:
        """Everything was right and in time."""
        assert not self.wrong
        slowest_s = max(outcome.latency_s for outcome in self.outcomes)
        reasons = Counter(outcome.fallback for outcome in self.outcomes)
        note(requests=len(self.outcomes), slowest_s=slowest_s, reasons=reasons)
        assert slowest_s < DEADLINE_S + DEVICE_S + BUSY_S
        assert all(reason is None or reason.isprintable() for reason in reasons)


def note(**facts: Any) -> None:
    """Shown with -s, and when a test fails."""
    sys.stdout.write(f"{facts}\n")


# --- the server ---


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_under_load(app: App) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(app.bundle.folder))
        session = stack.enter_context(
            Session(app.bundle.folder, server=server.url, start=FAST, deadline_s=DEADLINE_S)
        )
        ledger = Ledger(app, session)
        with Crowd(4, ledger.request):
            for _ in range(times(1, 20)):
                server.wait_for_runs()
                server.kill()
                ledger.wait_for_more("device")
                server = stack.enter_context(serving(app.bundle.folder, port=server.port))
                server.wait_for_runs()
    ledger.check()


@pytest.mark.parametrize("deadline_s", [DEADLINE_S, DEVICE_S / 2], ids=["in time", "too late for the device"])
def test_a_server_that_hangs(app: App, deadline_s: float) -> None:
    with (
        serving(app.bundle.folder) as server,
        Session(app.bundle.folder, server=server.url, start=FAST, deadline_s=deadline_s) as session,
    ):
        ledger = Ledger(app, session)
        with Crowd(2, ledger.request):
            ledger.wait_for_more("cloud")
            server.process.send_signal(signal.SIGSTOP)
            ledger.wait_for_more("device")
            server.process.send_signal(signal.SIGCONT)
            server.wait_for_runs()
    ledger.check()


@pytest.mark.slow
def test_an_overloaded_server(heavy: App) -> None:
    """At least five requests come for each that it can serve; a device has an answer of its own to the others."""
    statuses: Counter[int] = Counter()
    with (
        serving(heavy.bundle.folder, "--max-queue", "3", "--max-batch", "1") as server,
        Session(heavy.bundle.folder, server=server.url, start=FAST, deadline_s=DEADLINE_S) as session,
    ):
        ledger = Ledger(heavy, session)
        with Crowd(20, partial(insist, heavy, server.address, statuses)), Crowd(2, ledger.request):
            until(lambda: statuses[OK] >= times(10, 1000), "requests are served")
            until(lambda: statuses[FULL] >= 4 * statuses[OK], "far more are refused")
            ledger.wait_for_more("device")
        assert statuses.keys() == {OK, FULL}
        refused = server.value("splitc_refusals_total", reason="queue")
        assert refused == server.value("splitc_requests_total", status="503") >= statuses[FULL]
        assert server.is_well()
        until(lambda: session.request(heavy.input(0)).finished == "cloud", "the cloud is used again")
    note(statuses=statuses)
    ledger.check()


def insist(app: App, address: tuple[str, int], statuses: Counter[int], _: int) -> None:
    """Ask as a client that does not give way."""
    message = messages.encode_request(app.input(0), ["y"])
    body = b"".join([message.json, *map(bytes, message.buffers)])
    path = f"/v2/models/{app.tail('all-tail')}/infer"
    status, answer = ask(address, "POST", path, message.headers(), body)
    statuses[status] += 1
    if status == OK:
        outputs = messages.decode_response(answer, len(answer) - app.wanted[0]["y"].nbytes)
        assert app.is_right(0, outputs)
    time.sleep(0.01)


def test_a_server_of_another_bundle_of_the_same_name(
    app: App, namesake: App, caplog: pytest.LogCaptureFixture
) -> None:
    assert app.bundle.digest != namesake.bundle.digest
    with (
        caplog.at_level(logging.WARNING),
        serving(namesake.bundle.folder) as server,
        Session(app.bundle.folder, server=server.url, start=FAST, deadline_s=DEADLINE_S) as session,
    ):
        ledger = Ledger(app, session)
        with Crowd(2, ledger.request):
            ledger.wait_for_more("device", times(50, 5000))
        assert server.value("splitc_refusals_total", reason="bundle") >= 1
        assert [line["status"] for line in server.log() if line["event"] == "refused"] == [412]
    ledger.check()
    assert ledger.finished("cloud") == 0
    [record] = [record for record in caplog.records if record.name.startswith("splitc")]
    assert "412" in record.getMessage()


# --- the way to it ---

_BREAKS = {
    "reset while uploading": Fault("up", 60_000, "reset"),
    "closed while uploading": Fault("up", 60_000, "close"),
    "reset while downloading": Fault("down", 60_000, "reset"),
    "closed while downloading": Fault("down", 60_000, "close"),
    "reset in the head of the answer": Fault("down", 20, "reset"),
    "closed before the answer": Fault("down", 0, "close"),
}


@pytest.fixture(scope="module")
def server(app: App) -> Iterator[Server]:
    with serving(app.bundle.folder) as server:
        yield server


@pytest.mark.parametrize("name", _BREAKS)
@pytest.mark.parametrize("kind", ["split", "all-tail"])
def test_connections_that_break(app: App, server: Server, name: str, kind: str) -> None:
    with (
        proxied(server.port, every(3, _BREAKS[name])) as proxy,
        Session(
            app.bundle.folder, server=proxy.url, start=FAST, deadline_s=DEADLINE_S, cut=app.cut(kind).id
        ) as session,
    ):
        ledger = Ledger(app, session)
        for _ in range(times(15, 300)):
            ledger.request()
        assert proxy.applied
        # After two faults in a row the server is left alone for a while, and all of those may have met that while.
        with Crowd(1, ledger.request):
            until(lambda: ledger.finished("cloud") > 0, "a request ends in the cloud")
    ledger.check()
    assert server.is_well()


@pytest.mark.parametrize("stall_s", [0.2, LIMIT_S], ids=["for a moment", "for ever"])
def test_every_fifth_request_stalls(app: App, server: Server, stall_s: float) -> None:
    stalls = [Fault("up", 60_000, "stall", stall_s), Fault("down", 60_000, "stall", stall_s)]
    with (
        proxied(server.port, every(5, *stalls)) as proxy,
        Session(app.bundle.folder, server=proxy.url, start=FAST, deadline_s=DEADLINE_S) as session,
    ):
        ledger = Ledger(app, session)
        with Crowd(3, ledger.request):
            until(lambda: len(proxy.applied) >= times(3, 50), "requests stalled")
            server.wait_for_runs()
    ledger.check()
    assert server.is_well()


@pytest.mark.slow
def test_a_black_hole_in_a_real_network(app: App, tmp_path: Path) -> None:
    try:
        bed = Bed(LinkSpec(Rate(100e6), Rate(100e6), rtt_s=0.005, queue_bytes=1_000_000))
    except TestBedError as error:
        pytest.skip(str(error))
    samples = app.save_samples(tmp_path / "samples.npz")
    with bed:
        command = [*running.LAUNCH, "serve", str(app.bundle.folder), "--host", bed.cloud_address, "--json"]
        server = bed.start("cloud", command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout is not None
        address = f"http://{bed.cloud_address}:8000"
        assert address.encode() in server.stdout.readline() + server.stdout.readline()
        # With its cut fixed, the device begins only when the cloud is late: as it is the faster one here, no request
        # would end in the cloud for a while otherwise.
        cut = app.cut("all-tail").id
        options: dict[str, Any] = {"server": address, "deadline_s": DEADLINE_S, "cut": cut}
        process = bed.start(
            "device",
            device_command(app.bundle.folder, samples, **options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with Device(process) as device:
            _request_until(device, "cloud")
            for silence, then in ((bed.black_hole, "device"), (bed.restore, "cloud"), (bed.cut, "device")):
                silence()
                _request_until(device, then)
            bed.restore()
            _request_until(device, "cloud")
            assert device.end() == 0
        server.stdout.close()


def _request_until(device: Device, where: str) -> None:
    """Make requests until they end there."""

    def ends_there() -> bool:
        done = device.request(3)
        assert done["wrong"] == 0
        assert done["cloud"] + done["device"] == 3
        assert done["slowest_s"] < DEADLINE_S + DEVICE_S + BUSY_S
        return bool(done[where] == 3)

    until(ends_there, f"requests end in the {where}")


# --- the device ---


@pytest.mark.slow
def test_a_clock_that_jumps(app: App, tmp_path: Path) -> None:
    """On both sides: whatever the time of day is, a second takes a second."""
    samples = app.save_samples(tmp_path / "samples.npz")
    jumping = [sys.executable, str(Path(__file__).with_name("jumping.py"))]
    with (
        serving(app.bundle.folder, launch=[*jumping, "splitc"]) as server,
        proxied(server.port, every(10, *_BREAKS.values())) as proxy,
        device(
            app.bundle.folder,
            samples,
            launch=jumping,
            server=proxy.url,
            deadline_s=DEADLINE_S,
            cut=app.cut("split").id,
        ) as process,
    ):

        def most_end_in_the_cloud() -> bool:
            done = process.request(times(50, 1000))
            assert done["wrong"] == 0
            assert done["cloud"] + done["device"] == times(50, 1000)
            assert done["slowest_s"] < DEADLINE_S + DEVICE_S + BUSY_S
            return bool(done["cloud"] > done["device"] > 0)

        # After two late answers in a row, as of a busy machine, the server is left alone for up to a second, and so
        # many requests may meet that second, but not again and again.
        until(most_end_in_the_cloud, "most requests end in the cloud, some on the device")
        assert process.end() == 0
        assert server.end() == 0


@pytest.mark.parametrize("deadline_s", [None, 0.3])
def test_without_an_all_head_cut_there_is_a_result_or_a_reason(
    headless: App, deadline_s: float | None
) -> None:
    with serving(headless.bundle.folder) as server:
        plan = every(3, *_BREAKS.values(), Fault("up", 60_000, "stall", 0.1))
        with (
            proxied(server.port, plan) as proxy,
            Session(headless.bundle.folder, server=proxy.url, start=FAST) as session,
        ):
            reasons: list[str] = []
            for number in range(times(30, 600)):
                began_s = time.monotonic()
                try:
                    outputs = session.run(headless.input(number), deadline_s=deadline_s)
                except (TransportError, DeadlineExceeded) as error:
                    reasons.append(str(error))
                else:
                    assert headless.is_right(number, outputs)
                assert time.monotonic() - began_s < (deadline_s or 0) + BUSY_S
            assert proxy.applied
            assert reasons
            assert all(reason.isprintable() for reason in reasons)
            server.kill()
            with pytest.raises(TransportError, match="the connection"):
                session.run(headless.input(0), deadline_s=deadline_s)


def test_without_an_all_head_cut_a_silent_server_is_a_missed_deadline(headless: App) -> None:
    with (
        serving(headless.bundle.folder) as server,
        Session(headless.bundle.folder, server=server.url, start=FAST) as session,
    ):
        assert headless.is_right(0, session.run(headless.input(0)))
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            began_s = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="no all-head cut"):
                session.run(headless.input(0), deadline_s=0.3)
            assert 0.3 <= time.monotonic() - began_s < 0.3 + BUSY_S
        server.process.send_signal(signal.SIGCONT)
        until(lambda: _answers(session, headless), "the server answers again")


def _answers(session: Session, app: App) -> bool:
    try:
        return app.is_right(1, session.run(app.input(1), deadline_s=0.3))
    except RuntimeFailure:
        return False
