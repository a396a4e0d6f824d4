"""When the link is looked at: soon after news is missing, rarer where the device goes alone anyway."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import pytest

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.common.errors import TransportError
from splitc.common.values import Value
from splitc.runtime.client import Answer, Client
from splitc.runtime.cloud import Cloud
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator, ObservedExchange
from splitc.runtime.estimate.server_state import ServerState
from tests import manifests
from tests.runtime import servers
from tests.runtime.test_device_parts import eventually

STEP_S = 0.5


class Clock:
    """What `time` is to a cloud."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Steady(Client):
    """A server behind a link on which everything takes *rtt_s*."""

    def __init__(self) -> None:
        self.rtt_s = 1.0
        self.probes = 0
        self.fails_after = math.inf

    def probe(self, *, deadline_s: float) -> Iterator[ObservedExchange]:  # noqa: ARG002
        self.probes += 1
        if self.probes > self.fails_after:
            raise TransportError("broken", sent=True)
        yield self._exchange(None)

    def infer(
        self,
        cut: CutEntry,  # noqa: ARG002
        values: Mapping[str, Value],  # noqa: ARG002
        wanted: Sequence[TensorEntry],  # noqa: ARG002
        *,
        deadline_s: float,  # noqa: ARG002
    ) -> Answer:
        return Answer({}, self._exchange(0.0))

    def _exchange(self, tail_s: float | None) -> ObservedExchange:
        return ObservedExchange(200, 0, self.rtt_s, 0.0, None, None, None, tail_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("splitc.runtime.cloud.time", clock)
    return clock


@pytest.fixture
def client() -> Steady:
    return Steady()


@pytest.fixture
def cloud(clock: Clock, client: Steady) -> Iterator[Cloud]:
    assert clock.monotonic() != time.monotonic()
    found = Cloud(
        client, ServerState(Estimator(Conditions(1e7, 1e7, rtt_s=0.1)), Breaker(seed=0), clock.now_s)
    )
    yield found
    found._workers.close(servers.LONGEST_S)


def looks_s(cloud: Cloud, clock: Clock, client: Steady, seconds: float, *, idle: bool = True) -> list[float]:
    """When a request every `STEP_S` has the link looked at, in so many *seconds*."""
    found, until_s = list[float](), clock.now_s + seconds
    while clock.now_s < until_s:
        before = client.probes
        cloud.look(idle=idle)
        assert eventually(lambda: not cloud.is_probing())
        if client.probes > before:
            found.append(clock.now_s)
        clock.now_s += STEP_S
    return found


def test_looks_become_rare_where_the_device_goes_alone(cloud: Cloud, clock: Clock, client: Steady) -> None:
    """The link may wait for an eighth of the time since the last answer, but no longer than 20 s."""
    began_s = clock.now_s
    found_s = looks_s(cloud, clock, client, 600.0)
    for before_s, after_s in pairwise(found_s):
        due_s = min(max((after_s - began_s) / 8, 2.0), 20.0)
        assert due_s < after_s - before_s <= due_s + 2 * STEP_S
    assert client.probes == len(found_s)


def test_after_an_answer_the_link_is_looked_at_soon_again(cloud: Cloud, clock: Clock, client: Steady) -> None:
    looks_s(cloud, clock, client, 300.0)
    cloud.offload(manifests.cut("c", tail_s=0.01, up=200), {}, (), deadline_s=clock.now_s).result()
    answered_s = clock.now_s
    assert looks_s(cloud, clock, client, 10.0)[0] - answered_s == 2.0 + STEP_S


def test_a_request_that_tells_as_much_needs_no_look(cloud: Cloud, clock: Clock, client: Steady) -> None:
    """But for the first: nothing is known of the link."""
    assert looks_s(cloud, clock, client, 20.0, idle=False) == [clock.now_s - 20.0]


def test_a_look_that_surprises_is_repeated_once(cloud: Cloud, clock: Clock, client: Steady) -> None:
    looks_s(cloud, clock, client, 10.0)
    for rtt_s, probes in [(1.0, 1), (30.0, 2), (30.0, 1)]:
        client.rtt_s, before = rtt_s, client.probes
        clock.now_s += 2.5
        looks_s(cloud, clock, client, STEP_S)
        assert client.probes - before == probes


def test_a_server_that_answered_a_look_is_there_though_the_next_fails(
    cloud: Cloud, clock: Clock, client: Steady
) -> None:
    looks_s(cloud, clock, client, 1.0)
    with cloud._lock:
        for _ in range(2):
            cloud._server_state.failed(clock.now_s)
    assert not cloud.is_usable()
    client.rtt_s, client.fails_after = 30.0, client.probes + 1  # a surprise, so that it is looked at again
    clock.now_s += 2.0
    before = client.probes
    looks_s(cloud, clock, client, STEP_S)
    assert client.probes - before == 2
    assert eventually(cloud.is_usable)
