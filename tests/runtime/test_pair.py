"""When the device begins, when the server is given up, and that a failure keeps nothing in memory."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from splitc.bundle.decide import Conditions, Decision, latency_s
from splitc.bundle.folder import Bundle, read_bundle
from splitc.common import ort
from splitc.common.errors import DeadlineExceeded, ModelError, ProtocolError
from splitc.common.values import difference
from splitc.runtime import pair as pair_module
from splitc.runtime.client import Answer
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.http.connection import Buffer, Reply
from splitc.runtime.http.transport import HttpTransport
from splitc.runtime.session import Session
from splitc.runtime.workers import Workers
from tests.conftest import Tiny
from tests.runtime import servers
from tests.runtime.test_device_parts import eventually
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


@pytest.mark.parametrize(
    ("alone_s", "late_s"),
    [(0.5, 0.6), (0.8, 0.8), (5.0, 0.9), (0.01, 0.6)],
    ids=["soon", "when the device alone would be done", "at the latest", "asked for"],
)
def test_an_answer_is_late_when_the_device_alone_would_be_done(
    tiny: Tiny, alone_s: float, late_s: float
) -> None:
    """It is expected after 0.4 s, and late after 1.25 times or twice that and 0.1 s; given up after 2.1 s."""
    given = Conditions(1e9, 1e9, rtt_s=0.4)
    cuts = {cut.id: cut for cut in tiny.bundle.manifest.cuts}
    cut = cuts[of_kind(tiny, "all-tail")]
    given = replace(given, rtt_s=given.rtt_s - (latency_s(cut, given) - 0.4))
    all_head = cuts[of_kind(tiny, "all-head")]
    assert all_head.head is not None
    given = replace(given, device_slowdown=alone_s / all_head.head.latency_s)
    with Session(tiny.bundle.folder, transport=Silent()) as session:
        limits = session._pair._limits(Decision(cut, latency_s(cut, given), given, "so it is"), None)
    assert limits.give_up_s - limits.late_s == pytest.approx(2.1 - late_s)


@pytest.mark.parametrize("chosen", ["free", "fixed"])
def test_while_answers_are_late_the_device_begins_at_once_unless_the_cut_is_fixed(
    tiny: Tiny, chosen: str
) -> None:
    cuts = {cut.id: cut for cut in tiny.bundle.manifest.cuts}
    cut = cuts[of_kind(tiny, "all-tail")]
    decision = Decision(cut, latency_s(cut, FAST), FAST, "so it is")
    with Session(
        tiny.bundle.folder, transport=Silent(), cut=cut.id if chosen == "fixed" else None
    ) as session:
        pair = session._pair
        steady = pair._limits(decision, None)
        assert steady.alone_s == steady.late_s
        pair.cloud.was_late()
        unsteady = pair._limits(decision, None)
        if chosen == "fixed":
            assert unsteady.alone_s == unsteady.late_s
        else:
            assert unsteady.alone_s <= time.monotonic() < unsteady.late_s


def test_where_both_are_done_the_answer_counts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(task: Callable[[], object]) -> "Future[object]":
        done = Future[object]()
        done.set_result(task())
        return done

    monkeypatch.setattr(pair_module, "beside", at_once)
    answer = Answer({}, ObservedExchange(1, 1, 0.1, 0.1, None, None, None, None))
    offload = Future[Answer]()
    offload.set_result(answer)
    all_head = next(cut for cut in tiny.bundle.manifest.cuts if cut.kind == "all-head")
    with Session(tiny.bundle.folder, transport=Silent()) as session:
        for _ in range(20):  # in whichever order they are looked at
            assert session._pair._first(offload, all_head, dict(INPUTS), time.monotonic() + 1) is answer


def test_an_answer_that_comes_first_ends_the_run_of_the_device(tiny: Tiny) -> None:
    """Whoever is first, the result is right, and nothing that was begun keeps the device busy or is learned from."""
    with (
        servers.serve(servers.Tails(tiny.bundle)) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST) as session,
    ):
        want = session.request(INPUTS)
        for _ in range(20):
            session._pair.cloud.was_late()
            outcome = session.request(INPUTS)
            assert difference(outcome.outputs["logits"], want.outputs["logits"]).max_rel < 1e-4
            assert (outcome.exchange is None) == (
                outcome.fallback is not None or outcome.decision.cut.cloud is None
            )


@pytest.mark.parametrize("asks", ["for speed", "for little work in the cloud"])
def test_where_the_device_begins_anyway_it_sends_what_it_would_have_done_alone(tiny: Tiny, asks: str) -> None:
    """The link is better than believed: that is known with the answer, and not after a probe."""
    all_head = next(cut for cut in tiny.bundle.manifest.cuts if cut.kind == "all-head")
    believed = replace(FAST, rtt_s=2.0, device_slowdown=1.0 / all_head.device_s)
    with (
        servers.serve(servers.Tails(tiny.bundle)) as server,
        Session(tiny.bundle.folder, server=server.url, start=believed) as session,
    ):
        assert session._decide(session._pair, None).cut.kind == "all-head"
        session._pair.cloud.was_late()
        outcome = session.request(INPUTS, sla_s=None if asks == "for speed" else 1.5)
        if asks == "for speed":
            assert outcome.decision.cut.kind == "all-tail"
            assert eventually(lambda: session.conditions().rtt_s < 1.0)
        else:
            assert outcome.decision.cut.kind == "all-head"


def test_an_interrupted_run_makes_nothing(tiny: Tiny) -> None:
    parts = DeviceParts(tiny.bundle)
    cut = next(cut for cut in tiny.bundle.manifest.cuts if cut.kind == "all-head")
    interrupt = ort.Interrupt()
    assert parts.run(cut, INPUTS, interrupt)
    interrupt.set()
    with pytest.raises(ModelError):
        parts.run(cut, INPUTS, interrupt)


def test_after_silence_the_next_request_does_not_pay_again(tiny: Tiny) -> None:
    """Though the server is not avoided yet: that takes two failures."""
    with Session(tiny.bundle.folder, transport=Silent(), start=FAST) as session:
        assert session.request(INPUTS).fallback == "the server was late"
        assert eventually(lambda: session.conditions().rtt_s > 100 * FAST.rtt_s)
        outcome = session.request(INPUTS)
        assert outcome.decision.conditions.uplink_bps > 0
        assert outcome.cut == of_kind(tiny, "all-head")
        assert outcome.fallback is None


def test_a_request_that_is_given_up_has_the_link_measured(tiny: Tiny) -> None:
    """The link is well: one probe tells, and no request has to try it."""
    goes_on = threading.Event()

    def hold(request: servers.Request) -> None:
        if request.path.endswith("/infer"):
            goes_on.wait(servers.LONGEST_S)

    tails = servers.Tails(tiny.bundle)
    with (
        servers.serve(tails) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST) as session,
    ):
        session.run(INPUTS)
        cloud = session._pair.cloud
        assert eventually(lambda: not cloud.is_probing())
        probes = sum(request.path == "/v2/health/live" for request in server.requests)
        tails.instead = hold
        session.request(INPUTS)
        assert eventually(
            lambda: sum(request.path == "/v2/health/live" for request in server.requests) > probes
        )
        assert eventually(lambda: not cloud.is_probing() and session.conditions().rtt_s < 0.1)
        goes_on.set()


def test_a_device_that_is_too_slow_for_the_deadline_leaves_the_time_to_the_server(tiny: Tiny) -> None:
    """All-head takes 0.09 s in the manifest, and here a hundred times as long, or so it is believed."""
    slow = Conditions(1e9, 1e9, rtt_s=1e-3, device_slowdown=100)
    with (
        servers.serve(servers.Tails(tiny.bundle)) as server,
        Session(tiny.bundle.folder, server=server.url, start=slow, cut=of_kind(tiny, "all-tail")) as session,
    ):
        outcome = session.request(INPUTS, deadline_s=5.0)
        assert outcome.finished == "cloud", outcome.fallback
        assert (
            session.request(INPUTS, deadline_s=0.0).fallback
            == "the deadline had passed before anything could be sent to the server"
        )


def test_without_an_all_head_cut_a_request_ends_soon_after_its_deadline(headless: Path, tiny: Tiny) -> None:
    """Else requests to a dead server would pile up."""
    silent = Silent()
    with Session(headless, transport=silent, start=FAST, cut=of_kind(tiny, "all-tail")) as session:
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                session.run(INPUTS, deadline_s=0.05)
        assert silent.allowed_s[0] < 1.0
        assert max(silent.allowed_s[1:]) <= 0.05


def test_without_an_all_head_cut_it_says_so_however_the_exchange_was_given_up(headless: Path) -> None:
    early = Silent()
    early.closed.set()  # it gives up before its caller does
    with (
        Session(headless, transport=early, start=FAST) as session,
        pytest.raises(DeadlineExceeded, match="no all-head cut"),
    ):
        session.run(INPUTS, deadline_s=30.0)


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
