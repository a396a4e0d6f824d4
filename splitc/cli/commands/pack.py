"""`splitc pack`: what one side needs of a bundle, and nothing else."""

from pathlib import Path
from typing import Literal

import click

from splitc.bundle.pack import pack, pack_triton
from splitc.cli.terminal import examples, stages
from splitc.cli.values import ANY_PATH, FOLDER
from splitc.common.formatting import format_bytes


@click.command(
    "pack",
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
    help="Whose part: the app's heads, or the tails of the cloud.",
)
@click.option(
    "--format",
    "form",
    default="bundle",
    show_default=True,
    type=click.Choice(["bundle", "triton"]),
    help="A bundle that splitc reads, or a model repository for Triton and KServe.",
)
@click.option(
    "-o", "--output", required=True, type=ANY_PATH, help="A .zip file or a folder; a folder for triton."
)
def pack_command(bundle: Path, side: Literal["device", "cloud"], form: str, output: Path) -> None:
    """Pack what one side needs of BUNDLE: its models, the weights that they use, and the manifest."""
    if form == "triton" and side == "device":
        raise click.UsageError("--format triton is for --side cloud: Triton serves tails")
    with stages() as progress:
        progress(f"Packing {bundle}")
        if form == "triton":
            pack_triton(bundle, output)
        else:
            pack(bundle, side, output)
    click.echo(f"wrote {output} ({format_bytes(_size_bytes(output))})")


def _size_bytes(path: Path) -> int:
    """Bytes on disk: files that share their content by hard links count once."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(
        {(stat.st_dev, stat.st_ino): stat.st_size for stat in (item.stat() for item in files)}.values()
    )
