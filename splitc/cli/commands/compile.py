"""`splitc compile`: build a bundle, and show what is in it."""

from splitc.cli.arguments.compile import CompileArguments
from splitc.cli.facts.bundle import compile_facts
from splitc.cli.show_bundle import show_compiled
from splitc.cli.terminal import print_json, results, stages
from splitc.common.cache import Cache
from splitc.common.kinds import Direction
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.compile.limits import LimitOptions
from splitc.model.analysis import AnalysisOptions

_DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "device-first": ("device-first",),
    "cloud-first": ("cloud-first",),
    "both": ("device-first", "cloud-first"),
}


def run(told: CompileArguments) -> None:
    """Compile a model or a pipeline, and show what was built."""
    cache = Cache(None if told.no_cache else told.cache_dir)
    with stages() as progress:
        compiled = compile_bundle(told.model, told.output, _options(told), cache, progress)
    if told.as_json:
        print_json(compile_facts(compiled))
    else:
        show_compiled(compiled, results())


def _options(told: CompileArguments) -> CompileOptions:
    return CompileOptions(
        analysis=AnalysisOptions(dict(told.dims), told.samples, told.simplify, told.build_memory),
        device=told.device,
        cloud=told.cloud,
        directions=_DIRECTIONS[told.direction] if told.direction is not None else (),
        networks=told.networks,
        sla_s=told.sla,
        max_cuts=told.max_cuts,
        regret=told.regret,
        limits=LimitOptions(
            pin_device=told.pin_device,
            pin_cloud=told.pin_cloud,
            private=told.private,
            max_device_weight_bytes=told.max_device_weights,
            max_device_peak_bytes=told.max_device_memory,
            max_payload_bytes=told.max_payload,
            max_energy_j=told.max_energy,
        ),
        device_profiles=told.device_profiles,
        cloud_profiles=told.cloud_profiles,
        verify=told.verify,
    )
