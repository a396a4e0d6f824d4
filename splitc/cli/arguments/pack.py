"""What `splitc pack` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from splitc.cli.apart import WorkLimits
from splitc.cli.options import do, examples, json_option, takes
from splitc.cli.values import ANY_PATH, FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class PackArguments:
    """The arguments of `splitc pack`."""

    bundle: Path
    side: Literal["device", "cloud"]
    form: Literal["bundle", "triton"]
    output: Path
    as_json: bool


@takes(
    PackArguments,
    epilog=examples(
        "splitc pack artifacts/regnet-pixel7 --side device -o app.zip",
        "splitc pack artifacts/regnet-pixel7 --side cloud -o cloud.zip",
        "splitc pack artifacts/regnet-pixel7 --side cloud --format triton -o model_repository/",
    ),
)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--side",
    required=True,
    type=click.Choice(["device", "cloud"]),
    help="Which side to pack: the heads for the app, or the tails for the cloud.",
)
@click.option(
    "--format",
    "form",
    default="bundle",
    show_default=True,
    type=click.Choice(["bundle", "triton"]),
    help="A bundle for splitc, or a model repository for Triton and KServe.",
)
@click.option(
    "-o", "--output", required=True, type=ANY_PATH, help="A .zip file or a folder; for triton, a folder."
)
@json_option
def pack_command(arguments: PackArguments) -> None:
    """Pack what the device or the cloud needs of BUNDLE.

    That is the models of one side, the weights they use, and the manifest.
    """
    do("pack", arguments, WorkLimits(arguments.bundle))
