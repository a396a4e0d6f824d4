"""`splitc pack`: write only what one side needs of a bundle."""

from pathlib import Path

import click

from splitc.bundle.pack import pack, pack_triton
from splitc.cli.arguments.pack import PackArguments
from splitc.cli.facts.written import WrittenFacts
from splitc.cli.terminal import print_json, stages
from splitc.common.formatting import format_bytes


def run(told: PackArguments) -> None:
    """Pack one side of a bundle."""
    if told.form == "triton" and told.side == "device":
        raise click.UsageError("--format triton is for --side cloud: Triton serves tails")
    with stages() as progress:
        progress(f"Packing {told.bundle}")
        if told.form == "triton":
            pack_triton(told.bundle, told.output)
        else:
            pack(told.bundle, told.side, told.output)
    nbytes = _size_bytes(told.output)
    if told.as_json:
        print_json(WrittenFacts(str(told.output), nbytes))
    else:
        click.echo(f"wrote {told.output} ({format_bytes(nbytes)})")


def _size_bytes(path: Path) -> int:
    """Bytes on disk; hard links to the same file count once."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(
        {(stat.st_dev, stat.st_ino): stat.st_size for stat in (item.stat() for item in files)}.values()
    )
