"""`splitc profile`: time a model on a target, or take over what somebody else timed there."""

import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitc.cli.terminal import examples, new_table, print_json, results, stages
from splitc.cli.values import COUNTS, DIMS, DURATION, FILE, FOLDER, TARGET
from splitc.common.cache import Cache, default_cache_folder
from splitc.common.errors import ProfileError
from splitc.common.formatting import format_seconds, format_seconds_range
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.compile.pipeline.spec import DESCRIPTION, read_spec
from splitc.profile.document import Measurement, Profile, write_profile
from splitc.profile.measure.job import PROGRAM
from splitc.profile.record import (
    Here,
    Imported,
    InBrowser,
    OverAdb,
    OverSsh,
    Recorded,
    RecordOptions,
    Way,
    WholeOnly,
    record,
)
from splitc.profile.targets.description import Target, load_target

_SSH = "ssh://"
_SLOWEST = 10
_SHOWN_OPS = 4
_HOT = 1.1


@click.command(
    epilog=examples(
        "splitc profile model.onnx",
        "splitc profile model.onnx --target ssh://pi@raspberrypi --as raspberrypi4 --threads 1,4",
        "splitc profile model.onnx --target pixel7 --adb",
        "splitc profile model.onnx --target pixel7 --browser",
        "splitc profile model.onnx --target pixel7 --import trace.json --threads 4",
        "splitc profile model.onnx --target pixel7 --latency 12.3ms",
    )
)
@click.argument("model", type=FILE)
@click.option(
    "--target",
    default="local",
    show_default=True,
    type=TARGET,
    help="Which machine: a target's name or .toml file, or ssh://[user@]host[:port] for any board with Python and ONNX "
    "Runtime.",
)
@click.option("--as", "name", type=TARGET, help="Which target the board behind ssh:// is.")
@click.option("--python", default="python3", show_default=True, help="Which Python to run on that board.")
@click.option("--adb", is_flag=True, help="Run on an Android phone that is attached to this machine.")
@click.option("--serial", help="Which phone, if several are attached.")
@click.option(
    "--program",
    type=FILE,
    help="onnxruntime_perf_test for that phone.  [default: the one in /data/local/tmp there]",
)
@click.option("--browser", is_flag=True, help="Run in a browser on the device that opens a page served here.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Where to serve that page.  [default: any free port]"
)
@click.option(
    "--import",
    "trace",
    type=FILE,
    help="Take a trace that ONNX Runtime wrote there (enable_profiling), or what a program of profilers/ printed there.",
)
@click.option(
    "--latency", type=DURATION, help="Take one number, when only that is known: the whole model's time."
)
@click.option(
    "--threads", type=COUNTS, default="", metavar="N[,N...]", help="Threads.  [default: the target's]"
)
@click.option("--runs", type=click.IntRange(1), help="Timed runs.  [default: what a stable median needs]")
@click.option(
    "--dim", "dims", multiple=True, type=DIMS, help="Sizes of a symbolic dimension (seq=128,256); repeatable."
)
@click.option("--samples", type=FILE, help="Inputs (.npz), one array per input.  [default: random]")
@click.option(
    "--simplify/--no-simplify", default=True, help="Clean the graph with onnxsim first.  [default: on]"
)
@click.option("-o", "--output", type=FILE, help="Also write the profile here (.json), to commit or pass on.")
@click.option("--cache-dir", type=FOLDER, help="Where profiles are kept.  [default: the user's cache folder]")
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
def profile(model: Path, output: Path | None, cache_dir: Path | None, as_json: bool, **given: Any) -> None:
    """Time MODEL on a target and keep the profile, so that builds for this target use it.

    The model is simplified first, as `splitc compile` cuts it. Profiles are kept for each number of threads and each
    size of the inputs; a newer one takes the place of an older one.
    """
    if model.suffix == DESCRIPTION:
        raise click.UsageError(f"{model} is a pipeline; profile its models one by one: {_models_of(model)}")
    options = _options(given)
    cache = Cache(cache_dir or default_cache_folder())
    with stages() as progress, tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        recorded = record(model, options, Path(folder), cache, progress, _writer(output))
    if as_json:
        print_json(encode(recorded.profile))
        return
    console = results()
    _show(recorded, console)
    for line in _outcome(model, options, recorded, output):
        console.print(Text(line), soft_wrap=True)


def _writer(output: Path | None) -> Callable[[Profile], None]:
    return lambda profile: write_profile(profile, output) if output is not None else None


# --- what was asked for ---


def _models_of(pipeline: Path) -> str:
    steps = (step for stage in read_spec(pipeline).stage for step in stage.steps)
    return ", ".join(dict.fromkeys(step.model for step in steps))


def _options(given: Mapping[str, Any]) -> RecordOptions:
    way = _way(given)
    target = _described(given)
    name = target.name if target is not None else _host_name(given["target"])
    if isinstance(way, Here):
        _check_here(name, target)
    elif target is not None and target.machine == "this":
        raise click.UsageError(
            f"target '{name}' is this machine, which is measured; name the device with --target"
        )
    sizings = _sizings(given["dims"])
    _check_fits(way, given, len(sizings))
    return RecordOptions(
        way=way,
        name=name,
        target=target,
        described_as=given["name"] or given["target"],
        sizings=sizings,
        samples=(given["samples"],) if given["samples"] else (),
        simplify=given["simplify"],
        threads=given["threads"],
        runs=given["runs"],
    )


def _way(given: Mapping[str, Any]) -> Way:
    """The one way that is asked for; the options of another way are a mistake."""
    target: str = given["target"]
    ways: dict[str, Way] = {}
    if target.startswith(_SSH):
        ways[f"--target {_SSH}..."] = OverSsh(target.removeprefix(_SSH).rstrip("/"), given["python"])
    if given["adb"]:
        ways["--adb"] = OverAdb(given["serial"], given["program"])
    if given["browser"]:
        ways["--browser"] = InBrowser(given["port"] or 0)
    if given["trace"] is not None:
        ways["--import"] = Imported(given["trace"])
    if given["latency"] is not None:
        ways["--latency"] = WholeOnly(given["latency"])
    if len(ways) > 1:
        one, other, *_ = ways
        raise click.UsageError(f"{one} and {other} are two ways to obtain a profile; give one of them")
    for option, way in (("serial", "adb"), ("program", "adb"), ("port", "browser")):
        if given[option] is not None and not given[way]:
            raise click.UsageError(f"--{option} is for --{way}")
    if given["name"] is not None and not target.startswith(_SSH):
        raise click.UsageError(f"--as is for --target {_SSH}...; without it, --target is the target's name")
    return next(iter(ways.values()), Here())


def _check_fits(way: Way, given: Mapping[str, Any], sizings: int) -> None:
    if given["samples"] and sizings > 1:
        raise click.UsageError("--samples is of one size; give one size for each --dim")
    if isinstance(way, Imported | WholeOnly):
        known = "--import" if isinstance(way, Imported) else "--latency"
        if given["runs"] is not None:
            raise click.UsageError(f"--runs has no meaning with {known}: nothing is run")
        if sizings > 1:
            raise click.UsageError(f"{known} is of one size; give one size for each --dim")
    if isinstance(way, WholeOnly) and len(given["threads"]) > 1:
        raise click.UsageError("--latency is of one number of threads; give one with --threads")


def _described(given: Mapping[str, Any]) -> Target | None:
    if given["name"] is not None:
        return load_target(given["name"])
    return None if given["target"].startswith(_SSH) else load_target(given["target"])


def _host_name(target: str) -> str:
    host = target.removeprefix(_SSH).rstrip("/").rpartition("@")[2]
    return host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _check_here(name: str, target: Target | None) -> None:
    if target is not None and target.machine != "this":
        raise ProfileError(
            f"target '{name}' is not this machine; reach it with --target ssh://HOST --as {name}, --adb or --browser, or "
            f"run {shipped('profilers') / PROGRAM} on it and give what it prints with --import"
        )


def _sizings(dims: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[dict[str, int], ...]:
    """Every combination of the sizes; the first sizes first."""
    sizes = dict(dims)
    return tuple(
        dict(zip(sizes, combination, strict=True)) for combination in itertools.product(*sizes.values())
    )


# --- what came of it ---


def _show(recorded: Recorded, console: Console) -> None:
    profile, found = recorded.profile, recorded.found
    version = f" {profile.runtime_version}" if profile.runtime_version else ""
    facts = [profile.source, f"{profile.runtime}{version}", profile.provider]
    facts += [profile.machine.processor] if profile.machine.processor else []
    console.print(Text.assemble((found.original.name, "bold"), f": {', '.join(facts)}"))
    console.print(_measurements(recorded))
    known = [index for index, item in enumerate(recorded.seconds) if item is not None]
    if known:
        console.print(_slowest(recorded, known[0]))
    for measured in profile.measurements:
        drift = measured.drift()
        if drift is not None and drift > _HOT:
            console.print(
                _note(
                    f"with {_threads(measured)} the last third of the runs was {100 * (drift - 1):.0f} % slower than the "
                    "first: the machine grew hot, or was busy with something else"
                )
            )
    for note in (*found.notes, *recorded.notes):
        console.print(_note(note))


def _note(text: str) -> Text:
    return Text(f"note: {text}", style="yellow")


def _threads(measured: Measurement) -> str:
    return f"{measured.threads} thread{'s' if measured.threads != 1 else ''}"


def _measurements(recorded: Recorded) -> Table:
    numbers = ("whole run", "nine of ten", "fixed cost", "runs", "in units")
    table = new_table("threads", "sizes", *numbers, right=("threads", *numbers))
    for measured, share in zip(recorded.profile.measurements, recorded.shares, strict=True):
        spread, middle = measured.spread(), median(measured.whole_s)
        table.add_row(
            str(measured.threads),
            Text(", ".join(f"{name}={size}" for name, size in sorted(measured.dims.items())) or "-"),
            format_seconds(middle),
            format_seconds_range(spread[0] * middle, spread[1] * middle) if spread else "-",
            format_seconds(median(measured.fixed_s)) if measured.fixed_s else "not known",
            str(len(measured.whole_s)),
            f"{100 * share:.0f} % of the time" if share is not None else "not known",
        )
    return table


def _slowest(recorded: Recorded, index: int) -> Table:
    units = recorded.found.partition.graph.units
    seconds = recorded.seconds[index] or ()
    whole_s = median(recorded.profile.measurements[index].whole_s)
    title = f"slowest of {len(units)} units, {_threads(recorded.profile.measurements[index])}"
    table = new_table(title, "operators", "time", "share", right=("time", "share"))
    for number in sorted(range(len(units)), key=lambda number: -seconds[number])[:_SLOWEST]:
        ops = list(dict.fromkeys(work.op for work in units[number].work))
        more = ", ..." if len(ops) > _SHOWN_OPS else ""
        table.add_row(
            Text(units[number].name),
            Text(", ".join(ops[:_SHOWN_OPS]) + more),
            format_seconds(seconds[number]),
            f"{100 * seconds[number] / whole_s:.0f} %",
        )
    return table


def _outcome(model: Path, options: RecordOptions, recorded: Recorded, output: Path | None) -> list[str]:
    lines = [f"wrote {output}"] if output is not None else []
    lines += [f"kept {path}" for path in recorded.kept]
    if recorded.used:
        side = "--cloud" if options.target is not None and options.target.kind == "cloud" else "--device"
        lines.append(f"`splitc compile {model} {side} {options.described_as}` now uses it")
    elif options.target is None:
        lines.append(
            f"'{options.name}' is no target: say which one it is with --as NAME, or use a file that -o wrote with "
            "`splitc compile --device NAME --device-profile FILE`"
        )
    return lines
