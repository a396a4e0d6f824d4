"""`splitc compile`: build a bundle, and show what is in it."""

import click

from splitc.cli.arguments.compile import CompileArguments
from splitc.cli.facts.bundle import compile_facts
from splitc.cli.show_bundle import show_compiled
from splitc.cli.terminal import print_json, results, stages
from splitc.common.cache import Cache
from splitc.common.custom_ops import find_custom_ops
from splitc.common.kinds import Direction
from splitc.common.ort import use_custom_ops
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.compile.limits import LimitOptions
from splitc.compile.privacy.leak import MIN_SAMPLES
from splitc.model.analysis import AnalysisOptions

_DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "device-first": ("device-first",),
    "cloud-first": ("cloud-first",),
    "both": ("device-first", "cloud-first"),
}


def run(arguments: CompileArguments) -> None:
    """Compile a model or a pipeline, and show what was built."""
    _check_max_leak(arguments)
    use_custom_ops(find_custom_ops(arguments.custom_ops))
    cache = Cache(None if arguments.no_cache else arguments.cache_dir)
    with stages() as progress:
        compiled = compile_bundle(arguments.model, arguments.output, _options(arguments), cache, progress)
    if arguments.as_json:
        print_json(compile_facts(compiled))
    else:
        show_compiled(compiled, results())


def _check_max_leak(arguments: CompileArguments) -> None:
    if arguments.max_leak is None:
        return
    if not arguments.private:
        raise click.UsageError("--max-leak limits what is told of a private tensor; name one with --private")
    if len(arguments.samples) < MIN_SAMPLES:
        raise click.UsageError(
            f"--max-leak needs at least {MIN_SAMPLES} samples to measure what is told of a private tensor; "
            "give them with --samples"
        )


def _options(arguments: CompileArguments) -> CompileOptions:
    return CompileOptions(
        analysis=AnalysisOptions(
            dict(arguments.dims), arguments.samples, arguments.simplify, arguments.build_memory
        ),
        device=arguments.device,
        name=arguments.name,
        cloud=arguments.cloud,
        directions=_DIRECTIONS[arguments.direction] if arguments.direction is not None else (),
        networks=arguments.networks,
        sla_s=arguments.sla,
        max_cuts=arguments.max_cuts,
        regret=arguments.regret,
        limits=LimitOptions(
            pin_device=arguments.pin_device,
            pin_cloud=arguments.pin_cloud,
            private=arguments.private,
            max_leak=arguments.max_leak,
            max_device_weight_bytes=arguments.max_device_weights,
            max_device_peak_bytes=arguments.max_device_memory,
            max_payload_bytes=arguments.max_payload,
            max_energy_j=arguments.max_energy,
        ),
        device_profiles=arguments.device_profiles,
        cloud_profiles=arguments.cloud_profiles,
        verify=arguments.verify,
        tolerance=arguments.tolerance,
    )
