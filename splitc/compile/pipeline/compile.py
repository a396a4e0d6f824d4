"""From the description of a pipeline to a verified bundle: the stages in order, one function each."""

from dataclasses import replace
from pathlib import Path

from splitc.bundle.folder import file_entry, write_manifest
from splitc.bundle.staging import new_folder
from splitc.common.cache import Cache
from splitc.compile import report
from splitc.compile.compile import REPORT, STANDARD_NETWORKS, Compiled, CompileOptions, box_for, energy_for
from splitc.compile.emit import emit_pipeline
from splitc.compile.handovers import with_handovers
from splitc.compile.pipeline.analyse import analyse_pipeline
from splitc.compile.pipeline.describe import cut_entries, describe_pipeline
from splitc.compile.pipeline.limits import pipeline_limits
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.times import pipeline_times
from splitc.compile.pipeline.unroll import unroll
from splitc.compile.pipeline.verify import verify_pipeline
from splitc.compile.verdict import judge
from splitc.model.analysis import Progress
from splitc.profile.targets.description import load_network, load_target
from splitc.profile.unit_times import caveats
from splitc.solve.costs import Costs
from splitc.solve.solve import solve


def compile_pipeline(
    path: Path, out: Path | None, options: CompileOptions, cache: Cache, progress: Progress
) -> Compiled:
    """Compile the pipeline that *path* describes into the folder *out* (default artifacts/<pipeline>-<device>).

    The folder appears whole or not at all; description and models are only read.

    Raises:
        SplitcError: anything in the way, in one sentence; nothing is left behind.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    device_target, cloud_target = load_target(options.device), load_target(options.cloud)
    networks = tuple(load_network(name) for name in options.networks or STANDARD_NETWORKS)
    energy = energy_for(device_target, networks, options)
    progress("Loading")
    pipeline = load_pipeline(path)
    folder = out or Path("artifacts") / f"{pipeline.name}-{device_target.name}"
    with new_folder(folder) as (staging, scratch):
        found = analyse_pipeline(pipeline, options.analysis, scratch, cache, progress)
        unrolled = unroll(found)
        limits = pipeline_limits(options.limits, found, unrolled)
        progress(f"Timing the cloud side, {cloud_target.name}")
        cloud = pipeline_times(
            cloud_target, options.cloud_profiles, "--cloud-profile", found, unrolled, cache
        )
        progress(f"Timing the device side, {device_target.name}")
        device = pipeline_times(
            device_target, options.device_profiles, "--device-profile", found, unrolled, cache
        )
        progress("Solving")
        box = box_for(networks if options.networks else (), device.whole)
        costs = Costs(unrolled.graph, device.whole.seconds, cloud.whole.seconds, energy)
        cut_set = solve(
            costs,
            box,
            limits,
            directions=options.directions,
            max_cuts=options.max_cuts,
            regret=options.regret,
        )
        cut_set = with_handovers(
            cut_set, unrolled, costs, limits, directions=options.directions, max_cuts=options.max_cuts
        )
        progress("Writing heads and tails")
        written, files = emit_pipeline(found, unrolled, cut_set, staging, scratch)
        cuts = cut_entries(found, unrolled, written, device, cloud)
        notes: tuple[str, ...] = ("cuts were not verified: --no-verify",)
        if options.verify:
            cuts, notes = verify_pipeline(found, cuts, staging, progress)
        progress("Writing the report")
        notes = (
            *caveats((device_target, device.whole), (cloud_target, cloud.whole)),
            *found.notes,
            *notes,
        )
        manifest = describe_pipeline(found, device, cloud, box, cut_set, cuts, files, notes)
        verdicts = judge(manifest, networks, options.sla_s)
        (staging / REPORT).write_text(report.render(manifest, verdicts, networks), encoding="utf-8")
        manifest = replace(manifest, files=(*manifest.files, file_entry(staging, REPORT)))
        write_manifest(staging, manifest)
    return Compiled(folder, manifest, verdicts)
