"""When the device begins, when the server is given up, and that a failure keeps nothing in memory."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from splitc.bundle import Bundle, read_bundle
from splitc.decision import Conditions
from splitc.errors import DeadlineExceeded, ProtocolError
from splitc.runtime.connection import Buffer, Reply
from splitc.runtime.session import Session
from splitc.runtime.transport import HttpTransport
from splitc.runtime.workers import Workers
from tests.conftest import Tiny
from tests.runtime import servers
from tests.runtime.test_session import FAST, INPUTS, of_kind, variant


@dataclass
class Silent:
    """A transport that answers nothing before the deadline; remembers how long each was."""

    allowed_s: list[float] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def exchange(
        self,
        method: str,  # noqa: ARG002
        path: str,
        headers: Mapping[str, str],  # noqa: ARG002
        body: Sequence[Buffer],  # noqa: ARG002
        *,
        deadline_s: float,
    ) -> Reply:
        if path.endswith("/infer"):
            self.allowed_s.append(deadline_s - time.monotonic())
        self.closed.wait(deadline_s - time.monotonic())
        raise DeadlineExceeded("silence")

    def close(self) -> None:
        self.closed.set()


class Kept:
    """Something large."""


@dataclass
class Failing:
    """A transport that fails with something large in its hands."""

    seen: list["weakref.ref[Kept]"] = field(default_factory=list)

    def exchange(self, method: str, *_: object, **__: object) -> Reply:
        kept = Kept()
        self.seen.append(weakref.ref(kept))
        raise ProtocolError(f"not to a {method}")

    def close(self) -> None:
        pass


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Memory is freed when nothing refers to it, and not later by the collector of cycles."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def headless(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuts = tuple(cut for cut in tiny.bundle.manifest.cuts if cut.kind != "all-head")
    return variant(tiny.bundle, replace(tiny.bundle.manifest, cuts=cuts), tmp_path_factory.mktemp("headless"))


def test_a_device_that_is_too_slow_for_the_deadline_leaves_the_time_to_the_server(tiny: Tiny) -> None:
    """All-head takes 0.09 s in the manifest, and here a hundred times as long, or so it is believed."""
    slow = Conditions(1e9, 1e9, rtt_s=1e-3, head_slowdown=100)
    with (
        servers.serve(servers.Tails(tiny.bundle)) as server,
        Session(tiny.bundle.folder, server=server.url, start=slow, cut=of_kind(tiny, "all-tail")) as session,
    ):
        outcome = session.request(INPUTS, deadline_s=5.0)
        assert outcome.finished == "cloud", outcome.fallback
        assert session.request(INPUTS, deadline_s=0.0).fallback == "no time was left for the server"


def test_without_an_all_head_cut_a_request_ends_soon_after_its_deadline(headless: Path, tiny: Tiny) -> None:
    """Else requests to a dead server would pile up."""
    silent = Silent()
    with Session(headless, transport=silent, start=FAST, cut=of_kind(tiny, "all-tail")) as session:
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                session.run(INPUTS, deadline_s=0.05)
        assert silent.allowed_s[0] < 1.0
        assert max(silent.allowed_s[1:]) <= 0.05


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("whole", [True, False], ids=["the device finishes", "the error is the caller's"])
def test_a_failed_exchange_keeps_nothing(tiny: Tiny, headless: Path, whole: bool) -> None:
    failing = Failing()
    bundle = tiny.bundle if whole else read_bundle(headless)
    with Session(bundle.folder, transport=failing, start=FAST, cut=of_kind(tiny, "all-tail")) as session:
        if whole:
            assert session.request(INPUTS).fallback == "not to a POST"
        else:
            with pytest.raises(ProtocolError):
                session.request(INPUTS)
    assert failing.seen
    assert not any(seen() for seen in failing.seen)


@pytest.mark.usefixtures("no_collection")
def test_a_failed_task_keeps_nothing() -> None:
    seen: list[weakref.ref[Kept]] = []

    def task() -> None:
        kept = Kept()
        seen.append(weakref.ref(kept))
        raise ProtocolError("no")

    workers = Workers()
    assert isinstance(workers.start(task).exception(servers.LONGEST_S), ProtocolError)
    workers.close(servers.LONGEST_S)
    assert seen[0]() is None


def test_an_answer_may_not_be_much_larger_than_the_outputs(tiny: Tiny) -> None:
    """Ten numbers; where sizes are not fixed, more is allowed."""
    assert _allowed_bytes(tiny.bundle) == 1 << 20


def _allowed_bytes(bundle: Bundle) -> int:
    with Session(bundle.folder, server="http://127.0.0.1:1", cut=bundle.manifest.cuts[0].id) as session:
        transport = session._transport
        assert isinstance(transport, HttpTransport)
        return transport._max_reply_bytes
