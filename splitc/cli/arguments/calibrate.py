"""What `splitc calibrate` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.options import cache_option, do, examples, json_option, takes
from splitc.cli.values import FILE, TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateArguments:
    """The arguments of `splitc calibrate`."""

    target: str
    more: tuple[Path, ...]
    profiles: tuple[Path, ...]
    clear: bool
    cache_dir: Path
    as_json: bool


@takes(
    CalibrateArguments,
    epilog=examples(
        "splitc profile model.onnx --target pixel7 --latency 12.3ms -o run.json",
        "splitc calibrate pixel7 --with run.json",
        "splitc calibrate pixel7",
        "splitc calibrate pixel7 --clear",
    ),
)
@click.argument("target", type=TARGET)
@click.argument("more", nargs=-1, type=FILE, metavar="[PROFILE]...")
@click.option(
    "--with", "profiles", multiple=True, type=FILE, help="A profile that `splitc profile` wrote; repeatable."
)
@click.option("--clear", is_flag=True, help="Forget the runs that the target is calibrated with.")
@cache_option
@json_option
def calibrate_command(arguments: CalibrateArguments) -> None:
    """Correct the predictions for TARGET with measured runs.

    One to three runs make the predictions much better, for every model. Each call adds its runs to those of earlier
    calls; without any, the runs so far are shown.
    """
    do("calibrate", arguments)
