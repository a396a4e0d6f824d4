"""What `splitc run` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from splitc.cli.apart import WorkLimits
from splitc.cli.options import custom_ops_option, do, examples, json_option, sla_option, takes
from splitc.cli.values import ANY_PATH, DURATION, FILE, NETWORK


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArguments:
    """The arguments of `splitc run`."""

    bundle: Path
    server: str | None
    inputs: tuple[tuple[str, Path], ...]
    output: Path | None
    repeat: int
    sla: float | None
    deadline: float | None
    cut: str
    wait: float | None
    network: str | None
    threads: int | None
    token_file: Path | None
    ca_file: Path | None
    custom_ops: tuple[str, ...]
    as_json: bool


class _NamedFile(click.ParamType[tuple[str, Path]]):
    """NAME=FILE of an input."""

    name = "NAME=FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Parse into the input's name and the file."""
        name, _, path = str(value).rpartition("=")
        if not name or not path:
            self.fail(f"{value!r} is not NAME=FILE, such as image=photo.npy", param, ctx)
        return name, Path(path)


@takes(
    RunArguments,
    extra="serve",
    epilog=examples(
        "splitc run artifacts/regnet-pixel7 --server http://cloud:8000 --input image=photo.npy",
        "splitc run app.zip --server http://cloud:8000 --repeat 100 --sla 100ms",
        "splitc run artifacts/regnet-pixel7 --cut c1 --server http://cloud:8000",
    ),
)
@click.argument("bundle", type=ANY_PATH)
@click.option(
    "--server", metavar="URL", help="The server of the tails.  [default: none; run on the device alone]"
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=_NamedFile(),
    help="Value of an input (.npy); repeatable.  [default: random]",
)
@click.option("-o", "--output", type=FILE, help="Write the outputs to this file (.npz).")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1), help="Number of requests.")
@sla_option
@click.option("--deadline", type=DURATION, help="Give up a request after this time (2s).")
@click.option(
    "--cut", default="auto", show_default=True, help="The cut to use; with auto, the scheduler chooses."
)
@click.option("--wait", type=DURATION, help="Wait at most this long until the server is ready (60s).")
@click.option(
    "--network", type=NETWORK, help="The network to expect until the first requests have measured it."
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of a head.  [default: the target's, if this machine has as many cores]",
)
@click.option("--token-file", type=FILE, help="File with the token that the server requires.")
@click.option("--ca-file", type=FILE, help="Certificates to trust (.pem).  [default: the system's]")
@custom_ops_option
@json_option
def run_command(arguments: RunArguments) -> None:
    """Run BUNDLE as an app does, with or without a server.

    A BUNDLE is a folder or a packed .zip.
    """
    do("run", arguments, WorkLimits(arguments.bundle))
