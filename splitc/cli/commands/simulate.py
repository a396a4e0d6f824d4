"""`splitc simulate`: what a fleet of devices would make of a cloud, policy by policy."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from splitc.bundle.folder import Bundle, read_bundle
from splitc.cli.terminal import examples, new_table, print_json, results
from splitc.cli.values import ANY_PATH, DURATION, FILE, FOLDER
from splitc.common.cache import default_cache_folder
from splitc.common.errors import TargetError
from splitc.common.formatting import format_seconds
from splitc.common.records import encode
from splitc.simulate.bounds.fluid import phase_count, plan
from splitc.simulate.bounds.offline import reach
from splitc.simulate.engine import SimulationOutcome, simulate
from splitc.simulate.fleet import Fleet, read_fleet
from splitc.simulate.links import load_links
from splitc.simulate.policies import POLICIES, Policy, policy
from splitc.simulate.report.page import render
from splitc.simulate.report.summary import Group, Summary, summarise
from splitc.simulate.scenario import Scenario, described_curves, match, measured_curves, usual_cases
from splitc.simulate.workload import draw, expected_jobs

_MOST_JOBS = 2_000_000  # of events: more take gigabytes of memory
_SHARES = ("device", "split", "cloud", "refused")
_TIMES = ("median", "95th", "99th")

_Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Results:
    """All policies; no outcomes of a fluid plan."""

    summaries: tuple[Summary, ...]
    outcomes: tuple[SimulationOutcome, ...]


@click.command(
    "simulate",
    epilog=examples(
        "splitc simulate artifacts/regnet-pixel7 --fleet fleet.toml --compare --report fleet.html",
        "splitc simulate bundles/* --fleet fleet.toml --policy price --policy fixed:c1 --sla 500ms",
        "splitc simulate artifacts/regnet-pixel7 --fleet million.toml --fluid",
    ),
)
@click.argument("bundles", nargs=-1, required=True, type=ANY_PATH, metavar="BUNDLE...")
@click.option("--fleet", "fleet_path", required=True, type=FILE, help="Devices, networks and cloud (.toml).")
@click.option(
    "--policy",
    "names",
    multiple=True,
    metavar="NAME",
    help=f"How devices choose: {', '.join(POLICIES)}, fixed:CUT or least-cloud:SHARE (of the target that is aimed at); "
    "repeatable.  [default: least-cloud]",
)
@click.option("--compare", is_flag=True, help="All policies.")
@click.option("--sla", type=DURATION, help="Target latency of every class (500ms).  [default: the fleet's]")
@click.option("--trace", type=FILE, help="Recorded link (mahimahi, .up; .down beside it) for all devices.")
@click.option("--jobs", type=click.IntRange(1), help="Simulate the first so many jobs only.")
@click.option("--fluid", is_flag=True, help="Approximate without events: for millions of devices.")
@click.option("--report", "report_path", type=FILE, help="Write a report with plots (.html).")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Of a run, where batches are measured here.",
)
@click.option(
    "--cache-dir", type=FOLDER, help="Where measured batches are kept.  [default: the user's cache]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def simulate_command(
    bundles: tuple[Path, ...],
    fleet_path: Path,
    names: tuple[str, ...],
    compare: bool,
    sla: float | None,
    trace: Path | None,
    jobs: int | None,
    fluid: bool,
    report_path: Path | None,
    threads: int,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Simulate the devices of a fleet, each with the BUNDLE for it, and the cloud that they share."""
    fleet = read_fleet(fleet_path)
    if sla is not None:
        fleet = replace(fleet, classes=tuple(replace(item, sla_s=sla) for item in fleet.classes))
    scenario = _scenario(fleet, [read_bundle(path) for path in bundles], trace, threads, cache_dir)
    wanted = dict.fromkeys([*names, *(POLICIES if compare else ())]) or ("least-cloud",)
    cases = usual_cases(scenario)
    policies = [policy(name, cases) for name in wanted]
    if fluid and jobs is not None:
        raise click.UsageError("--jobs is for events, of which --fluid has none")
    found = _plan(scenario, policies) if fluid else _simulate(scenario, policies, jobs)
    if report_path is not None:
        report_path.write_text(render(scenario, found.summaries, found.outcomes), encoding="utf-8")
    if as_json:
        print_json({"policies": [encode(item) for item in found.summaries]})
        return
    _show(found.summaries, results())
    if report_path is not None:
        click.echo(f"wrote {report_path}")


# --- before ---


def _scenario(
    fleet: Fleet, bundles: Sequence[Bundle], trace: Path | None, threads: int, cache_dir: Path | None
) -> Scenario:
    used = match(fleet, bundles)
    distinct = tuple(dict.fromkeys(bundle.folder for bundle in used))
    needed = [next(bundle for bundle in used if bundle.folder == folder) for folder in distinct]
    if fleet.cloud.batch == "measured":
        folder = cache_dir or default_cache_folder()
        curves = measured_curves(
            fleet.cloud, needed, threads, folder, lambda text: click.echo(f"{text} ...", err=True)
        )
    else:
        curves = described_curves(fleet.cloud, needed)
    return Scenario(fleet, tuple(bundle.manifest for bundle in used), load_links(fleet, trace), curves)


# --- the work ---


def _plan(scenario: Scenario, policies: Sequence[Policy]) -> _Results:
    with _progress() as progress:
        task = progress.add_task("Planning", total=phase_count(scenario.fleet) * len(policies))
        told: _Told = lambda done: progress.advance(task, done)  # noqa: E731 - its type is the point
        return _Results(tuple(plan(scenario, item, told) for item in policies), ())


def _simulate(scenario: Scenario, policies: Sequence[Policy], most: int | None) -> _Results:
    expected = expected_jobs(scenario.fleet)
    if min(expected, most or expected) > _MOST_JOBS:
        raise TargetError(
            f"the fleet has about {expected:.3g} jobs, and events are for {_MOST_JOBS:.2g} at most; shorten its horizon, "
            "give --jobs, or approximate with --fluid"
        )
    workload = draw(scenario)
    if most is not None:
        workload = workload.first(most)
    if not len(workload):
        raise TargetError("the fleet has no job within its horizon; lengthen horizon_s, or raise rate_per_s")
    found = reach(scenario, workload)
    outcomes, summaries = [], []
    with _progress() as progress:
        task = progress.add_task("Simulating", total=len(workload) * len(policies))
        for item in policies:
            progress.update(task, description=item.name)
            outcome = simulate(scenario, workload, item, lambda done: progress.advance(task, done))
            outcomes.append(outcome)
            summaries.append(summarise(scenario, workload, outcome, found))
    return _Results(tuple(summaries), tuple(outcomes))


def _progress() -> AbstractContextManager[Progress]:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


# --- after ---


def _show(summaries: Sequence[Summary], console: Console) -> None:
    costs = ("busy", "use", "at least", *(("cost",) if summaries[0].usd is not None else ()))
    titles = (*_TIMES, "in time", *_SHARES, *costs)
    table = new_table("policy", *titles, right=titles)
    for item in summaries:
        least = item.bounds.busy_s if item.bounds is not None else None
        row = [format_seconds(item.busy_s), _percent(item.utilisation), _seconds(least)]
        row += [f"${item.usd:.3g}"] if item.usd is not None else []
        table.add_row(item.policy, *_figures(item.all), *row)
    console.print(table)
    titles = (*_TIMES, "in time", *_SHARES)
    table = new_table("policy", "class", "jobs", *titles, right=("jobs", *titles))
    for item in summaries:
        for number, group in enumerate(item.classes):
            name = "" if number else item.policy
            table.add_row(name, group.name, f"{group.jobs:.0f}", *_figures(group))
    console.print(table)
    for item in summaries:
        console.print(_sentence(item), soft_wrap=True)


def _figures(group: Group) -> list[str]:
    times = [group.p50_s, group.p95_s, group.p99_s]
    shares = [group.device, group.split, group.cloud, group.refused]
    return [*map(_seconds, times), _percent(group.met), *map(_percent, shares)]


def _sentence(item: Summary) -> str:
    """How far a policy is from what is possible, and how far its classes are apart."""
    parts = []
    if item.spread is not None and len(item.classes) > 1:
        parts.append(f"the 95th percentiles of its classes are {item.spread:.2f}x apart")
    if item.bounds is not None and item.bounds.met is not None:
        parts.append(f"in time {_percent(item.all.met)} of at most {_percent(item.bounds.met)}")
    if item.bounds is not None and item.bounds.mean_s is not None:
        mean = f"mean latency {_seconds(item.all.mean_s)} of at least {_seconds(item.bounds.mean_s)}"
        parts.append(mean)
    if item.turned_away:
        parts.append(f"the cloud turned {item.turned_away:.0f} requests away")
    return f"{item.policy}: {'; '.join(parts)}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else format_seconds(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"
