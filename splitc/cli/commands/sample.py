"""`splitc sample`: write models and pipelines to try splitc on."""

from pathlib import Path

import click

from splitc.cli.arguments.sample import SampleArguments
from splitc.cli.extras import needs_extra
from splitc.cli.facts.written import WrittenFacts
from splitc.cli.streams import say
from splitc.cli.terminal import print_json, stages
from splitc.common.formatting import format_bytes
from splitc.samples.catalogue import SAMPLES, write_sample
from splitc.samples.diffusion import PIPELINE
from splitc.samples.names import (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_SIZE,
    STABLE_DIFFUSION_TIMES,
    STABLE_DIFFUSION_WIDTH,
    TINY_DIFFUSION,
    TINY_DIFFUSION_TIMES,
)
from splitc.samples.schedulers import SCHEDULERS, Schedule
from splitc.samples.tiny_diffusion import write_tiny_diffusion


def run(arguments: SampleArguments) -> None:
    """Write a sample."""
    _check_options(arguments)
    name = arguments.name
    if name in SAMPLES:
        path = arguments.output or Path(f"{name}.onnx")
        _write_model(name, path, replaces=arguments.force)
        _tell(arguments, path, path.stat().st_size, "")
        return
    folder, make_schedule = arguments.output or Path(name), SCHEDULERS[arguments.scheduler or "ddim"]
    if name == TINY_DIFFUSION:
        write_tiny_diffusion(folder, make_schedule, arguments.steps or TINY_DIFFUSION_TIMES)
    else:
        schedule = make_schedule(arguments.steps or STABLE_DIFFUSION_TIMES)
        width = arguments.width if arguments.width is not None else STABLE_DIFFUSION_WIDTH
        size = arguments.size if arguments.size is not None else STABLE_DIFFUSION_SIZE
        _write_stable_diffusion(folder, schedule, width, size)
    nbytes = sum(path.stat().st_size for path in folder.iterdir())
    _tell(arguments, folder / PIPELINE, nbytes, " with its models")


def _tell(arguments: SampleArguments, path: Path, nbytes: int, with_what: str) -> None:
    if arguments.as_json:
        print_json(WrittenFacts(str(path), nbytes))
    else:
        say(f"wrote {path} ({format_bytes(nbytes)}{with_what})")


def _check_options(arguments: SampleArguments) -> None:
    both, only = (TINY_DIFFUSION, STABLE_DIFFUSION), (STABLE_DIFFUSION,)
    for option, value, names in (
        ("--steps", arguments.steps, both),
        ("--scheduler", arguments.scheduler, both),
        ("--width", arguments.width, only),
        ("--size", arguments.size, only),
    ):
        if value is not None and arguments.name not in names:
            raise click.UsageError(f"{option} is only for {' and '.join(names)}")
    if arguments.force and arguments.name not in SAMPLES:
        raise click.UsageError(
            f"--force is only for single files; remove the folder of {arguments.name} first"
        )


def _write_model(name: str, path: Path, *, replaces: bool) -> None:
    if path.is_dir():
        raise click.UsageError(f"-o {path} is a folder, but {name} is a single file; give the name of a file")
    write_sample(name, path, replaces=replaces)


def _write_stable_diffusion(folder: Path, schedule: Schedule, width: float, size: int) -> None:
    with stages() as progress:
        progress("loading PyTorch and diffusers")
        with needs_extra("diffusion", f"splitc sample {STABLE_DIFFUSION}"):
            from splitc.samples.stable_diffusion import write_stable_diffusion  # noqa: PLC0415 - an extra
        write_stable_diffusion(
            folder, schedule, width=width, size=size, progress=lambda file: progress(f"exporting {file}")
        )
