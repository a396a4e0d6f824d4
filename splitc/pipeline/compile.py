"""From the description of a pipeline to a verified bundle: the stages in order, one function each."""

from dataclasses import replace
from pathlib import Path

from splitc import report
from splitc.analysis import Progress
from splitc.atomic import new_folder
from splitc.bundle import file_entry, write_manifest
from splitc.cache import Cache
from splitc.compile import REPORT, STANDARD_NETWORKS, Compiled, CompileOptions, box_for, energy_for
from splitc.costs import Costs
from splitc.outlook import outlook
from splitc.pipeline.analyse import analyse_pipeline
from splitc.pipeline.describe import cut_entries, describe_pipeline
from splitc.pipeline.emit import emit_pipeline
from splitc.pipeline.handovers import with_handovers
from splitc.pipeline.limits import pipeline_limits
from splitc.pipeline.load import load_pipeline
from splitc.pipeline.times import pipeline_times
from splitc.pipeline.unroll import unroll
from splitc.pipeline.verify import verify_pipeline
from splitc.solve import solve
from splitc.targets import load_network, load_target
from splitc.timing import caveats


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
        outlooks = outlook(manifest, networks, options.sla_s)
        (staging / REPORT).write_text(report.render(manifest, outlooks, networks), encoding="utf-8")
        manifest = replace(manifest, files=(*manifest.files, file_entry(staging, REPORT)))
        write_manifest(staging, manifest)
    return Compiled(folder, manifest, outlooks)
