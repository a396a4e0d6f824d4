"""What a device does: requests over sessions, heads alone, and bytes over the link."""

import socket
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.running.cloud import HEADER, receive, timed_runs
from benchmarks.running.programs import obey
from splitc import inference
from splitc.bundle import Manifest, part_files
from splitc.decision import Conditions, latency_s
from splitc.inference import Feeds
from splitc.runtime.session import Session

_sessions: dict[str, Session] = {}
_heads: dict[Path, Any] = {}
_links: dict[str, socket.socket] = {}

Row = dict[str, Any]


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
    _sessions[name] = Session(
        bundle,
        server=server,
        start=Conditions(*start),
        cut=cut,
        threads=1,
        sla_s=sla_s,
        deadline_s=deadline_s,
    )
    return [entry.id for entry in _sessions[name].manifest.cuts]


def close_session(name: str) -> None:
    """Close it."""
    _sessions.pop(name).close()


def warm(name: str) -> None:
    """Run every head once, without the server: opening them is not what is measured."""
    session = _sessions[name]
    parts = session._pair.parts  # noqa: SLF001 - an app's first minutes would do the same
    feeds = _feeds(session.manifest)
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
        period_s: one begins so long after the one before, or when that is done.
    """
    session = _sessions[name]
    feeds = _feeds(session.manifest)
    rows: list[Row] = []
    whole = 0
    began_s = due_s = time.monotonic()
    while (now_s := time.monotonic()) - began_s < (seconds if whole >= least else most_s):
        if due_s > now_s:
            time.sleep(due_s - now_s)
        at_s = time.monotonic() - began_s
        rows.append(_request(session, feeds) | {"at_s": at_s})
        whole += rows[-1]["fallback"] is None
        due_s = max(due_s + period_s, time.monotonic())
    return rows


def _request(session: Session, feeds: Feeds) -> Row:
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
        _heads[path] = inference.session(path, threads=1)
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
    inputs = [inference.Input(item.name, item.dtype, item.shape) for item in manifest.model.inputs]
    return inference.random_feeds(inputs, manifest.model.dims, 0)


if __name__ == "__main__":
    obey(
        {
            "open": open_session,
            "close": close_session,
            "warm": warm,
            "requests": requests,
            "head": run_head,
            "connect": connect,
            "exchange": exchange,
        }
    )
