"""Does it adapt? The same stretches of a link that comes and goes, for a session that chooses and for each fixed cut.

A request is due every `PERIOD_S`, at the same moments of the link for every policy. One that finds the one before
unfinished begins after it, and counts from when it was due: else whoever is slow in bad spells would ask less often
there, and look better for it. Before, each policy is on the way there for some seconds, to find out how things are.

A fixed choice is what an app does that has one cut built in: it runs the head, sends, and waits for the answer. (In a
session of splitc with that cut, the device does it all if the answer is late: that adapts, too, and is not meant here.)

The device is this machine, slowed down so that the whole model takes as long for every policy, however fast this machine
is at the moment. It may use all cores, as phones have several: heads run in one thread, and beside them it can receive.

The last row is nobody's: of what the fixed choices took at each moment, the least. Who chooses can be better than every
fixed choice in the mean. Not so in p95 as far as what a cut takes depends on the link alone, and a better link makes none
slower: then the worst twentieth of the moments is the same for all of them, and who knew it all beforehand would have the
p95 of the best fixed choice. What a device itself varies by is outside that.
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
from benchmarks.running.programs import CLOUD_CORE, DEVICE_CORE, PORT, Program, running, serving
from splitc.bundle.manifest import CutEntry
from splitc.testbed.bed import Bed

PERIOD_S = 1.0
SLA_FACTOR = 1.5  # of what the device alone takes, so that it can be met
ADAPTIVE, WITH_SLA = "adaptive", "adaptive, told the SLA"
KNOWING = "least of the fixed, each moment"
_P95 = 0.95
_WARM_S = 15.0
_ALONE_S = 20.0  # the device alone does not depend on the link
_YARDSTICK_S, _PAUSE_S = 2.0, 0.1
ALIKE = 1.15  # the slowest device to that of the session that chooses


@dataclass(frozen=True, slots=True)
class Case:
    """A model, what it takes on the device alone, and a link."""

    model: Compiled
    alone_s: float
    link: Link


@dataclass(frozen=True, slots=True)
class Stretch:
    """The requests of one policy on the stretch of the link.

    Attributes:
        alone_s: what the whole model took on the device alone just before and just after; a mean of medians.
    """

    rows: list[dict[str, Any]]
    alone_s: float


@dataclass(frozen=True, slots=True)
class Policy:
    """How one policy did.

    Attributes:
        helped: how many requests the device made because no answer came in time.
        alone_s: as in its stretch; the mean of several.
    """

    case: str
    name: str
    requests: int
    helped: int
    cuts: dict[str, int]
    alone_s: float
    mean_s: float
    p95_s: float
    within_sla: float


def measure(cases: Sequence[Case], folder: Path, seconds: float) -> Iterator[tuple[Case, dict[str, Stretch]]]:
    """Run every policy of each case over so many *seconds* of its link; yield what each did."""
    with Bed(cases[0].link.spec(seconds)) as bed:
        bundles = list(dict.fromkeys(case.model.folder for case in cases))
        with serving(bundles, folder, partial(bed.start, "cloud"), bed.cloud_address):
            for case in cases:
                with running("device", partial(bed.start, "device"), CLOUD_CORE, DEVICE_CORE) as device:
                    yield case, _policies(bed, device, case, seconds)


def _policies(bed: Bed, device: Program, case: Case, seconds: float) -> dict[str, Stretch]:
    alone = next(cut for cut in case.model.cuts if cut.kind == "all-head")
    fixed = {_title(cut): cut for cut in (alone, *(cut for cut in case.model.cuts if cut is not alone))}
    for name, cut in fixed.items():
        _open(bed, device, case, name, "open fixed", cut=cut.id)
    expected = start(case.link.expected)
    _open(bed, device, case, ADAPTIVE, start=expected)
    ahead, stretch = case.link.spec(_WARM_S), case.link.spec(seconds, _WARM_S)
    found: dict[str, Stretch] = {}
    for name in (*fixed, ADAPTIVE, WITH_SLA):
        if name == WITH_SLA:
            _open(bed, device, case, name, start=expected, sla_s=sla(found), deadline_s=sla(found))
        with device.slowed(_slowdown(device, case, alone)):
            before_s = _alone_s(device, case, alone)
            bed.change(ahead)
            device.ask("requests", name=name, seconds=_WARM_S, least=1, period_s=PERIOD_S)
            bed.change(stretch)
            length_s = min(seconds, _ALONE_S) if name == _title(alone) else seconds
            rows = device.ask("requests", name=name, seconds=length_s, least=1, period_s=PERIOD_S)
            found[name] = Stretch(rows, (before_s + _alone_s(device, case, alone)) / 2)
    for name in found:
        device.ask("close", name=name)
    return found


def _title(cut: CutEntry) -> str:
    return f"{cut.kind} {cut.id}"


def _open(bed: Bed, device: Program, case: Case, name: str, how: str = "open", **given: object) -> None:
    server = f"http://{bed.cloud_address}:{PORT}"
    device.ask(how, name=name, bundle=str(case.model.folder), server=server, **given)
    device.ask("warm", name=name)


def _slowdown(device: Program, case: Case, alone: CutEntry) -> float:
    """By what to slow the device down, so that the whole model takes as long as the case has it."""
    guess = case.alone_s / _alone_s(device, case, alone)
    with device.slowed(guess):
        return guess * case.alone_s / _alone_s(device, case, alone)


def _alone_s(device: Program, case: Case, alone: CutEntry) -> float:
    """What the whole model takes on the device: by it, policies that took turns can be compared."""
    asked = {"bundle": str(case.model.folder), "cut": alone.id, "seconds": _YARDSTICK_S, "pause_s": _PAUSE_S}
    took_s: float = device.ask("head", name=ADAPTIVE, **asked)
    return took_s


def sla(stretches: Mapping[str, Stretch]) -> float:
    """A latency that the device alone meets."""
    alone = next(stretch for name, stretch in stretches.items() if name.startswith("all-head"))
    alone_s: float = median(row["latency_s"] for row in alone.rows)
    return SLA_FACTOR * alone_s


def policies(case: Case, stretches: Mapping[str, Stretch]) -> list[Policy]:
    """How each policy did."""
    sla_s = sla(stretches)
    title = (
        f"{case.link.name}: {case.model.name}, {1e3 * case.alone_s:.0f} ms alone, SLA {1e3 * sla_s:.0f} ms"
    )
    return [_policy(title, name, [(sla_s, stretch)]) for name, stretch in _with_least(stretches).items()]


def together(found: Sequence[tuple[Case, Mapping[str, Stretch]]]) -> list[Policy]:
    """How each policy did on all links: an app goes from one to the other, and what is built in stays."""
    title = f"all links: {found[0][0].model.name}"
    each = [(sla(stretches), _with_least(stretches)) for _, stretches in found]
    return [
        _policy(title, name, [(sla_s, stretches[name]) for sla_s, stretches in each]) for name in each[0][1]
    ]


def _with_least(stretches: Mapping[str, Stretch]) -> dict[str, Stretch]:
    """*stretches*, and one of the fixed choice that was answered soonest at each moment.

    All-head's rows, which do not depend on the link and so are fewer, are gone through as often as it takes.
    """
    fixed = [stretch for name, stretch in stretches.items() if name not in (ADAPTIVE, WITH_SLA)]
    moments = max(len(stretch.rows) for stretch in fixed)
    least = [
        min((stretch.rows[moment % len(stretch.rows)] for stretch in fixed), key=_since_due_s)
        for moment in range(moments)
    ]
    return {**stretches, KNOWING: Stretch(least, float(np.mean([stretch.alone_s for stretch in fixed])))}


def _since_due_s(row: Mapping[str, Any]) -> float:
    took_s: float = row["waited_s"] + row["latency_s"]
    return took_s


def _policy(title: str, name: str, stretches: Sequence[tuple[float, Stretch]]) -> Policy:
    """What *name* did on *stretches*, each with its SLA."""
    rows = [(sla_s, row) for sla_s, stretch in stretches for row in stretch.rows]
    took_s = np.array([_since_due_s(row) for _, row in rows])
    return Policy(
        title,
        name,
        len(rows),
        sum(row["fallback"] is not None for _, row in rows),
        dict(Counter(row["cut"] for _, row in rows)),
        float(np.mean([stretch.alone_s for _, stretch in stretches])),
        float(np.mean(took_s)),
        float(np.percentile(took_s, 100 * _P95)),
        float(np.mean(took_s <= [sla_s for sla_s, _ in rows])),
    )


def why_void(rows: Sequence[Policy]) -> str | None:
    """Why the session that chooses cannot be compared with fixed choices; nothing if its device was not the faster one."""
    fixed, own, _, _ = _apart(rows)
    slowest = max(fixed, key=lambda row: row.alone_s)
    if slowest.alone_s <= ALIKE * own.alone_s:
        return None
    return (
        f"the device alone took {1e3 * own.alone_s:.0f} ms around '{own.name}' and {1e3 * slowest.alone_s:.0f} ms "
        f"around '{slowest.name}'; rerun when the machine is quiet"
    )


def _apart(rows: Sequence[Policy]) -> tuple[list[Policy], Policy, Policy, Policy]:
    """The fixed choices; the adaptive sessions, free and told the SLA; the least of the fixed at each moment."""
    *fixed, own, told, least = rows
    return fixed, own, told, least


# --- tables ---


def table(rows: Sequence[Policy]) -> Table:
    why = why_void(rows)
    found = Table(title=f"Adapts: {rows[0].case}; ms{'; void' if why else ''}", title_justify="left")
    for column in (
        "policy",
        "requests",
        "helped",
        "cuts",
        "device alone",
        "mean",
        "p95",
        "in SLA",
    ):
        found.add_column(column, justify="left" if column in ("policy", "cuts") else "right")
    for row in rows:
        found.add_row(
            row.name,
            str(row.requests),
            str(row.helped),
            ", ".join(f"{cut} {count}" for cut, count in sorted(row.cuts.items())),
            f"{1e3 * row.alone_s:.0f}",
            f"{1e3 * row.mean_s:.0f}",
            f"{1e3 * row.p95_s:.0f}",
            f"{row.within_sla:.1%}",
        )
    return found


def verdict(rows: Sequence[Policy]) -> str:
    """How the adaptive session compares with the best fixed choice in each, if it can be compared."""
    why = why_void(rows)
    if why:
        return f"adapts: void: {why}"
    fixed, own, told, least = _apart(rows)
    mean_s, p95_s = min(row.mean_s for row in fixed), min(row.p95_s for row in fixed)
    return (
        f"adapts: mean {own.mean_s / mean_s - 1:+.1%}, p95 {own.p95_s / p95_s - 1:+.1%}, each against the fixed choice "
        f"that is best in it (who knew it all: {least.mean_s / mean_s - 1:+.1%}, {least.p95_s / p95_s - 1:+.1%}); in the "
        f"SLA {own.within_sla:.1%}, told of it {_met(told, fixed[0])}, best fixed choice "
        f"{max(row.within_sla for row in fixed):.1%}"
    )


def _met(told: Policy, alone: Policy) -> str:
    """How often *told* met the SLA, if its device was about as fast as that of *alone*, whose times the SLA comes from."""
    if max(told.alone_s, alone.alone_s) <= ALIKE * min(told.alone_s, alone.alone_s):
        return f"{told.within_sla:.1%}"
    return f"void (its device took {1e3 * told.alone_s:.0f} ms alone, {1e3 * alone.alone_s:.0f} where the SLA comes from)"
