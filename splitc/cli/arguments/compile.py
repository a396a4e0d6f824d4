"""What `splitc compile` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from splitc.bundle.staging import ARTIFACTS
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
    sla_option,
    takes,
    tolerance_option,
)
from splitc.cli.values import ANY_PATH, BYTES, ENERGY, FILE, FINITE, FOLDER, MODEL_NAME, NETWORK, TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileArguments:
    """The arguments of `splitc compile`."""

    model: Path
    name: str | None
    device: str
    cloud: str
    direction: Literal["device-first", "cloud-first", "both"] | None
    output: Path | None
    networks: tuple[str, ...]
    sla: float | None
    dims: tuple[tuple[str, int], ...]
    samples: tuple[Path, ...]
    max_cuts: int
    regret: float
    pin_device: tuple[str, ...]
    pin_cloud: tuple[str, ...]
    private: tuple[str, ...]
    max_leak: float | None
    max_device_weights: int | None
    max_device_memory: int | None
    max_payload: int | None
    max_energy: float | None
    device_profiles: tuple[Path, ...]
    cloud_profiles: tuple[Path, ...]
    simplify: bool
    custom_ops: tuple[str, ...]
    verify: bool
    tolerance: float | None
    build_memory: int | None
    build_timeout: float
    cache_dir: Path
    no_cache: bool
    as_json: bool


@takes(
    CompileArguments,
    epilog=examples(
        "splitc compile model.onnx --device pixel7",
        "splitc compile model.onnx --device pixel7 --network lte --sla 100ms -o out/",
        "splitc compile model.onnx --device pixel7 --private image --max-device-weights 10MB",
        "splitc compile pipeline.toml --device pixel7",
    ),
)
@click.argument("model", type=FILE)
@click.option(
    "--name",
    type=MODEL_NAME,
    help="What apps and servers call the model.  [default: its file's name; for a pipeline, as it says]",
)
@click.option("--device", required=True, type=TARGET, help="The device: a target's name or .toml file.")
@click.option(
    "--cloud",
    default="local",
    show_default=True,
    type=TARGET,
    help="The machine in the cloud: a target's name or .toml file.",
)
@click.option(
    "--direction",
    type=click.Choice(["both", "cloud-first", "device-first"]),
    help="Which machine starts a request that is split.  [default: device-first; for a pipeline, both]",
)
@click.option("-o", "--output", type=FOLDER, help="Bundle folder.  [default: artifacts/<model>-<device>]")
@click.option(
    "--network", "networks", multiple=True, type=NETWORK, help="Build for this network only; repeatable."
)
@sla_option
@dim_option
@samples_option
@click.option(
    "--max-cuts", default=8, show_default=True, type=click.IntRange(2), help="Maximum number of cuts to ship."
)
@click.option(
    "--regret",
    default=0.01,
    show_default=True,
    type=FINITE,
    help="How much slower the best shipped cut may be than the best of all cuts (0.01 is 1 %).",
)
@click.option(
    "--pin-device",
    multiple=True,
    metavar="NODE",
    help="Keep this node, or the node that makes this tensor, on the device; repeatable.",
)
@click.option(
    "--pin-cloud",
    multiple=True,
    metavar="NODE",
    help="Keep this node, or the node that makes this tensor, in the cloud; repeatable.",
)
@click.option(
    "--private",
    multiple=True,
    metavar="TENSOR",
    help="Neither this tensor, nor any from which it can be recovered, may leave the device; repeatable.",
)
@click.option(
    "--max-leak",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="How much of a private tensor a linear decoder may rebuild from what crosses, 0 to 1; needs --samples.",
)
@click.option("--max-device-weights", type=BYTES, help="Maximum size of the weights on the device (10MB).")
@click.option("--max-device-memory", type=BYTES, help="Maximum memory in use on the device (50MB).")
@click.option("--max-payload", type=BYTES, help="Maximum payload of a request (200kB).")
@click.option("--max-energy", type=ENERGY, help="Maximum energy that the device uses for a request (0.2J).")
@click.option(
    "--device-profile",
    "device_profiles",
    multiple=True,
    type=ANY_PATH,
    help="A profile recorded on the device, used instead of a cached one or a prediction; for a pipeline, repeatable, "
    "or a folder of profiles.",
)
@click.option(
    "--cloud-profile",
    "cloud_profiles",
    multiple=True,
    type=ANY_PATH,
    help="The same, recorded on the cloud machine.",
)
@simplify_option
@custom_ops_option
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Run every cut and compare it with the whole model.  [default: verify]",
)
@tolerance_option
@build_memory_option
@build_timeout_option
@cache_option
@click.option(
    "--no-cache", is_flag=True, help="Ignore cached files, measure everything again, and cache nothing."
)
@json_option
def compile_command(arguments: CompileArguments) -> None:
    """Split MODEL between a device and the cloud, and write a bundle.

    MODEL is an ONNX file, or a .toml file that describes a pipeline of models. A bundle is a folder with heads, tails,
    their weights, a manifest and a report.
    """
    output = arguments.output if arguments.output is not None else ARTIFACTS / arguments.model.stem
    do(
        "compile",
        arguments,
        WorkLimits(arguments.model, arguments.build_timeout, arguments.build_memory, writes=output),
    )
