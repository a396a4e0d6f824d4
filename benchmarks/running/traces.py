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

from benchmarks.running.cellular import Link
from benchmarks.running.models import Compiled
from benchmarks.running.networks import start
from benchmarks.running.programs import DEVICE_CORE, PORT, Program, running, serving
from splitc.testbed.bed import Bed

PERIOD_S = 0.25
SLA_FACTOR = 1.5  # of what the device alone takes, so that it can be met
ADAPTIVE, WITH_SLA = "adaptive", "adaptive, told the SLA"
_P95 = 0.95
_WARM_S, _WARM_LEAST = 3.0, 6
_ALONE_S = 6.0  # the device alone does not depend on the link
_HEAD_S, _PAUSE_S = 1.0, 0.1  # each head at full speed, with caches as cold as between requests
ALIKE, NEAR = 1.15, 1.3  # of the slowest device to the fastest; of each to what was asked for


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a device so many times slower than this machine, and a link."""

    model: Compiled
    slowdown: float
    link: Link


@dataclass(frozen=True, slots=True)
class Stretch:
    """The requests of one policy on a stretch of the link.

    Attributes:
        slowdown: how many times as long the device's heads took as before it was slowed down.
    """

    rows: list[dict[str, Any]]
    slowdown: float


@dataclass(frozen=True, slots=True)
class Policy:
    """How one policy did.

    Attributes:
        asked_slowdown: of the case.
        slowdown: as in its stretch.
        by_time_mean_s, by_time_p95_s: weighted as the module tells.
    """

    case: str
    name: str
    requests: int
    fallbacks: int
    cuts: dict[str, int]
    asked_slowdown: float
    slowdown: float
    mean_s: float
    p95_s: float
    by_time_mean_s: float
    by_time_p95_s: float
    within_sla: float


def measure(cases: Sequence[Case], folder: Path, seconds: float) -> Iterator[tuple[Case, dict[str, Stretch]]]:
    """Run every policy of each case over so many *seconds* of its link; yield what each did."""
    with Bed(cases[0].link.spec(seconds)) as bed:
        bundles = list(dict.fromkeys(case.model.folder for case in cases))
        with serving(bundles, folder, partial(bed.start, "cloud"), bed.cloud_address):
            for case in cases:
                with running("device", partial(bed.start, "device"), DEVICE_CORE) as device:
                    yield case, _policies(bed, device, case, seconds)


def _policies(bed: Bed, device: Program, case: Case, seconds: float) -> dict[str, Stretch]:
    spec = case.link.spec(seconds)
    names = {cut.id: f"{cut.kind} {cut.id}" for cut in case.model.cuts}
    for cut, name in names.items():
        _open(bed, device, case, name, cut=cut)
    _open(bed, device, case, ADAPTIVE)
    full_s = {
        cut.id: _head_s(device, case, ADAPTIVE, cut.id, _HEAD_S)
        for cut in case.model.cuts
        if cut.head is not None
    }
    alone = next(cut.id for cut in case.model.cuts if cut.kind == "all-head")
    found: dict[str, Stretch] = {}
    with device.slowed(case.slowdown):
        for name in (names.pop(alone), *names.values(), ADAPTIVE, WITH_SLA):
            if name == WITH_SLA:
                sla_s = sla(found)
                _open(bed, device, case, WITH_SLA, sla_s=sla_s, deadline_s=sla_s)
            bed.change(spec)
            device.ask("requests", name=name, seconds=_WARM_S, least=_WARM_LEAST, period_s=PERIOD_S)
            bed.change(spec)
            length_s = seconds if found else min(seconds, _ALONE_S)
            rows = device.ask("requests", name=name, seconds=length_s, least=1, period_s=PERIOD_S)
            if all(row["head_s"] is None for row in rows):
                own = _head_s(device, case, name, alone, seconds=0.0) / full_s[alone]
            else:
                own = slowdown(rows, full_s)
            found[name] = Stretch(rows, own)
            device.ask("close", name=name)
    return found


def _open(bed: Bed, device: Program, case: Case, name: str, **given: object) -> None:
    server = f"http://{bed.cloud_address}:{PORT}"
    expected = start(case.link.expected)
    device.ask("open", name=name, bundle=str(case.model.folder), server=server, start=expected, **given)
    device.ask("warm", name=name)


def _head_s(device: Program, case: Case, name: str, cut: str, seconds: float) -> float:
    """What a head takes without requests: a median of at least three runs."""
    asked = {"bundle": str(case.model.folder), "cut": cut, "seconds": seconds, "pause_s": _PAUSE_S}
    took_s: float = device.ask("head", name=name, **asked)
    return took_s


def slowdown(rows: Sequence[dict[str, Any]], full_s: Mapping[str, float]) -> float:
    """How many times as long the heads of all *rows* took together as at full speed, in *full_s* by cut.

    A short head falls between two stops or not: only sums of many tell.
    """
    took = [(row["head_s"], full_s[row["cut"]]) for row in rows if row["head_s"] is not None]
    return float(sum(slowed_s for slowed_s, _ in took) / sum(fast_s for _, fast_s in took))


def sla(stretches: Mapping[str, Stretch]) -> float:
    """A latency that the device alone meets."""
    alone = next(stretch for name, stretch in stretches.items() if name.startswith("all-head"))
    alone_s: float = median(row["latency_s"] for row in alone.rows)
    return SLA_FACTOR * alone_s


def policies(case: Case, stretches: Mapping[str, Stretch]) -> list[Policy]:
    """How each policy did."""
    sla_s = sla(stretches)
    title = f"{case.link.name}: {case.model.name}, device {case.slowdown:g}x slower, SLA {1e3 * sla_s:.0f} ms"
    return [_policy(case, title, name, stretch, sla_s) for name, stretch in stretches.items()]


def _policy(case: Case, title: str, name: str, stretch: Stretch, sla_s: float) -> Policy:
    rows = stretch.rows
    took_s = np.sort([row["latency_s"] for row in rows])
    weights = np.maximum(took_s, PERIOD_S)
    shares = np.cumsum(weights) / weights.sum()
    return Policy(
        title,
        name,
        len(rows),
        sum(row["fallback"] is not None for row in rows),
        dict(Counter(row["cut"] for row in rows)),
        case.slowdown,
        stretch.slowdown,
        float(np.mean(took_s)),
        float(np.percentile(took_s, 100 * _P95)),
        float(np.average(took_s, weights=weights)),
        float(took_s[np.searchsorted(shares, _P95)]),
        float(np.mean(took_s <= sla_s)),
    )


def why_void(rows: Sequence[Policy]) -> str | None:
    """Why the policies cannot be compared; nothing if they can."""
    fastest, *_, slowest = sorted(rows, key=lambda row: row.slowdown)
    asked = fastest.asked_slowdown
    if slowest.slowdown <= min(ALIKE * fastest.slowdown, NEAR * asked) and NEAR * fastest.slowdown >= asked:
        return None
    return (
        f"the device was to be {asked:g}x slower, and was {fastest.slowdown:.1f}x during '{fastest.name}' and "
        f"{slowest.slowdown:.1f}x during '{slowest.name}'; rerun when the machine is quiet"
    )


# --- tables ---


def table(rows: Sequence[Policy]) -> Table:
    why = why_void(rows)
    found = Table(title=f"Adapts: {rows[0].case}; ms{'; void' if why else ''}", title_justify="left")
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
            f"{row.slowdown:.1f}x",
            f"{1e3 * row.mean_s:.0f}",
            f"{1e3 * row.p95_s:.0f}",
            f"{1e3 * row.by_time_mean_s:.0f}",
            f"{1e3 * row.by_time_p95_s:.0f}",
            f"{row.within_sla:.1%}",
        )
    return found


def verdict(rows: Sequence[Policy]) -> str:
    """How the adaptive session compares with the best fixed choice in each, if it can be compared."""
    why = why_void(rows)
    if why:
        return f"adapts: void: {why}"
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
