"""Does it adapt? The same stretch of a link that comes and goes, for a session that chooses and for each fixed cut.

Requests begin every `PERIOD_S`, or when the one before is done. Before, each session has some seconds on the link to
find out how things are. The fixed choices are sessions, too: where the server is late, the device helps out.

A policy that is slow in bad spells asks less often there, which flatters its mean. "By time" counts each request by
the time until the next one: what somebody waits who asks at any moment.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.running.models import TRACES, Compiled
from benchmarks.running.networks import start, typical
from benchmarks.running.programs import DEVICE_CORE, PORT, Program, running, serving
from splitc.decision import Conditions
from splitc.testbed.bed import Bed
from splitc.testbed.spec import LinkSpec, Trace
from splitc.testbed.traces import read_trace, synthetic_trace

PERIOD_S = 0.25
SLA_FACTOR = 1.5  # of what the device alone takes, so that it can be met
ADAPTIVE, WITH_SLA = "adaptive", "adaptive, told the SLA"
_QUEUE_BYTES = 500_000
_RTT_S = 0.04  # of a packet on an idle cellular link: recordings tell when packets leave, not how far they go
_P95 = 0.95
_WARM_S, _WARM_LEAST = 3.0, 6
_ALONE_S = 6.0  # the device alone does not depend on the link


@dataclass(frozen=True, slots=True)
class Link:
    """A link over time.

    Attributes:
        begin_s: where the stretch of a recorded trace begins: with good and bad spells in what follows.
        expected: what a session is told to expect.
    """

    name: str
    expected: Conditions
    rtt_s: float
    recorded: str | None = None
    begin_s: float = 0.0
    seed: int = 0
    span: float = 4.0

    def spec(self, seconds: float) -> LinkSpec:
        """So many *seconds* of it."""
        ways = [self._way(way, seconds) for way in ("up", "down")]
        return LinkSpec(ways[0], ways[1], rtt_s=self.rtt_s, queue_bytes=_QUEUE_BYTES)

    def _way(self, way: str, seconds: float) -> Trace:
        if self.recorded is not None:
            return _stretch(read_trace(TRACES / f"{self.recorded}.{way}"), self.begin_s, seconds)
        typical_bps = self.expected.uplink_bps if way == "up" else self.expected.downlink_bps
        return synthetic_trace(
            typical_bps / self.span, typical_bps, typical_bps * self.span, seconds, self.seed
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a device so many times slower than this machine, and a link."""

    model: Compiled
    slowdown: float
    link: Link


@dataclass(frozen=True, slots=True)
class Policy:
    """How one policy did.

    Attributes:
        by_time_mean_s, by_time_p95_s: weighted as the module tells.
        slowdown: of the device, as its heads showed: if it differs much between policies, so did their chances.
    """

    case: str
    name: str
    requests: int
    fallbacks: int
    cuts: dict[str, int]
    slowdown: float | None
    mean_s: float
    p95_s: float
    by_time_mean_s: float
    by_time_p95_s: float
    within_sla: float


def _stretch(trace: Trace, begin_s: float, seconds: float) -> Trace:
    begin_ms, end_ms = round(1000 * begin_s), round(1000 * (begin_s + seconds))
    inside = [time_ms - begin_ms for time_ms in trace.opportunities_ms if begin_ms <= time_ms < end_ms]
    return Trace((*inside, end_ms - begin_ms))


def measure(cases: Sequence[Case], folder: Path, seconds: float) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Run every policy of each case over so many *seconds* of its link; yield the requests of each policy."""
    with Bed(cases[0].link.spec(seconds)) as bed:
        bundles = list(dict.fromkeys(case.model.folder for case in cases))
        with serving(bundles, folder, partial(bed.start, "cloud"), bed.cloud_address):
            for case in cases:
                with running("device", partial(bed.start, "device"), DEVICE_CORE) as device:
                    yield case, _policies(bed, device, case, seconds)


def _policies(bed: Bed, device: Program, case: Case, seconds: float) -> dict[str, Any]:
    spec = case.link.spec(seconds)
    found: dict[str, Any] = {}
    for cut in case.model.cuts:
        _open(bed, device, case, f"{cut.kind} {cut.id}", cut=cut.id)
    _open(bed, device, case, ADAPTIVE)
    with device.slowed(case.slowdown):
        names = [f"{cut.kind} {cut.id}" for cut in case.model.cuts]
        alone = names.index(next(name for name in names if name.startswith("all-head")))
        names.insert(0, names.pop(alone))
        for name in (*names, ADAPTIVE, WITH_SLA):
            if name == WITH_SLA:
                sla_s = sla(found)
                _open(bed, device, case, WITH_SLA, sla_s=sla_s, deadline_s=sla_s)
            bed.change(spec)
            device.ask("requests", name=name, seconds=_WARM_S, least=_WARM_LEAST, period_s=PERIOD_S)
            bed.change(spec)
            found[name] = device.ask(
                "requests",
                name=name,
                seconds=_ALONE_S if name == names[0] else seconds,
                least=1,
                period_s=PERIOD_S,
            )
            device.ask("close", name=name)
    return found


def _open(bed: Bed, device: Program, case: Case, name: str, **given: object) -> None:
    server = f"http://{bed.cloud_address}:{PORT}"
    expected = start(case.link.expected)
    device.ask("open", name=name, bundle=str(case.model.folder), server=server, start=expected, **given)
    device.ask("warm", name=name)


def sla(rows: dict[str, Any]) -> float:
    """A latency that the device alone meets."""
    alone = next(rows[name] for name in rows if name.startswith("all-head"))
    alone_s: float = median(row["latency_s"] for row in alone)
    return SLA_FACTOR * alone_s


def policies(case: Case, rows: dict[str, Any]) -> list[Policy]:
    """How each policy did."""
    sla_s = sla(rows)
    title = f"{case.link.name}: {case.model.name}, device {case.slowdown:g}x slower, SLA {1e3 * sla_s:.0f} ms"
    heads_s = {cut.id: cut.head.latency_s for cut in case.model.cuts if cut.head is not None}
    return [_policy(title, name, own, sla_s, heads_s) for name, own in rows.items()]


def _policy(
    case: str, name: str, rows: Sequence[dict[str, Any]], sla_s: float, heads_s: Mapping[str, float]
) -> Policy:
    slowdowns = [row["head_s"] / heads_s[row["cut"]] for row in rows if row["head_s"] is not None]
    took_s = np.sort([row["latency_s"] for row in rows])
    weights = np.maximum(took_s, PERIOD_S)
    shares = np.cumsum(weights) / weights.sum()
    return Policy(
        case,
        name,
        len(rows),
        sum(row["fallback"] is not None for row in rows),
        dict(Counter(row["cut"] for row in rows)),
        median(slowdowns) if slowdowns else None,
        float(np.mean(took_s)),
        float(np.percentile(took_s, 100 * _P95)),
        float(np.average(took_s, weights=weights)),
        float(took_s[np.searchsorted(shares, _P95)]),
        float(np.mean(took_s <= sla_s)),
    )


def recorded_links() -> list[Link]:
    """Cellular links that were recorded while driving, if ../shared/traces is there."""
    if not TRACES.is_dir():
        return []
    lte, umts = typical("lte"), typical("3g")
    return [
        Link("Verizon LTE", lte, _RTT_S, recorded="Verizon-LTE-short", begin_s=30),
        Link("AT&T LTE", lte, _RTT_S, recorded="ATT-LTE-driving", begin_s=12),
        Link("T-Mobile UMTS", umts, _RTT_S, recorded="TMobile-UMTS-driving", begin_s=10),
    ]


def made_up_link(network: str, seed: int) -> Link:
    """A link that comes and goes around what is typical of *network*."""
    usual = typical(network)
    return Link(f"made up, around {network}, {seed}", usual, min(usual.rtt_s, _RTT_S), seed=seed)


# --- tables ---


def table(rows: Sequence[Policy]) -> Table:
    found = Table(title=f"Adapts: {rows[0].case}; ms", title_justify="left")
    for column in (
        "policy",
        "requests",
        "fell back",
        "cuts",
        "device",
        "mean",
        "p95",
        "by time",
        "p95",
        "in SLA",
    ):
        found.add_column(column, justify="left" if column in ("policy", "cuts") else "right")
    for row in rows:
        found.add_row(
            row.name,
            str(row.requests),
            str(row.fallbacks),
            ", ".join(f"{cut} {count}" for cut, count in sorted(row.cuts.items())),
            f"{row.slowdown:.1f}x" if row.slowdown is not None else "",
            f"{1e3 * row.mean_s:.0f}",
            f"{1e3 * row.p95_s:.0f}",
            f"{1e3 * row.by_time_mean_s:.0f}",
            f"{1e3 * row.by_time_p95_s:.0f}",
            f"{row.within_sla:.1%}",
        )
    return found


def verdict(rows: Sequence[Policy]) -> str:
    """How the adaptive session compares with the best fixed choice in each."""
    fixed = [row for row in rows if row.name not in (ADAPTIVE, WITH_SLA)]
    own = next(row for row in rows if row.name == ADAPTIVE)
    told = next(row for row in rows if row.name == WITH_SLA)
    mean_s, p95_s = min(row.mean_s for row in fixed), min(row.p95_s for row in fixed)
    by_time_s, within = min(row.by_time_mean_s for row in fixed), max(row.within_sla for row in fixed)
    return (
        f"adapts: mean {own.mean_s / mean_s - 1:+.1%}, p95 {own.p95_s / p95_s - 1:+.1%}, mean by time "
        f"{own.by_time_mean_s / by_time_s - 1:+.1%}, each against the fixed choice that is best in it; in the SLA "
        f"{max(own.within_sla, told.within_sla):.1%}, best fixed choice {within:.1%}"
    )
