"""What `splitc profile` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.apart import GRACE_S, WorkLimits
from splitc.cli.options import (
    cache_option,
    custom_ops_option,
    do,
    examples,
    json_option,
    simplify_option,
    takes,
)
from splitc.cli.values import COUNTS, DIMS, DURATION, FILE, TARGET

# After a signal, a profile ends programs and removes files on other machines.
_GRACE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileArguments:
    """The arguments of `splitc profile`."""

    model: Path
    target: str
    name: str | None
    python: str
    adb: bool
    serial: str | None
    program: Path | None
    browser: bool
    port: int | None
    trace: Path | None
    latency: float | None
    threads: tuple[int, ...]
    runs: int | None
    dims: tuple[tuple[str, tuple[int, ...]], ...]
    samples: Path | None
    simplify: bool
    custom_ops: tuple[str, ...]
    target_custom_ops: tuple[str, ...]
    output: Path | None
    cache_dir: Path
    as_json: bool


@takes(
    ProfileArguments,
    epilog=examples(
        "splitc profile model.onnx",
        "splitc profile model.onnx --target ssh://pi@raspberrypi --as raspberrypi4 --threads 1,4",
        "splitc profile model.onnx --target pixel7 --adb",
        "splitc profile model.onnx --target pixel7 --browser",
        "splitc profile model.onnx --target pixel7 --import trace.json --threads 4",
        "splitc profile model.onnx --target pixel7 --latency 12.3ms",
    ),
)
@click.argument("model", type=FILE)
@click.option(
    "--target",
    default="local",
    show_default=True,
    type=TARGET,
    help="The machine: a target's name or .toml file, or ssh://[user@]host[:port] for any board with Python and ONNX "
    "Runtime.",
)
@click.option("--as", "name", type=TARGET, help="The target that the board at ssh:// is.")
@click.option("--python", default="python3", show_default=True, help="The Python to use on that board.")
@click.option("--adb", is_flag=True, help="Run on an Android phone that is connected to this machine.")
@click.option("--serial", help="Serial number of the phone, if several are connected.")
@click.option(
    "--program",
    type=FILE,
    help="onnxruntime_perf_test for that phone.  [default: the one in /data/local/tmp on the phone]",
)
@click.option(
    "--browser",
    is_flag=True,
    help="Run in a browser on the device, which opens a page served from this machine.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of that page.  [default: any free port]")
@click.option(
    "--import",
    "trace",
    type=FILE,
    help="Import a trace that ONNX Runtime wrote on the device (enable_profiling), or the output of a program of "
    "profilers/ on the device.",
)
@click.option(
    "--latency", type=DURATION, help="Import a single number, if no more is known: the whole model's latency."
)
@click.option(
    "--threads", type=COUNTS, default="", metavar="N[,N...]", help="Threads.  [default: the target's]"
)
@click.option(
    "--runs", type=click.IntRange(1), help="Timed runs.  [default: as many as a stable median needs]"
)
@click.option(
    "--dim", "dims", multiple=True, type=DIMS, help="Sizes of a symbolic dimension (seq=128,256); repeatable."
)
@click.option("--samples", type=FILE, help="Inputs (.npz), one array per input.  [default: random]")
@simplify_option
@custom_ops_option
@click.option(
    "--target-custom-ops",
    multiple=True,
    metavar="LIBRARY",
    help="With a board or phone: where the library of --custom-ops lies there, in the same order; repeatable.",
)
@click.option("-o", "--output", type=FILE, help="Also write the profile to this file (.json).")
@cache_option
@json_option
def profile_command(arguments: ProfileArguments) -> None:
    """Time MODEL on a target, and keep the profile for later builds.

    The model is simplified first, as `splitc compile` does. One profile is kept for each number of threads and each size
    of the inputs; a new profile replaces the old one.
    """
    is_elsewhere = arguments.adb or arguments.browser or "://" in arguments.target
    grace_s = _GRACE_S if is_elsewhere else GRACE_S
    do("profile", arguments, WorkLimits(arguments.model, grace_s=grace_s))
