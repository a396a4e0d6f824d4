"""`splitc pack`: write only what one side needs of a bundle."""

from pathlib import Path

import click

from splitc.bundle.pack import pack, pack_triton
from splitc.cli.arguments.pack import PackArguments
from splitc.cli.facts.written import WrittenFacts
from splitc.cli.streams import say
from splitc.cli.terminal import print_json, stages
from splitc.common.formatting import format_bytes


def run(arguments: PackArguments) -> None:
    """Pack one side of a bundle."""
    if arguments.form == "triton" and arguments.side == "device":
        raise click.UsageError("--format triton is for --side cloud: Triton serves tails")
    with stages() as progress:
        progress(f"Packing {arguments.bundle}")
        if arguments.form == "triton":
            pack_triton(arguments.bundle, arguments.output)
        else:
            pack(arguments.bundle, arguments.side, arguments.output)
    nbytes = _size_bytes(arguments.output)
    if arguments.as_json:
        print_json(WrittenFacts(str(arguments.output), nbytes))
    else:
        say(f"wrote {arguments.output} ({format_bytes(nbytes)})")


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(item.stat().st_size for item in files)
