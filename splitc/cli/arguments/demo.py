"""What `splitc demo` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.options import cache_option, do, examples, json_option, takes
from splitc.cli.values import DURATION, FOLDER, NETWORK


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArguments:
    """The arguments of `splitc demo`."""

    bundle: Path | None
    network: str
    slowdown: float
    duration: float
    cache_dir: Path
    as_json: bool


@takes(
    DemoArguments,
    epilog=examples(
        "splitc demo", "splitc demo --network 5g --slowdown 4", "splitc demo --bundle artifacts/regnet-pixel7"
    ),
)
@click.option(
    "--bundle",
    type=FOLDER,
    help="The bundle to run.  [default: a sample, RegNetY-4GF for pixel7, built at first use]",
)
@click.option("--network", default="lte", show_default=True, type=NETWORK, help="The network to emulate.")
@click.option(
    "--slowdown",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1, 1000),
    help="How many times slower than this machine the device is.",
)
@click.option(
    "--seconds", "duration", default="40s", show_default=True, type=DURATION, help="How long to run."
)
@cache_option
@json_option
def demo_command(arguments: DemoArguments) -> None:
    """Run a device and a cloud on this machine; show each decision.

    The emulated link varies as a mobile link does, and is lost for a while. Linux only; needs root or user namespaces.
    """
    do("demo", arguments)
