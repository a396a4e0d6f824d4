"""What `splitc inspect` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.apart import WorkLimits
from splitc.cli.options import (
    build_memory_option,
    build_timeout_option,
    cache_option,
    custom_ops_option,
    dim_option,
    do,
    examples,
    json_option,
    samples_option,
    simplify_option,
    takes,
)
from splitc.cli.values import ANY_PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectArguments:
    """The arguments of `splitc inspect`."""

    path: Path
    dims: tuple[tuple[str, int], ...]
    samples: tuple[Path, ...]
    simplify: bool
    custom_ops: tuple[str, ...]
    build_memory: int | None
    build_timeout: float
    cache_dir: Path
    tensors: bool
    as_json: bool


@takes(
    InspectArguments,
    epilog=examples(
        "splitc inspect model.onnx --tensors",
        "splitc inspect pipeline.toml",
        "splitc inspect artifacts/model-pixel7",
    ),
)
@click.argument("path", type=ANY_PATH, metavar="MODEL|BUNDLE")
@dim_option
@samples_option
@simplify_option
@custom_ops_option
@build_memory_option
@build_timeout_option
@cache_option
@click.option(
    "--tensors",
    is_flag=True,
    help="List every tensor that can cross, and those that cannot; for a pipeline, every place to cut.",
)
@json_option
def inspect_command(arguments: InspectArguments) -> None:
    """Show where a model can be cut, or what a bundle contains.

    MODEL is an ONNX file, or a .toml file that describes a pipeline of models.
    """
    do("inspect", arguments, WorkLimits(arguments.path, arguments.build_timeout, arguments.build_memory))
