"""From a model or a pipeline to a verified bundle: the stages in order, one function each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from splitc.bundle.folder import file_entry, write_manifest
from splitc.bundle.manifest import CutEntry, FileEntry, Manifest
from splitc.bundle.staging import new_folder
from splitc.common.cache import Cache
from splitc.common.errors import TargetError
from splitc.common.kinds import Direction
from splitc.compile import report
from splitc.compile.describe import cut_entries, describe, input_conversions
from splitc.compile.emit import Written, emit
from splitc.compile.leak_trial import leak_meter, leak_notes
from splitc.compile.limits import LimitOptions, read_limits
from splitc.compile.max_leak import Forbidden, solve_within_leak
from splitc.compile.pipeline.analyse import PipelineAnalysis, analyse_pipeline
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.stages import Pipeline
from splitc.compile.pipeline.times import PipelineTimes, pipeline_times
from splitc.compile.pipeline.unroll import unroll
from splitc.compile.pipeline.unrolled import Unrolled, ends
from splitc.compile.private import recoverable_note
from splitc.compile.trial import try_cuts
from splitc.compile.verdict import Verdict, judge
from splitc.model.analysis import AnalysisOptions, Progress
from splitc.profile.document import UnitTimes
from splitc.profile.targets.description import Network, Target, load_network, load_target
from splitc.profile.unit_times import caveats
from splitc.solve.costs import Box, Costs, Energy, Limits
from splitc.solve.cuts import CutSet
from splitc.solve.handovers import with_handovers
from splitc.solve.solve import solve
from splitc.solve.space import make_space

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
        meter = leak_meter(
            found, unrolled, options.limits.private, progress, sampled=bool(options.analysis.samples)
        )
        solved = partial(_solved, costs, box, limits, ends(unrolled), directions, options)
        write = partial(_write, found, unrolled, device, cloud)
        space = make_space(unrolled.graph, box, directions)
        cut_set, left_out = solve_within_leak(
            options.limits.max_leak, meter, solved, write, space, scratch, progress
        )
        progress("Writing heads and tails")
        written, files, cuts = write(cut_set, staging)
        cuts = meter.measured(written, cuts, staging, progress)
        notes = (
            *caveats((device_target, device.whole), (cloud_target, cloud.whole)),
            *found.notes,
            *recoverable_note(unrolled, options.limits.private, limits.recoverable),
            *leak_notes(cuts, runs=bool(found.feeds)),
            *left_out,
            *input_conversions(found, unrolled, cut_set.cuts),
        )
        tried: tuple[str, ...] = ("cuts were not verified: --no-verify",)
        if options.verify:
            cuts, tried = try_cuts(
                found, unrolled, emitted.cuts, cuts, staging, device.whole, cloud.whole, cache, progress
            )
        progress("Writing the report")
        manifest = describe(found, device.whole, cloud.whole, box, cut_set, cuts, emitted, (*notes, *tried))
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
def _solved(
    costs: Costs,
    box: Box,
    limits: Limits,
    handovers: Sequence[int],
    directions: tuple[Direction, ...],
    options: CompileOptions,
    forbidden: Forbidden,
) -> CutSet:
    """The cuts to ship, none of them *forbidden*."""
    given, most = replace(limits, forbidden=forbidden), options.max_cuts
    cut_set = solve(costs, box, given, directions=directions, max_cuts=most, regret=options.regret)
    return with_handovers(cut_set, handovers, costs, given, directions=directions, max_cuts=most)


def _write(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    device: PipelineTimes,
    cloud: PipelineTimes,
    cut_set: CutSet,
    folder: Path,
) -> tuple[tuple[Written, ...], tuple[FileEntry, ...], tuple[CutEntry, ...]]:
    """Write the cuts into *folder*, and describe them."""
    written, files = emit(found, unrolled, cut_set, folder)
    return written, files, cut_entries(found, unrolled, written, device, cloud)


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
