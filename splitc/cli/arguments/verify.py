"""What `splitc verify` takes."""

from dataclasses import dataclass
from pathlib import Path

import click

from splitc.cli.apart import WorkLimits
from splitc.cli.options import (
    build_memory_option,
    build_timeout_option,
    custom_ops_option,
    do,
    examples,
    json_option,
    samples_option,
    takes,
    tolerance_option,
)
from splitc.cli.values import ANY_PATH, FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """The arguments of `splitc verify`."""

    bundle: Path
    model: Path | None
    samples: tuple[Path, ...]
    custom_ops: tuple[str, ...]
    build_memory: int | None
    build_timeout: float
    tolerance: float | None
    as_json: bool


@takes(
    VerifyArguments,
    epilog=examples(
        "splitc verify artifacts/model-pixel7 --model model.onnx",
        "splitc verify artifacts/pipeline-pixel7 --model pipeline.toml",
    ),
)
@click.argument("bundle", type=ANY_PATH)
@click.option(
    "--model",
    type=FILE,
    help="Compare with this model or pipeline (.toml).  [default: the bundle's all-head or all-tail cut]",
)
@samples_option
@custom_ops_option
@build_memory_option
@build_timeout_option
@tolerance_option
@json_option
def verify_command(arguments: VerifyArguments) -> None:
    """Check a bundle's files, and every cut against the whole model."""
    do("verify", arguments, WorkLimits(arguments.bundle, arguments.build_timeout, arguments.build_memory))
