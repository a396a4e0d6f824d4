"""Is the simulator true? Sixteen phones and a server in the test bed, against `splitc simulate` of the same.

Real are the server and what it computes, HTTP and TCP over an emulated link, and of the phones everything but their
computing: estimators, decisions, probes, circuit breakers, hedges (see `fleet_phones`). The simulation is given the
manifest, when each phone asks, what the link is told to be, and two things that are measured by themselves just
before and after: what runs of one and more requests take on the server's core, without the server, and what a request of
one phone alone costs besides link and run. Nothing of a run with all phones goes into its simulation.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.running.models import Compiled
from benchmarks.running.networks import link, typical
from benchmarks.running.programs import CLOUD_CORE, DEVICE_CORE, Program, here, running, serving
from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry, Manifest, part_files
from splitc.simulate.engine import simulate
from splitc.simulate.fleet import CloudEntry, DeviceClass, Fleet, Percentiles
from splitc.simulate.job import End
from splitc.simulate.links import SimulatedLink, Wandering
from splitc.simulate.policies import key_of, policy
from splitc.simulate.scenario import Curve, Scenario, usual_cases
from splitc.simulate.tcp import lone_s
from splitc.simulate.workload import Workload, draw
from splitc.testbed.bed import Bed

LIMIT = 0.15
DISTURBED = 0.10
PHONES = 8  # of each kind
# So many times as slow as this machine: only the faster kind can do without the cloud within so many times what
# this machine takes.
SLOWDOWNS, SLA = (2.5, 7.0), 4.0
MAX_BATCH = 8
_SEED = 3
_ROUNDS, _PAUSE_S = 30, 0.02
_ALONE, _ALONE_PAUSE_S = 20, 0.3  # after such a pause TCP begins anew

Times = dict[str, list[float]]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, and over what; *load*: how busy the cloud would be if it did everything."""

    policy: str
    network: str
    load: float


CASES = (
    Case("all-cloud", "wifi", 0.45),
    Case("latency", "lte", 0.6),
    Case("least-cloud", "wifi", 0.9),
    Case("price", "wifi", 1.4),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a case came to; *offloaded*: the share of requests that the cloud answered."""

    mean_s: float
    p95_s: float
    busy_s: float
    offloaded: float


@dataclass(frozen=True, slots=True)
class Compared:
    """A case, really and simulated.

    Attributes:
        run_s, drift: mean of what runs took on the server's core before and after, and how far these two are apart.
        disturbance: how much longer a run took in the server.
        request_s: what a lone request costs besides link and run.
    """

    case: Case
    jobs: int
    real: Figures
    simulated: Figures
    load: float
    run_s: float
    drift: float
    disturbance: float
    request_s: float

    @property
    def errors(self) -> tuple[float, float, float]:
        """Of mean, 95th percentile and cloud time, relative to the real ones."""
        pairs = (
            (self.simulated.mean_s, self.real.mean_s),
            (self.simulated.p95_s, self.real.p95_s),
            (self.simulated.busy_s, self.real.busy_s),
        )
        return pairs[0][0] / pairs[0][1] - 1, pairs[1][0] / pairs[1][1] - 1, pairs[2][0] / pairs[2][1] - 1

    @property
    def is_void(self) -> bool:
        """Whether something else used the server's core, so that the simulation was told another machine."""
        return max(abs(self.drift), abs(self.disturbance)) > DISTURBED


# --- what is measured ---


def measure(model: Compiled, folder: Path, cases: Sequence[Case], seconds: float) -> Iterator[Compared]:
    """Run each of *cases* for so many *seconds*, and simulate it."""
    for case in cases:
        before = _batch_times(model, folder)
        with Bed(link(typical(case.network))) as bed:
            found = _Real(model, folder, bed, case, seconds, before)
            lone, rows, counted, load = found.measure()
        after = _batch_times(model, folder)
        yield _compared(model, case, seconds, (before, after), lone, rows, counted, load)


class _Real:
    """A case in the test bed."""

    def __init__(
        self, model: Compiled, folder: Path, bed: Bed, case: Case, seconds: float, before: Times
    ) -> None:
        self._model, self._folder, self._bed, self._case = model, folder, bed, case
        self._scenario = scenario(model, case, seconds, before, 0.0)

    def measure(self) -> tuple[list[Row], list[Row], dict[str, float], float]:
        """Requests of one phone alone and of all together, what the server counted of these, and the load average."""
        priced = ("--price",) if self._case.policy in ("price", "least-cloud") else ()
        bed, start = self._bed, partial(self._bed.start, "device")
        server = serving(
            [self._model.folder], self._folder, partial(bed.start, "cloud"), bed.cloud_address, *priced
        )
        with server as url, running("fleet_phones", start, DEVICE_CORE) as phones:
            self._open(phones, url, cut=all_tail(self._model).id)
            lone = phones.ask("alone", count=_ALONE, pause_s=_ALONE_PAUSE_S)
            phones.ask("close")
            self._open(
                phones, url, cut=all_tail(self._model).id if self._case.policy == "all-cloud" else None
            )
            workload, before = draw(self._scenario), phones.ask("counters")
            times_s, devices = workload.time_s.tolist(), workload.device.tolist()
            rows = phones.ask("together", times_s=times_s, phones=devices)
            load = os.getloadavg()[0]
            after = phones.ask("counters")
            return lone, rows, {name: after[name] - before[name] for name in after}, load

    def _open(self, phones: Program, url: str, *, cut: str | None) -> None:
        classes = self._scenario.fleet.classes
        aims = self._case.policy == "least-cloud"
        phones.ask(
            "open",
            bundle=str(self._model.folder),
            server=url,
            slowdowns=[item.slowdown.typical for item in classes for _ in range(item.count)],
            slas_s=[item.sla_s if aims else None for item in classes for _ in range(item.count)],
            cut=cut,
        )


def _batch_times(model: Compiled, folder: Path) -> Times:
    with running("fleet_cloud", here, CLOUD_CORE) as cloud:
        times: Times = cloud.ask(
            "times",
            bundle=str(model.folder),
            cache=str(folder / "cache" / "served"),
            max_batch=MAX_BATCH,
            rounds=_ROUNDS,
            pause_s=_PAUSE_S,
        )
    return times


# --- what is simulated ---


def scenario(model: Compiled, case: Case, seconds: float, times: Times, request_s: float) -> Scenario:
    """The same for `splitc simulate`."""
    manifest = model.bundle.manifest
    usual = typical(case.network)
    alone = next(cut for cut in model.cuts if cut.kind == "all-head")
    whole_s = times[_file(all_tail(model))][0]
    rate_per_s = case.load / (whole_s * PHONES * len(SLOWDOWNS))
    classes = tuple(
        DeviceClass(
            f"{slowdown:g} times as slow",
            PHONES,
            rate_per_s,
            {case.network: 1.0},
            device=manifest.targets.device.name,
            sla_s=SLA * alone.device_s,
            slowdown=Percentiles(slowdown),
        )
        for slowdown in SLOWDOWNS
    )
    cloud = CloudEntry(machines=1, request_s=request_s)
    steady = SimulatedLink(
        Wandering(Percentiles(usual.uplink_bps)),
        Wandering(Percentiles(usual.downlink_bps)),
        Percentiles(usual.rtt_s),
    )
    fleet = Fleet(seconds, cloud, classes, seed=_SEED)
    return Scenario(fleet, (manifest,) * len(classes), {case.network: steady}, _curves(manifest, times))


def _curves(manifest: Manifest, times: Times) -> dict[tuple[str, str, str], Curve]:
    """What was measured, over what the manifest says of one request."""
    return {
        (*key_of(manifest), cut.id): tuple(taken_s / cut.cloud_s for taken_s in times[_file(cut)])
        for cut in manifest.cuts
        if cut.cloud is not None
    }


def _file(cut: CutEntry) -> str:
    assert cut.cloud is not None, "all-head has no part in the cloud"
    (file,) = part_files(cut.cloud)
    return file


def all_tail(model: Compiled) -> CutEntry:
    """The cut that leaves everything to the cloud."""
    return next(cut for cut in model.cuts if cut.kind == "all-tail")


def _simulated(of: Scenario, workload: Workload, name: str) -> Figures:
    outcome = simulate(of, workload, policy(name, usual_cases(of)), lambda _: None)
    offloaded = (outcome.end == End.SPLIT) | (outcome.end == End.CLOUD)
    return _figures(outcome.latency_s.tolist(), outcome.busy_s, float(offloaded.mean()))


# --- what comes of it ---


def _compared(
    model: Compiled,
    case: Case,
    seconds: float,
    times: tuple[Times, Times],
    lone: Sequence[Row],
    rows: Sequence[Row],
    counted: dict[str, float],
    load: float,
) -> Compared:
    mean: Times = {
        file: [fmean(pair) for pair in zip(times[0][file], times[1][file], strict=True)] for file in times[0]
    }
    workload = draw(scenario(model, case, seconds, times[0], 0.0))
    whole = _file(all_tail(model))
    request_s = lone_request_s(lone, all_tail(model), typical(case.network))
    return Compared(
        case=case,
        jobs=len(workload),
        real=_figures(
            [row["latency_s"] for row in rows],
            counted["busy_s"],
            fmean(row["finished"] == "cloud" for row in rows),
        ),
        simulated=_simulated(scenario(model, case, seconds, mean, request_s), workload, case.policy),
        load=load,
        run_s=mean[whole][0],
        drift=times[1][whole][0] / times[0][whole][0] - 1,
        disturbance=disturbance(
            rows, {cut.id: mean[_file(cut)] for cut in model.cuts if cut.cloud is not None}
        ),
        request_s=request_s,
    )


def lone_request_s(rows: Sequence[Row], cut: CutEntry, usual: Conditions) -> float:
    """What a request costs besides link and run: the median of requests that had all for themselves."""
    carried_s = 8 * cut.uplink_bytes / usual.uplink_bps + 8 * cut.downlink_bytes / usual.downlink_bps
    network_s = usual.rtt_s + carried_s + lone_s(cut, usual, math.inf)
    answered = [row for row in rows if row["compute_s"] is not None]
    besides_s: float = median(row["latency_s"] - row["queue_s"] - row["compute_s"] for row in answered)
    return max(besides_s - network_s, 0.0)


def disturbance(rows: Sequence[Row], times_s: Mapping[str, Sequence[float]]) -> float:
    """How much longer runs took in the server than without it, on average; zero where there were none.

    Args:
        times_s: by cut, of batches of 1, 2, ...; a run was of the size that it is nearest to.
    """
    ratios = [
        min((row["compute_s"] / time_s for time_s in times_s[row["cut"]]), key=lambda ratio: abs(ratio - 1))
        for row in rows
        if row["compute_s"] is not None
    ]
    return fmean(ratios) - 1 if ratios else 0.0


def _figures(latencies_s: Sequence[float], busy_s: float, offloaded: float) -> Figures:
    return Figures(fmean(latencies_s), float(np.percentile(latencies_s, 95)), busy_s, offloaded)


# --- tables ---


def table(rows: Sequence[Compared]) -> Table:
    found = Table(title="The simulator is true: real, simulated", title_justify="left")
    columns = (
        "policy",
        "network",
        "requests",
        "in the cloud",
        "mean, ms",
        "",
        "95th, ms",
        "",
        "cloud busy, s",
        "",
    )
    for number, column in enumerate((*columns, "run, ms", "load")):
        found.add_column(column, justify="left" if number < 2 else "right")
    for row in rows:
        errors = [f"{error:+.1%}" for error in row.errors]
        real, made = row.real, row.simulated
        found.add_row(
            row.case.policy,
            row.case.network,
            str(row.jobs),
            f"{real.offloaded:.0%}, {made.offloaded:.0%}",
            f"{1e3 * real.mean_s:.0f}, {1e3 * made.mean_s:.0f}",
            errors[0],
            f"{1e3 * real.p95_s:.0f}, {1e3 * made.p95_s:.0f}",
            errors[1],
            f"{real.busy_s:.2f}, {made.busy_s:.2f}",
            errors[2],
            f"{1e3 * row.run_s:.1f} {row.drift:+.0%} {row.disturbance:+.0%}",
            f"{row.load:.1f}",
        )
    return found


def verdict(rows: Sequence[Compared]) -> str:
    valid = [row for row in rows if not row.is_void]
    void = "".join(
        f"; {row.case.policy} is void: something else used the server's core (runs took {row.disturbance:+.0%} in the "
        f"server, {row.drift:+.0%} from before to after); rerun"
        for row in rows
        if row.is_void
    )
    if not valid:
        return f"simulator: nothing to tell{void}"
    within = sum(max(map(abs, row.errors)) <= LIMIT for row in valid)
    worst = max(valid, key=lambda row: max(map(abs, row.errors)))
    return (
        f"simulator: mean, 95th percentile and cloud time within {LIMIT:.0%} for {within} of {len(valid)} policies, "
        f"at most {max(map(abs, worst.errors)):.1%} off ({worst.case.policy}){void}"
    )
