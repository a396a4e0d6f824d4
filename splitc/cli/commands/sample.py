"""`splitc sample`: models and pipelines to try splitc on."""

from pathlib import Path

import click
from click.core import ParameterSource

from splitc.cli.terminal import examples, stages
from splitc.cli.values import ANY_PATH
from splitc.common.formatting import format_bytes
from splitc.samples.catalogue import SAMPLES, write_sample
from splitc.samples.diffusion import PIPELINE
from splitc.samples.schedulers import MAX_TIMES, SCHEDULERS, Schedule
from splitc.samples.tiny_diffusion import NAME as TINY_DIFFUSION
from splitc.samples.tiny_diffusion import TIMES, write_tiny_diffusion

_STABLE_DIFFUSION = "stable_diffusion"
_STABLE_DIFFUSION_TIMES = 50
_NAMES = sorted([*SAMPLES, TINY_DIFFUSION, _STABLE_DIFFUSION])
# Which samples an option is for; all others take none.
_DIFFUSION = (TINY_DIFFUSION, _STABLE_DIFFUSION)
_OPTIONS = {
    "steps": _DIFFUSION,
    "scheduler": _DIFFUSION,
    "width": (_STABLE_DIFFUSION,),
    "size": (_STABLE_DIFFUSION,),
}


@click.command(
    "sample",
    epilog=examples(
        "splitc sample regnet_y_400mf -o regnet.onnx",
        "splitc sample tiny_diffusion -o td",
        "splitc sample stable_diffusion -o sd --width 0.5 --scheduler euler",
    ),
)
@click.argument("name", type=click.Choice(_NAMES), metavar="NAME")
@click.option(
    "-o", "--output", type=ANY_PATH, help="Where to write it.  [default: NAME.onnx; of a pipeline, NAME]"
)
@click.option(
    "--steps",
    type=click.IntRange(1, MAX_TIMES),
    metavar="N",
    help=f"Iterations.  [default: {TIMES} of {TINY_DIFFUSION}, {_STABLE_DIFFUSION_TIMES} of {_STABLE_DIFFUSION}]",
)
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    default="ddim",
    show_default=True,
    help="What takes the noise out.",
)
@click.option(
    "--width",
    type=float,
    default=0.5,
    show_default=True,
    help="Channels, of those published: a multiple of 0.125; 1 makes 4.1 GB.",
)
@click.option(
    "--size", type=int, default=512, show_default=True, help="Pixels of an image's side, a multiple of 64."
)
@click.pass_context
def sample_command(
    context: click.Context,
    name: str,
    output: Path | None,
    steps: int | None,
    scheduler: str,
    width: float,
    size: int,
) -> None:
    """Write a model to try splitc on, with seeded random weights.

    One file: regnet_y_400mf, regnet_y_4gf and tiny_cnn. A folder with a pipeline.toml, and the models that it runs:
    tiny_diffusion, and stable_diffusion, which needs `pip install 'splitc[diffusion]'`.
    """
    for option, names in _OPTIONS.items():
        if context.get_parameter_source(option) != ParameterSource.DEFAULT and name not in names:
            raise click.UsageError(f"--{option} is for {' and '.join(names)} only")
    if name in SAMPLES:
        _write_model(name, output or Path(f"{name}.onnx"))
        return
    folder, make_schedule = output or Path(name), SCHEDULERS[scheduler]
    if name == TINY_DIFFUSION:
        write_tiny_diffusion(folder, make_schedule, steps or TIMES)
    else:
        _write_stable_diffusion(folder, make_schedule(steps or _STABLE_DIFFUSION_TIMES), width, size)
    nbytes = sum(path.stat().st_size for path in folder.iterdir())
    click.echo(f"wrote {folder / PIPELINE} ({format_bytes(nbytes)} with its models)")


def _write_model(name: str, path: Path) -> None:
    if path.is_dir():
        raise click.UsageError(f"-o {path} is a folder, but {name} is one file; name a file")
    write_sample(name, path)
    click.echo(f"wrote {path} ({format_bytes(path.stat().st_size)})")


def _write_stable_diffusion(folder: Path, schedule: Schedule, width: float, size: int) -> None:
    with stages() as progress:
        progress("loading the networks' libraries")
        try:
            from splitc.samples.stable_diffusion import write_stable_diffusion  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] == "splitc":
                raise
            raise click.ClickException(
                f"`splitc sample {_STABLE_DIFFUSION}` needs {error.name}; "
                "install it with `pip install 'splitc[diffusion]'`"
            ) from error
        write_stable_diffusion(
            folder, schedule, width=width, size=size, progress=lambda file: progress(f"exporting {file}")
        )
