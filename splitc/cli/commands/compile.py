"""`splitc compile`."""

from pathlib import Path
from typing import Any

import click

from splitc.cli.show_bundle import compiled_facts, show_compiled
from splitc.cli.terminal import examples, print_json, results, stages
from splitc.cli.values import ANY_PATH, BYTES, DIM, DURATION, ENERGY, FILE, FOLDER, NETWORK, TARGET
from splitc.common.cache import Cache, default_cache_folder
from splitc.common.kinds import Direction
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.compile.limits import LimitOptions
from splitc.model.analysis import AnalysisOptions

_DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "device-first": ("device-first",),
    "cloud-first": ("cloud-first",),
    "both": ("device-first", "cloud-first"),
}


@click.command(
    "compile",
    epilog=examples(
        "splitc compile model.onnx --device pixel7",
        "splitc compile model.onnx --device pixel7 --network lte --sla 100ms -o out/",
        "splitc compile model.onnx --device pixel7 --private image --max-device-weights 10MB",
        "splitc compile pipeline.toml --device pixel7",
    ),
)
@click.argument("model", type=FILE)
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
    type=click.Choice(sorted(_DIRECTIONS)),
    help="Which side begins where both work: of a cloud-first cut, the device runs the tail.  "
    "[default: device-first; of a pipeline, both]",
)
@click.option("-o", "--output", type=FOLDER, help="Bundle folder.  [default: artifacts/<model>-<device>]")
@click.option(
    "--network", "networks", multiple=True, type=NETWORK, help="Build for this network only; repeatable."
)
@click.option(
    "--sla", type=DURATION, help="Target latency: prefer the least cloud work that meets it (100ms)."
)
@click.option(
    "--dim", "dims", multiple=True, type=DIM, help="Size of a symbolic dimension, for sizing; repeatable."
)
@click.option(
    "--samples", multiple=True, type=FILE, help="Inputs (.npz) to verify with; repeatable.  [default: random]"
)
@click.option("--max-cuts", default=8, show_default=True, type=click.IntRange(2), help="Most cuts to ship.")
@click.option(
    "--regret",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0),
    help="How much slower than the best cut the best shipped one may be.",
)
@click.option(
    "--pin-device", multiple=True, metavar="NODE", help="Keep this node (or a tensor's maker) on the device."
)
@click.option(
    "--pin-cloud", multiple=True, metavar="NODE", help="Keep this node (or a tensor's maker) in the cloud."
)
@click.option(
    "--private", multiple=True, metavar="TENSOR", help="This tensor must not leave the device; repeatable."
)
@click.option("--max-device-weights", type=BYTES, help="Most weights on the device (10MB).")
@click.option("--max-device-memory", type=BYTES, help="Most memory that the device may need at once (50MB).")
@click.option("--max-payload", type=BYTES, help="Most bytes to send for one request (200kB).")
@click.option("--max-energy", type=ENERGY, help="Most energy of the device for one request (0.2J).")
@click.option(
    "--device-profile",
    "device_profiles",
    multiple=True,
    type=ANY_PATH,
    help="A profile recorded on the device, in place of a kept one or a prediction; of a pipeline, repeatable, "
    "or a folder of them.",
)
@click.option(
    "--cloud-profile",
    "cloud_profiles",
    multiple=True,
    type=ANY_PATH,
    help="The same, recorded on the cloud machine.",
)
@click.option(
    "--simplify/--no-simplify", default=True, help="Clean the graph with onnxsim first.  [default: on]"
)
@click.option(
    "--verify/--no-verify", default=True, help="Run every cut against the whole model.  [default: on]"
)
@click.option(
    "--build-memory",
    type=BYTES,
    help="Most memory that running the model here may take (8GB).  [default: what is free]",
)
@click.option("--cache-dir", type=FOLDER, help="Where profiles are kept.  [default: the user's cache folder]")
@click.option("--no-cache", is_flag=True, help="Use nothing that was kept, measure anew, and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compile_command(model: Path, output: Path | None, as_json: bool, **given: Any) -> None:
    """Split MODEL for a device: write heads, tails, weights and a manifest.

    MODEL is an ONNX file, or a .toml that describes a pipeline of them.
    """
    cache = Cache(None if given["no_cache"] else given["cache_dir"] or default_cache_folder())
    with stages() as progress:
        compiled = compile_bundle(model, output, _options(given), cache, progress)
    if as_json:
        print_json(compiled_facts(compiled))
    else:
        show_compiled(compiled, results())


def _options(given: dict[str, Any]) -> CompileOptions:
    return CompileOptions(
        analysis=AnalysisOptions(
            dict(given["dims"]), given["samples"], given["simplify"], given["build_memory"]
        ),
        device=given["device"],
        cloud=given["cloud"],
        directions=_DIRECTIONS[given["direction"]] if given["direction"] else (),
        networks=given["networks"],
        sla_s=given["sla"],
        max_cuts=given["max_cuts"],
        regret=given["regret"],
        limits=LimitOptions(
            pin_device=given["pin_device"],
            pin_cloud=given["pin_cloud"],
            private=given["private"],
            max_device_weight_bytes=given["max_device_weights"],
            max_device_peak_bytes=given["max_device_memory"],
            max_payload_bytes=given["max_payload"],
            max_energy_j=given["max_energy"],
        ),
        device_profiles=given["device_profiles"],
        cloud_profiles=given["cloud_profiles"],
        verify=given["verify"],
    )
