"""`splitc simulate`: compare policies for a fleet of devices that share a cloud."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import click
from rich.console import Console
from rich.progress import Progress

from splitc.bundle.folder import Bundle, read_bundle
from splitc.cli.arguments.simulate import SimulateArguments
from splitc.cli.facts.simulate import SimulateFacts
from splitc.cli.streams import say, tell
from splitc.cli.terminal import new_table, print_json, progress_console, results
from splitc.common.errors import TargetError
from splitc.common.formatting import format_seconds
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

_MOST_JOBS = 2_000_000  # with events; more take gigabytes of memory
_SHARES = ("device", "split", "cloud", "refused")
_TIMES = ("median", "95th", "99th")

_Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Results:
    """The results of all policies; a fluid plan has no outcomes."""

    summaries: tuple[Summary, ...]
    outcomes: tuple[SimulationOutcome, ...]


def run(arguments: SimulateArguments) -> None:
    """Simulate a fleet, and show the policies side by side."""
    fleet = read_fleet(arguments.fleet)
    if arguments.sla is not None:
        fleet = replace(fleet, classes=tuple(replace(item, sla_s=arguments.sla) for item in fleet.classes))
    scenario = _scenario(fleet, [read_bundle(path) for path in arguments.bundles], arguments)
    wanted = dict.fromkeys([*arguments.policies, *(POLICIES if arguments.compare else ())]) or (
        "least-cloud",
    )
    cases = usual_cases(scenario)
    policies = [policy(name, cases) for name in wanted]
    if arguments.fluid and arguments.jobs is not None:
        raise click.UsageError("--jobs cannot be used with --fluid, which simulates no single jobs")
    found = _plan(scenario, policies) if arguments.fluid else _simulate(scenario, policies, arguments.jobs)
    if arguments.report is not None:
        arguments.report.write_text(render(scenario, found.summaries, found.outcomes), encoding="utf-8")
    if arguments.as_json:
        print_json(SimulateFacts(tuple(found.summaries)))
        return
    _show(found.summaries, results())
    if arguments.report is not None:
        say(f"wrote {arguments.report}")


# --- the scenario ---


def _scenario(fleet: Fleet, bundles: Sequence[Bundle], arguments: SimulateArguments) -> Scenario:
    used = match(fleet, bundles)
    distinct = tuple(dict.fromkeys(bundle.folder for bundle in used))
    needed = [next(bundle for bundle in used if bundle.folder == folder) for folder in distinct]
    if fleet.cloud.batch == "measured":
        curves = measured_curves(
            fleet.cloud,
            needed,
            arguments.threads,
            arguments.cache_dir,
            lambda text: tell(f"{text} ..."),
        )
    else:
        curves = described_curves(fleet.cloud, needed)
    return Scenario(
        fleet, tuple(bundle.manifest for bundle in used), load_links(fleet, arguments.trace), curves
    )


# --- the simulation ---


def _plan(scenario: Scenario, policies: Sequence[Policy]) -> _Results:
    with _progress() as progress:
        task = progress.add_task("Planning", total=phase_count(scenario.fleet) * len(policies))
        arguments: _Told = lambda done: progress.advance(task, done)  # noqa: E731 - its type is the point
        return _Results(tuple(plan(scenario, item, arguments) for item in policies), ())


def _simulate(scenario: Scenario, policies: Sequence[Policy], most: int | None) -> _Results:
    expected = expected_jobs(scenario.fleet)
    if min(expected, most or expected) > _MOST_JOBS:
        raise TargetError(
            f"the fleet has about {expected:.3g} jobs, more than the {_MOST_JOBS:.2g} that can be simulated; shorten its horizon, "
            "limit them with --jobs, or approximate with --fluid"
        )
    workload = draw(scenario)
    if most is not None:
        workload = workload.first(most)
    if not len(workload):
        raise TargetError("the fleet has no jobs within its horizon; increase horizon_s or rate_per_s")
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
    console = progress_console()
    return Progress(console=console, transient=True, disable=not console.is_terminal)


# --- the result ---


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
    """How far a policy is from the bounds, and how far apart its classes are."""
    parts = []
    if item.spread is not None and len(item.classes) > 1:
        parts.append(f"the 95th percentiles of its classes differ by up to {item.spread:.2f}x")
    if item.bounds is not None and item.bounds.met is not None:
        parts.append(f"{_percent(item.all.met)} in time (at most {_percent(item.bounds.met)} is possible)")
    if item.bounds is not None and item.bounds.mean_s is not None:
        mean = f"mean latency {_seconds(item.all.mean_s)} (at least {_seconds(item.bounds.mean_s)})"
        parts.append(mean)
    if item.turned_away:
        parts.append(f"the cloud turned {item.turned_away:.0f} requests away")
    return f"{item.policy}: {'; '.join(parts)}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else format_seconds(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"
