"""What `splitc sample` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click

from splitc.cli.options import do, examples, json_option, takes
from splitc.cli.values import ANY_PATH
from splitc.samples.names import (
    MAX_TIMES,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_SIZE,
    STABLE_DIFFUSION_TIMES,
    STABLE_DIFFUSION_WIDTH,
    TINY_DIFFUSION,
    TINY_DIFFUSION_TIMES,
    SampleName,
    SchedulerName,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleArguments:
    """The arguments of `splitc sample`."""

    name: SampleName
    output: Path | None
    steps: int | None
    scheduler: SchedulerName | None
    width: float | None
    size: int | None
    force: bool
    as_json: bool


@takes(
    SampleArguments,
    epilog=examples(
        "splitc sample regnet_y_400mf -o regnet.onnx",
        "splitc sample tiny_diffusion -o td",
        "splitc sample stable_diffusion -o sd --width 0.5 --scheduler euler",
    ),
)
@click.argument("name", type=click.Choice(get_args(SampleName)), metavar="NAME")
@click.option(
    "-o",
    "--output",
    type=ANY_PATH,
    help="File or folder to write.  [default: NAME.onnx; of a pipeline, NAME]",
)
@click.option(
    "--steps",
    type=click.IntRange(1, MAX_TIMES),
    metavar="N",
    help=f"Iterations.  [default: {TINY_DIFFUSION_TIMES} of {TINY_DIFFUSION}, "
    f"{STABLE_DIFFUSION_TIMES} of {STABLE_DIFFUSION}]",
)
@click.option(
    "--scheduler",
    type=click.Choice(get_args(SchedulerName)),
    help="The scheduler that removes the noise.  [default: ddim]",
)
@click.option(
    "--width",
    type=float,
    help="Channels relative to the published model, a multiple of 0.125; 1 writes 4.1 GB.  "
    f"[default: {STABLE_DIFFUSION_WIDTH}]",
)
@click.option(
    "--size",
    type=int,
    help=f"Width and height of an image in pixels, a multiple of 64.  [default: {STABLE_DIFFUSION_SIZE}]",
)
@click.option("--force", is_flag=True, help="Replace a file that exists; only for single files.")
@json_option
def sample_command(arguments: SampleArguments) -> None:
    """Write a model to try splitc on, with seeded random weights.

    A single file: regnet_y_400mf, regnet_y_4gf and tiny_cnn. A folder with a pipeline.toml and the models that it runs:
    tiny_diffusion, and stable_diffusion, which needs `pip install 'splitc[diffusion]'`.
    """
    do("sample", arguments)
