"""Run the cuts of a build before it ships them: they are verified, and timed where this is the machine."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from splitc.bundle.manifest import CutEntry
from splitc.common.cache import Cache
from splitc.common.ort import usable_cores
from splitc.compile import judgement
from splitc.compile.emit import Written
from splitc.compile.judgement import Allowed
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.timings import PartTimer
from splitc.compile.verify import Runner, reference, tolerance, verify_cuts
from splitc.compile.whole import files_in, whole_as_given
from splitc.model.analysis import Progress
from splitc.profile.document import UnitTimes
from splitc.solve.cuts import Cut


def try_cuts(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Sequence[Written],
    cuts: Sequence[CutEntry],
    folder: Path,
    device: UnitTimes,
    cloud: UnitTimes,
    cache: Cache,
    progress: Progress,
) -> tuple[tuple[CutEntry, ...], tuple[str, ...]]:
    """Return *cuts*, whose files lie in *folder*, with checks and times, and notes on what was not checked.

    Raises:
        VerifyError: a cut does not compute what the whole does.
    """
    if not found.feeds:
        return tuple(cuts), ("cuts were not verified: too little memory to run them",)
    noun = found.pipeline.noun
    progress(f"Running the whole {noun}")
    threads = next((side.threads for side in (cloud, device) if side.here), usable_cores())
    against = reference(whole_as_given(found.pipeline), found.feeds, _allowed(found), threads)
    if against is None:
        return tuple(cuts), (f"cuts were not verified: the {noun} gives another result each time it runs",)
    files = files_in(folder)
    runner = Runner(files.path, threads)
    timer = PartTimer(cache, runner, is_device_here=device.here, is_cloud_here=cloud.here)
    tried, unusual = [], []
    for item, verified in zip(written, verify_cuts(cuts, files, against, runner, progress), strict=True):
        cut = replace(verified.cut, check=verified.check)
        if device.here or cloud.here:
            key = (
                device.sha256,
                cloud.sha256,
                device.here,
                cloud.here,
                *_identity(found, unrolled, item.cut),
            )
            cut = timer.timed(cut, verified.calls, key)
        tried.append(cut)
        unusual.append((cut.id, verified.unusual))
    return tuple(tried), (*against.whole.notes(), *judgement.notes(unusual))


def _allowed(found: PipelineAnalysis) -> Allowed:
    return Allowed(
        tolerance(
            (size.dtype for analysis in found.analyses for size in analysis.sizes.values()),
            (node.op_type for analysis in found.analyses for node in analysis.sources.nodes),
        )
    )


def _identity(found: PipelineAnalysis, unrolled: Unrolled, cut: Cut) -> tuple[object, ...]:
    """What tells a cut from all others, in words that outlive a change in how nodes are grouped.

    A pipeline is more than its models: the same ones may run more often, or on other values.
    """
    names = []
    for unit in cut.head:
        place = unrolled.places[unit]
        if place.unit is None:
            names.append(unrolled.graph.units[unit].name)
            continue
        analysis = found.analysis(place.stage)
        prefix = f"{found.pipeline.stages[place.stage].name}/" if found.pipeline.only is None else ""
        nodes = analysis.partition.graph.units[place.unit].nodes
        names += [f"{prefix}{analysis.sources.nodes[index].name or ''}" for index in nodes]
    pipeline = found.pipeline.sha256 if found.pipeline.only is None else None
    return cut.direction, pipeline, [item.model.sha256 for item in found.analyses], sorted(names)
