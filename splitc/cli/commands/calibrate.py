"""`splitc calibrate`: correct the predictions for a target with a few real runs."""

import click
from rich.console import Console

from splitc.cli.arguments.calibrate import CalibrateArguments
from splitc.cli.facts.calibrate import CalibrateFacts, ClearFacts
from splitc.cli.streams import say
from splitc.cli.terminal import Text, Title, lines, new_table, print_json, results
from splitc.common.formatting import format_seconds, format_seconds_range, plural
from splitc.profile.store import Store
from splitc.profile.targets.calibration import Calibration, calibrate, joined
from splitc.profile.targets.calibration_effect import Effect, Prediction, effects, read_runs, rescaled
from splitc.profile.targets.description import Target, load_target


def run(arguments: CalibrateArguments) -> None:
    """Show, extend or clear the calibration of a target."""
    described, given = load_target(arguments.target), (*arguments.profiles, *arguments.more)
    if arguments.clear and given:
        raise click.UsageError("--clear removes runs and --with adds them; give only one of them")
    store = Store(arguments.cache_dir)
    if arguments.clear:
        forgotten = store.forget_runs(described.name)
        if arguments.as_json:
            print_json(ClearFacts(described.name, forgotten))
        else:
            say(f"{described.name} {'is' if forgotten else 'was'} not calibrated{' any more' * forgotten}")
        return
    older, notes = store.runs(described.name)
    runs = joined(older, [run for path in given for run in read_runs(path, described)])
    calibration = calibrate(described, runs) if runs else None
    changes = effects(described, runs, calibration) if calibration is not None else []
    kept = store.keep_runs(described.name, runs) if given else None
    if arguments.as_json:
        print_json(_facts(described, calibration, changes, notes))
        return
    _show(described, calibration, changes, results())
    for note in (*notes, *(calibration.notes if calibration is not None else ())):
        results().print(Text(f"note: {note}", style="yellow"))
    if kept is not None:
        results().print(Text(f"kept {kept}"), soft_wrap=True)


def _facts(
    target: Target, calibration: Calibration | None, changes: list[Effect], notes: list[str]
) -> CalibrateFacts:
    return CalibrateFacts(
        target=target.name,
        runs=tuple(changes),
        rescaled=tuple(rescaled(target, calibration)) if calibration is not None else (),
        notes=(*notes, *(calibration.notes if calibration is not None else ())),
    )


def _show(target: Target, calibration: Calibration | None, changes: list[Effect], console: Console) -> None:
    if calibration is None:
        console.print(
            f"{target.name} is not calibrated; record a run with `splitc profile MODEL --target {target.name} ... -o FILE`, "
            f"then add it with `splitc calibrate {target.name} --with FILE`"
        )
        return
    console.print(f"{target.name} is calibrated with {plural(len(changes), 'run')}")
    numbers = ("threads", "measured", "predicted before", "predicted now")
    table = new_table("run", *numbers, right=numbers)
    for item in changes:
        table.add_row(
            Text(item.model),
            str(item.threads),
            format_seconds(item.measured_s),
            _prediction(item.before),
            _prediction(item.after),
        )
    console.print(table)
    words = [f"{item.term} {item.scale:.2f}x" for item in rescaled(target, calibration)]
    console.print(
        f"predicted times of each kind of work, relative to before: {', '.join(words) or 'unchanged'}"
    )


def _prediction(item: Prediction) -> Title:
    low, high = (bound * item.seconds for bound in item.interval)
    return lines(f"~{format_seconds(item.seconds)}", Text(format_seconds_range(low, high), "dim"))
