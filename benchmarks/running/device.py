"""What a device does: requests over sessions, heads alone, and bytes over the link."""

import socket
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.running.cloud import HEADER, receive, timed_runs
from benchmarks.running.programs import obey
from splitc.bundle.decide import Conditions, latency_s
from splitc.bundle.folder import read_bundle
from splitc.bundle.manifest import Manifest, part_files
from splitc.common import ort
from splitc.common.values import Feeds, Input, random_feeds
from splitc.runtime.client import Client
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.http.transport import HttpTransport
from splitc.runtime.session import Session

Row = dict[str, Any]

_FIXED_PATIENCE_S = 60.0

_sessions: dict[str, "Session | _Fixed"] = {}
_heads: dict[Path, Any] = {}
_links: dict[str, socket.socket] = {}


def open_session(
    name: str,
    bundle: str,
    server: str | None,
    start: list[float],
    cut: str | None = None,
    sla_s: float | None = None,
    deadline_s: float | None = None,
) -> list[str]:
    """Open a session called *name*; return the ids of the cuts."""
    session = _sessions[name] = Session(
        bundle,
        server=server,
        start=Conditions(*start),
        cut=cut,
        threads=1,
        sla_s=sla_s,
        deadline_s=deadline_s,
    )
    return [entry.id for entry in session.manifest.cuts]


class _Fixed:
    """What an app does that has one cut built in: it runs the head, sends what that made, and waits."""

    def __init__(self, bundle: Path, server: str, cut: str) -> None:
        found = read_bundle(bundle)
        self.manifest = found.manifest
        self.cut = next(entry for entry in found.manifest.cuts if entry.id == cut)
        self._parts = DeviceParts(found, threads=1)
        self._transport = HttpTransport(server)
        self._client = Client(found, self._transport)

    def run(self, feeds: Feeds) -> Row:
        """Make one request."""
        began_s = time.monotonic()
        values, head_s, exchange = dict(feeds), None, None
        if self.cut.head is not None:
            made, head_s = self._parts.run(self.cut, values)
            values |= made
        if self.cut.tail is not None:
            wanted = [entry for entry in self.manifest.model.outputs if entry.name not in values]
            deadline_s = began_s + _FIXED_PATIENCE_S
            exchange = self._client.infer(self.cut, values, wanted, deadline_s=deadline_s).exchange
        return {
            "cut": self.cut.id,
            "latency_s": time.monotonic() - began_s,
            "fallback": None,
            "head_s": head_s,
            "exchange": asdict(exchange) if exchange is not None else None,
        }

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def open_fixed(name: str, bundle: str, server: str, cut: str) -> None:
    """Open what always takes *cut*, called *name*."""
    _sessions[name] = _Fixed(Path(bundle), server, cut)


def close_session(name: str) -> None:
    """Close it."""
    _sessions.pop(name).close()


def warm(name: str) -> None:
    """Run every head once, without the server: opening them is not what is measured."""
    session = _sessions[name]
    feeds = _feeds(session.manifest)
    if isinstance(session, _Fixed):
        session.run(feeds)
        return
    parts = session._pair.parts  # noqa: SLF001 - an app's first minutes would do the same
    for cut in session.manifest.cuts:
        if cut.head is not None:
            parts.run(cut, feeds)


def requests(
    name: str,
    seconds: float,
    least: int,
    most_s: float = 60.0,
    period_s: float = 0.0,
) -> list[Row]:
    """Make requests for so many *seconds*, *least* of them without a fallback, but no longer than *most_s*.

    Args:
        period_s: one is due so often, and begins then, or when the one before is done; 0 for at once.
    """
    session = _sessions[name]
    feeds = _feeds(session.manifest)
    rows: list[Row] = []
    whole = 0
    began_s = due_s = time.monotonic()
    while due_s - began_s < (seconds if whole >= least else most_s):
        time.sleep(max(due_s - time.monotonic(), 0.0))
        waited_s = max(time.monotonic() - due_s, 0.0) if period_s else 0.0
        rows.append(_request(session, feeds) | {"at_s": due_s - began_s, "waited_s": waited_s})
        whole += rows[-1]["fallback"] is None
        due_s = due_s + period_s if period_s else time.monotonic()
    return rows


def _request(session: Session | _Fixed, feeds: Feeds) -> Row:
    if isinstance(session, _Fixed):
        return session.run(feeds)
    outcome = session.request(feeds)
    decision = outcome.decision
    cuts = session.manifest.cuts
    return {
        "cut": outcome.cut,
        "predicted_s": decision.latency_s,
        "latency_s": outcome.latency_s,
        "fallback": outcome.fallback,
        "head_s": outcome.device_s,
        "exchange": asdict(outcome.exchange) if outcome.exchange is not None else None,
        "all_predicted_s": {cut.id: latency_s(cut, decision.conditions) for cut in cuts},
    }


def run_head(name: str, bundle: str, cut: str, seconds: float, pause_s: float) -> float:
    """Run a head alone, in a session of ONNX Runtime of its own; return the median of its times."""
    manifest = _sessions[name].manifest
    head = next(entry.head for entry in manifest.cuts if entry.id == cut)
    if head is None:
        return 0.0
    path = Path(bundle) / part_files(head)[0]
    if path not in _heads:
        _heads[path] = ort.session(path, threads=1)
    opened, feeds = _heads[path], _feeds(manifest)
    names = [output.name for output in opened.get_outputs()]
    given = {item.name: feeds[item.name] for item in opened.get_inputs()}
    return median(timed_runs(lambda: opened.run(names, given), seconds, pause_s))


def connect(host: str, port: int) -> None:
    """Connect to what `cloud.listen` made, twice: what a connection carried before decides how fast it is."""
    for use in ("rates", "requests"):
        _links[use] = socket.create_connection((host, port), 10)
        _links[use].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def exchange(use: str, uplink_bytes: int, downlink_bytes: int, times: int) -> list[float]:
    """Send and receive so much, so many times; return the seconds of each."""
    link, payload, taken = _links[use], bytes(uplink_bytes), []
    for _ in range(times):
        before_s = time.perf_counter()
        link.sendall(HEADER.pack(uplink_bytes, downlink_bytes) + payload)
        receive(link, downlink_bytes)
        taken.append(time.perf_counter() - before_s)
    return taken


def _feeds(manifest: Manifest) -> Feeds:
    inputs = [Input(item.name, item.dtype, item.shape) for item in manifest.model.inputs]
    return random_feeds(inputs, manifest.model.dims, 0)


if __name__ == "__main__":
    obey(
        {
            "open": open_session,
            "open fixed": open_fixed,
            "close": close_session,
            "warm": warm,
            "requests": requests,
            "head": run_head,
            "connect": connect,
            "exchange": exchange,
        }
    )
