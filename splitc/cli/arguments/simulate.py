"""What `splitc simulate` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.apart import WorkLimits
from splitc.cli.options import bundles_argument, cache_option, do, examples, json_option, takes
from splitc.cli.values import DURATION, FILE
from splitc.simulate.policies import POLICIES


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArguments:
    """The arguments of `splitc simulate`."""

    bundles: tuple[Path, ...]
    fleet: Path
    policies: tuple[str, ...]
    compare: bool
    sla: float | None
    trace: Path | None
    jobs: int | None
    fluid: bool
    report: Path | None
    threads: int
    cache_dir: Path
    as_json: bool


@takes(
    SimulateArguments,
    epilog=examples(
        "splitc simulate artifacts/regnet-pixel7 --fleet fleet.toml --compare --report fleet.html",
        "splitc simulate bundles/* --fleet fleet.toml --policy price --policy fixed:c1 --sla 500ms",
        "splitc simulate artifacts/regnet-pixel7 --fleet million.toml --fluid",
    ),
)
@bundles_argument
@click.option("--fleet", required=True, type=FILE, help="Devices, networks and cloud (.toml).")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help=f"How devices choose: {', '.join(POLICIES)}, fixed:CUT or least-cloud:SHARE (of the target latency); "
    "repeatable.  [default: least-cloud]",
)
@click.option("--compare", is_flag=True, help="Simulate all policies.")
@click.option("--sla", type=DURATION, help="Target latency of every class (500ms).  [default: the fleet's]")
@click.option(
    "--trace", type=FILE, help="Recorded link for all devices (mahimahi: NAME.up, with NAME.down beside it)."
)
@click.option("--jobs", type=click.IntRange(1), help="Simulate only this many jobs.")
@click.option("--fluid", is_flag=True, help="Approximate without events: for millions of devices.")
@click.option("--report", type=FILE, help="Write a report with plots to this file (.html).")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Threads of a run, where batches are measured on this machine.",
)
@cache_option
@json_option
def simulate_command(arguments: SimulateArguments) -> None:
    """Simulate a fleet of devices that share one cloud.

    Each class of devices in the fleet uses the BUNDLE that was built for its target and model.
    """
    do("simulate", arguments, WorkLimits(arguments.fleet))
