"""`splitc profile`: time a model on a target, or import times that were measured there."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from splitc.cli.arguments.profile import ProfileArguments
from splitc.cli.terminal import Text, new_table, print_json, results, stages
from splitc.common.cache import Cache
from splitc.common.custom_ops import find_custom_ops
from splitc.common.errors import ProfileError
from splitc.common.formatting import format_seconds, format_seconds_range, plural
from splitc.common.ort import use_custom_ops
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


def run(arguments: ProfileArguments) -> None:
    """Record a profile, and show it."""
    model, output = arguments.model, arguments.output
    if model.suffix == DESCRIPTION:
        raise click.UsageError(f"{model} is a pipeline; profile its models one by one: {_models_of(model)}")
    use_custom_ops(find_custom_ops(arguments.custom_ops))
    options = _options(arguments)
    cache = Cache(arguments.cache_dir)
    with stages() as progress, tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        recorded = record(model, options, Path(folder), cache, progress, _writer(output))
    if arguments.as_json:
        print_json(recorded.profile)
        return
    console = results()
    _show(recorded, console)
    for line in _outcome(model, options, recorded, output):
        console.print(Text(line), soft_wrap=True)


def _writer(output: Path | None) -> Callable[[Profile], None]:
    return lambda profile: write_profile(profile, output) if output is not None else None


# --- from arguments to options ---


def _models_of(pipeline: Path) -> str:
    steps = (step for stage in read_spec(pipeline).stage for step in stage.steps)
    return ", ".join(dict.fromkeys(step.model for step in steps))


def _options(arguments: ProfileArguments) -> RecordOptions:
    way = _way(arguments)
    target = _described(arguments)
    name = target.name if target is not None else _host_name(arguments.target)
    if isinstance(way, Here):
        _check_here(name, target)
    elif target is not None and target.machine == "this":
        raise click.UsageError(
            f"target '{name}' is this machine, which can be measured directly; name another device with --target"
        )
    sizings = _sizings(arguments.dims)
    _check_fits(way, arguments, len(sizings))
    return RecordOptions(
        way=way,
        name=name,
        target=target,
        described_as=arguments.name or arguments.target,
        sizings=sizings,
        samples=(arguments.samples,) if arguments.samples else (),
        simplify=arguments.simplify,
        threads=arguments.threads,
        runs=arguments.runs,
        custom_ops_there=arguments.target_custom_ops,
    )


def _way(arguments: ProfileArguments) -> Way:
    """The way that the options ask for.

    Raises:
        UsageError: the options belong to different ways.
    """
    target = arguments.target
    ways: dict[str, Way] = {}
    if target.startswith(_SSH):
        ways[f"--target {_SSH}..."] = OverSsh(target.removeprefix(_SSH).rstrip("/"), arguments.python)
    if arguments.adb:
        ways["--adb"] = OverAdb(arguments.serial, arguments.program)
    if arguments.browser:
        ways["--browser"] = InBrowser(arguments.port or 0)
    if arguments.trace is not None:
        ways["--import"] = Imported(arguments.trace)
    if arguments.latency is not None:
        ways["--latency"] = WholeOnly(arguments.latency)
    if len(ways) > 1:
        one, other, *_ = ways
        raise click.UsageError(f"{one} and {other} are two ways to obtain a profile; give only one of them")
    for option, value, way, chosen in (
        ("--serial", arguments.serial, "--adb", arguments.adb),
        ("--program", arguments.program, "--adb", arguments.adb),
        ("--port", arguments.port, "--browser", arguments.browser),
    ):
        if value is not None and not chosen:
            raise click.UsageError(f"{option} needs {way}")
    if arguments.name is not None and not target.startswith(_SSH):
        raise click.UsageError(f"--as needs --target {_SSH}...; otherwise give the target's name as --target")
    return next(iter(ways.values()), Here())


def _check_fits(way: Way, arguments: ProfileArguments, sizings: int) -> None:
    if arguments.samples and sizings > 1:
        raise click.UsageError("--samples has a single size; give one size for each --dim")
    if isinstance(way, Imported | WholeOnly):
        known = "--import" if isinstance(way, Imported) else "--latency"
        if arguments.runs is not None:
            raise click.UsageError(f"--runs cannot be used with {known}, which runs nothing")
        if sizings > 1:
            raise click.UsageError(f"{known} is for a single size; give one size for each --dim")
    if isinstance(way, WholeOnly) and len(arguments.threads) > 1:
        raise click.UsageError("--latency is for a single number of threads; give one with --threads")


def _described(arguments: ProfileArguments) -> Target | None:
    if arguments.name is not None:
        return load_target(arguments.name)
    return None if arguments.target.startswith(_SSH) else load_target(arguments.target)


def _host_name(target: str) -> str:
    host = target.removeprefix(_SSH).rstrip("/").rpartition("@")[2]
    return host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _check_here(name: str, target: Target | None) -> None:
    if target is not None and target.machine != "this":
        raise ProfileError(
            f"target '{name}' is not this machine; reach it with --target ssh://HOST --as {name}, --adb or --browser, or "
            f"run {shipped('profilers') / PROGRAM} on it and import its output with --import"
        )


def _sizings(dims: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[dict[str, int], ...]:
    """Every combination of the sizes; the first sizes first."""
    sizes = dict(dims)
    return tuple(
        dict(zip(sizes, combination, strict=True)) for combination in itertools.product(*sizes.values())
    )


# --- the result ---


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
                    "first: the machine became hot, or was busy with other work"
                )
            )
    for note in (*found.notes, *recorded.notes):
        console.print(_note(note))


def _note(text: str) -> Text:
    return Text(f"note: {text}", style="yellow")


def _threads(measured: Measurement) -> str:
    return plural(measured.threads, "thread")


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
            f"'{options.name}' is not a known target (`splitc targets` lists them); name the target with --as NAME, or write a "
            "file with -o and use it with `splitc compile --device NAME --device-profile FILE`"
        )
    return lines
