"""Many phones in one process: each a real `splitc.Session` that computes nothing, but waits as long as that would take.

Two cores cannot compute for sixteen phones. What the device's parts of all cuts make is computed once, beforehand.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.running.programs import obey
from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CutEntry
from splitc.common.errors import ModelError
from splitc.common.ort import Interrupt
from splitc.common.values import Feeds, Input, Value, random_feeds
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.session import Outcome, Session

_LATE_S = 60.0  # after the last request, for all to end
_PATIENCE_S = 5.0
_STEP_S = 0.005  # how soon a run sees that it shall end
_COUNTERS = {
    "splitc_compute_seconds_sum": "busy_s",
    "splitc_compute_seconds_count": "runs",
    "splitc_refusals_total": "refused",
}

Row = dict[str, Any]


class WaitingParts(DeviceParts):
    """The processor of a phone: one run after the other, each as long as in the manifest, times *slowdown*."""

    def __init__(self, bundle: Bundle, made: Mapping[str, Mapping[str, Value]], slowdown: float) -> None:
        super().__init__(bundle, threads=1)
        self._made, self._slowdown = made, slowdown
        self._turn = threading.Condition()
        self._asked: deque[object] = deque()

    def run(
        self,
        cut: CutEntry,
        values: Mapping[str, Value],  # noqa: ARG002
        interrupt: Interrupt | None = None,
    ) -> tuple[dict[str, Value], float]:
        """Wait for the processor, then as long as the run takes, or until it is ended."""
        took_s, own = self._slowdown * cut.device_s, object()
        with self._turn:
            self._asked.append(own)
            try:
                self._wait(lambda: self._asked[0] is own, math.inf, interrupt)
                self._wait(lambda: False, took_s, interrupt)
            finally:
                self._asked.remove(own)
                self._turn.notify_all()
        return dict(self._made[cut.id]), took_s

    def _wait(self, is_done: Callable[[], bool], seconds: float, interrupt: Interrupt | None) -> None:
        until_s = time.monotonic() + seconds
        while not is_done() and (left_s := until_s - time.monotonic()) > 0:
            if interrupt is not None and interrupt.options.terminate:
                raise ModelError("the run was ended")
            self._turn.wait(min(left_s, _STEP_S if interrupt is not None else threading.TIMEOUT_MAX))

    def is_ready(self, cut: CutEntry) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def preload(self, *cuts: CutEntry) -> None:
        """Nothing is to be opened."""


class Phones:
    """Those that are open."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._feeds: Feeds = {}
        self._server = ""

    def open(
        self,
        bundle: str,
        server: str,
        slowdowns: Sequence[float],
        slas_s: Sequence[float | None],
        cut: str | None,
    ) -> None:
        """Open one for each of *slowdowns*; all take *cut* if that is given."""
        found = read_bundle(Path(bundle))
        model = found.manifest.model
        inputs = [Input(item.name, item.dtype, item.shape) for item in model.inputs]
        self._feeds, self._server = random_feeds(inputs, model.dims, 0), server
        real = DeviceParts(found, threads=1)
        cuts = [entry for entry in found.manifest.cuts if entry.device is not None]
        made = {entry.id: real.run(entry, self._feeds)[0] for entry in cuts}
        for slowdown, sla_s in zip(slowdowns, slas_s, strict=True):
            session = Session(bundle, server=server, threads=1, cut=cut, sla_s=sla_s)
            session._pair.parts = WaitingParts(found, made, slowdown)  # noqa: SLF001 - the one thing that is not real
            self._sessions.append(session)

    def close(self) -> None:
        """Close all."""
        while self._sessions:
            self._sessions.pop().close()

    def alone(self, count: int, pause_s: float) -> list[Row]:
        """Let the first phone make so many requests, one by one, with a pause before each."""
        rows = []
        for _ in range(count):
            time.sleep(pause_s)
            rows.append(self._request(self._sessions[0]))
        return rows

    def together(self, times_s: Sequence[float], phones: Sequence[int]) -> list[Row]:
        """Have each of *phones* make a request so long from now, whatever became of those before."""
        rows: list[Row] = [{} for _ in times_s]

        def request(number: int, phone: int) -> None:
            rows[number] = self._request(self._sessions[phone])

        began_s, threads = time.monotonic(), []
        for number, (at_s, phone) in enumerate(zip(times_s, phones, strict=True)):
            time.sleep(max(began_s + at_s - time.monotonic(), 0.0))
            threads.append(threading.Thread(target=request, args=(number, phone), daemon=True))
            threads[-1].start()
        until_s = time.monotonic() + _LATE_S
        for thread in threads:
            thread.join(max(until_s - time.monotonic(), 0.0))
        return rows

    def counters(self) -> dict[str, float]:
        """What the server has counted."""
        address = urlsplit(self._server)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=_PATIENCE_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = dict.fromkeys(_COUNTERS.values(), 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in _COUNTERS:
                    found[_COUNTERS[sample.name]] += sample.value
        return found

    def _request(self, session: Session) -> Row:
        began_s = time.monotonic()
        outcome = session.request(self._feeds)
        return _row(outcome, time.monotonic() - began_s)


def _row(outcome: Outcome, latency_s: float) -> Row:
    exchange = outcome.exchange
    return {
        "cut": outcome.cut,
        "latency_s": latency_s,
        "finished": outcome.finished,
        "queue_s": exchange.queue_s if exchange is not None else None,
        "compute_s": exchange.compute_s if exchange is not None else None,
    }


if __name__ == "__main__":
    PHONES = Phones()
    obey(
        {
            "open": PHONES.open,
            "close": PHONES.close,
            "alone": PHONES.alone,
            "together": PHONES.together,
            "counters": PHONES.counters,
        }
    )
