"""`splitc verify`: check a bundle."""

from pathlib import Path

import click
from rich.text import Text

from splitc.cli.options import _json, _samples
from splitc.cli.terminal import examples, print_json, results, stages
from splitc.cli.values import ANY_PATH, FILE
from splitc.common.records import encode
from splitc.compile.check import check_bundle, open_to_check


@click.command(
    epilog=examples(
        "splitc verify artifacts/model-pixel7 --model model.onnx",
        "splitc verify artifacts/pipeline-pixel7 --model pipeline.toml",
    )
)
@click.argument("bundle", type=ANY_PATH)
@click.option(
    "--model",
    type=FILE,
    help="Compare with this model, or pipeline (.toml).  [default: the bundle's all-head or all-tail cut]",
)
@_samples
@_json
def verify(bundle: Path, model: Path | None, samples: tuple[Path, ...], as_json: bool) -> None:
    """Check a bundle's files, run every cut, and compare with the whole model."""
    with stages() as progress:
        progress("Checking files")
        opened = open_to_check(bundle)
        checked = check_bundle(opened, model, samples, progress)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "against": checked.against,
                "cuts": {key: encode(value) for key, value in checked.cuts},
                "notes": list(checked.notes),
            }
        )
        return
    for key, found in checked.cuts:
        click.echo(
            f"{key}: error {found.max_rel:.1e} of the output's scale, allowed {found.tolerance:.0e}, "
            f"{found.seeds} input{'s' if found.seeds != 1 else ''}"
        )
    for note in checked.notes:
        results().print(Text(f"note: {note}", style="yellow"))
    click.echo(f"{len(checked.cuts)} cuts agree with {checked.against}")
