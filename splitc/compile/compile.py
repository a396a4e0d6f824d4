"""From a model or a pipeline to a verified bundle: the stages in order, one function each."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from splitc.bundle.folder import file_entry, write_manifest
from splitc.bundle.manifest import Manifest
from splitc.bundle.staging import ARTIFACTS, new_folder
from splitc.common.cache import Cache
from splitc.common.errors import TargetError
from splitc.common.kinds import Direction
from splitc.compile import report
from splitc.compile.describe import describe, input_conversions
from splitc.compile.limits import LimitOptions, read_limits
from splitc.compile.pipeline.analyse import analyse_pipeline
from splitc.compile.pipeline.load import files_of, load_pipeline
from splitc.compile.pipeline.stages import Pipeline
from splitc.compile.pipeline.times import pipeline_times
from splitc.compile.pipeline.unroll import unroll
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.privacy.measure import leak_meter, leak_notes
from splitc.compile.privacy.recoverable import recoverable_note
from splitc.compile.ship import Problem, Trials, choose, ship
from splitc.compile.trial import known_whole
from splitc.compile.verdict import Verdict, judge
from splitc.compile.verification.verify import Reference
from splitc.model.analysis import AnalysisOptions, Progress
from splitc.profile.document import UnitTimes
from splitc.profile.targets.description import Network, Target, load_network, load_target
from splitc.profile.unit_times import caveats
from splitc.solve.costs import Box, Costs, Energy

STANDARD_NETWORKS = ("wifi", "5g", "lte", "3g")
REPORT = "report.html"
# Ordinary app runs were measured 3 to 9 times slower than figures derived from peak rates.
_PREDICTED_DEVICE_SLOWDOWN = (0.5, 10.0)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What `splitc compile` can be told.

    Attributes:
        name: what to call the model; by default, as its file is called.
        networks: names or .toml files; empty for the default box, and the standard four in the verdict.
        directions: what may come first where both sides work, the device or the cloud; empty for the device where
            there is one model, both where there are several.
        device_profiles, cloud_profiles: recorded profiles, used instead of measuring or predicting: one of a
            model, or files and folders with those of a pipeline's models.
        tolerance: how far floats of a right cut may be off, relative to the largest value of their output; None for as
            much as the types explain.
    """

    analysis: AnalysisOptions
    device: str
    cloud: str = "local"
    name: str | None = None
    directions: tuple[Direction, ...] = ()
    networks: tuple[str, ...] = ()
    sla_s: float | None = None
    max_cuts: int = 8
    regret: float = 0.01
    limits: LimitOptions = field(default_factory=LimitOptions)
    device_profiles: tuple[Path, ...] = ()
    cloud_profiles: tuple[Path, ...] = ()
    verify: bool = True
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle on disk, and the best cut on each network."""

    folder: Path
    manifest: Manifest
    verdicts: tuple[Verdict, ...]


def compile_bundle(
    path: Path, out: Path | None, options: CompileOptions, cache: Cache, progress: Progress
) -> Compiled:
    """Compile the model or pipeline at *path* into the folder *out* (default artifacts/<name>-<device>).

    The folder appears whole or not at all; what *path* names is only read.

    Raises:
        SplitcError: the compile failed, for the reason in its message; nothing is left behind.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    device_target, cloud_target = load_target(options.device), load_target(options.cloud)
    networks = tuple(load_network(name) for name in options.networks or STANDARD_NETWORKS)
    energy = energy_for(device_target, networks, options)
    progress("Loading")
    pipeline = load_pipeline(path, options.name)
    directions = options.directions or _directions(pipeline)
    folder = out or ARTIFACTS / f"{pipeline.name}-{device_target.name}"
    inputs = (*files_of(path, pipeline), *_other_files(options))
    with new_folder(folder, inputs) as (staging, scratch):
        found = analyse_pipeline(pipeline, options.analysis, scratch, cache, progress)
        unrolled = unroll(found)
        limits = read_limits(options.limits, found, unrolled)
        progress(f"Timing the cloud side, {cloud_target.name}")
        recorded, option = options.cloud_profiles, "--cloud-profile"
        cloud = pipeline_times(cloud_target, recorded, option, found, unrolled, cache)
        progress(f"Timing the device side, {device_target.name}")
        recorded, option = options.device_profiles, "--device-profile"
        device = pipeline_times(device_target, recorded, option, found, unrolled, cache)
        progress("Solving")
        box = box_for(networks if options.networks else (), device.whole)
        costs = costs_of(unrolled, device.whole, cloud.whole, energy)
        problem = Problem(costs, box, limits, directions, options.max_cuts, options.regret)
        cut_set = choose(problem, unrolled)
        against: Reference | str = "cuts were not verified: --no-verify"
        if options.verify:
            against = known_whole(found, device.whole, cloud.whole, options.tolerance, progress)
        private, sampled = options.limits.private, bool(options.analysis.samples)
        meter = leak_meter(found, unrolled, private, progress, sampled=sampled)
        trials = Trials(found, unrolled, against, meter, options.limits.max_leak, device, cloud, cache)
        shipped = ship(problem, cut_set, trials, staging, progress)
        progress("Writing the report")
        notes = (
            *caveats((device_target, device.whole), (cloud_target, cloud.whole)),
            *found.notes,
            *recoverable_note(unrolled, private, limits.recoverable),
            *leak_notes(shipped.cuts, runs=bool(found.feeds)),
            *input_conversions(found, unrolled, shipped.cut_set.cuts),
            *shipped.notes,
        )
        manifest = describe(
            found, device.whole, cloud.whole, box, shipped.cut_set, shipped.cuts, shipped.emitted, notes
        )
        verdicts = judge(manifest, networks, options.sla_s)
        (staging / REPORT).write_text(report.render(manifest, verdicts, networks), encoding="utf-8")
        manifest = replace(manifest, files=(*manifest.files, file_entry(staging, REPORT)))
        write_manifest(staging, manifest)
    return Compiled(folder, manifest, verdicts)


def _other_files(options: CompileOptions) -> tuple[Path, ...]:
    """Return the files that are read besides the pipeline."""
    described = (options.device, options.cloud, *options.networks)
    return (
        *options.analysis.samples,
        *options.device_profiles,
        *options.cloud_profiles,
        *(Path(name) for name in described if Path(name).is_file()),
    )


def _directions(pipeline: Pipeline) -> tuple[Direction, ...]:
    """The default: in a pipeline of several models, the cloud may begin, too."""
    return ("device-first",) if pipeline.only is not None else ("device-first", "cloud-first")


def costs_of(unrolled: Unrolled, device: UnitTimes, cloud: UnitTimes, energy: Energy | None) -> Costs:
    """The solver's input, from the times on both sides."""
    return Costs(
        unrolled.graph,
        device.seconds,
        cloud.seconds,
        energy,
        device.fixed_s or 0.0,
        cloud.fixed_s or 0.0,
    )


def box_for(networks: tuple[Network, ...], device: UnitTimes) -> Box:
    """The default box, or the part of it that *networks* cover, if any are given."""
    box = (
        replace(Box(), device_slowdown=_PREDICTED_DEVICE_SLOWDOWN) if device.source == "predicted" else Box()
    )
    if not networks:
        return box

    def span(name: str) -> tuple[float, float]:
        spreads = [getattr(network, name) for network in networks]
        return min(spread.lowest for spread in spreads), max(spread.highest for spread in spreads)

    return replace(box, uplink_bps=span("uplink_bps"), downlink_bps=span("downlink_bps"), rtt_s=span("rtt_s"))


def energy_for(target: Target, networks: tuple[Network, ...], options: CompileOptions) -> Energy | None:
    """The energy that a request costs the device, if *options* limit it.

    Raises:
        TargetError: the target or the network lacks a figure that is needed.
    """
    if options.limits.max_energy_j is None:
        return None
    if len(options.networks) != 1:
        raise TargetError("--max-energy depends on the radio: name exactly one network with --network")
    network = networks[0]
    if target.active_w is None:
        raise TargetError(
            f"--max-energy needs active_w, which target '{target.name}' lacks; add it in a .toml of your own"
        )
    if network.uplink_j_per_byte is None or network.downlink_j_per_byte is None:
        raise TargetError(
            f"--max-energy needs uplink_j_per_byte and downlink_j_per_byte, which network '{network.name}' lacks; "
            "add them in a .toml of your own"
        )
    return Energy(target.active_w.value, network.uplink_j_per_byte.value, network.downlink_j_per_byte.value)
