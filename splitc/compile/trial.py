"""Run the cuts of a build before it ships them: they are verified, and timed where this is the machine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from splitc.bundle.manifest import CutEntry, part_files
from splitc.common.cache import Cache
from splitc.common.ort import usable_cores
from splitc.compile.emit import Written
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.stages import Pipeline
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.timings import PartTimer
from splitc.compile.verification import judgement
from splitc.compile.verification.judgement import Allowed, asked_note
from splitc.compile.verification.verify import Reference, Runner, WrongCut, reference, tolerance, tried_cuts
from splitc.compile.verification.whole import files_in, whole_as_given
from splitc.model.analysis import Progress
from splitc.profile.document import UnitTimes
from splitc.solve.cuts import Cut

# So many of the tensors that cross tell people which cut it is.
_NAMED = 2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A cut that is wrong; its name outlives the numbers of cuts, and `why` is a clause."""

    cut: Cut
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of cuts.

    Attributes:
        cuts: those that are right, or were not verified; with checks and times.
        wrong: the others.
        notes: what a user should know of how the cuts were verified, a sentence each.
    """

    cuts: tuple[CutEntry, ...]
    wrong: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def known_whole(
    found: PipelineAnalysis, device: UnitTimes, cloud: UnitTimes, asked: float | None, progress: Progress
) -> Reference | str:
    """Run the whole, with which cuts can be compared; or say why they are not verified.

    Args:
        asked: the tolerance that the user wants.
    """
    if not found.feeds:
        return "cuts were not verified: too little memory to run them"
    noun = found.pipeline.noun
    progress(f"Running the whole {noun}")
    allowed = Allowed(asked, is_asked=True) if asked is not None else _allowed(found)
    against = reference(whole_as_given(found.pipeline), found.feeds, allowed, _threads(device, cloud))
    if against is None:
        return f"cuts were not verified: the {noun} gives another result each time it runs"
    return against


def try_cuts(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Sequence[tuple[Written, CutEntry]],
    folder: Path,
    against: Reference | str,
    device: UnitTimes,
    cloud: UnitTimes,
    cache: Cache,
    progress: Progress,
) -> Tried:
    """Verify cuts, whose files lie in *folder*, and time those that are right.

    Args:
        written: the cuts with their descriptions.
        against: see `known_whole`.
    """
    if isinstance(against, str):
        return Tried(tuple(cut for _, cut in written), (), (against,))
    files = files_in(folder)
    runner = Runner(files.path, _threads(device, cloud))
    timer = PartTimer(cache, runner, is_device_here=device.here, is_cloud_here=cloud.here)
    tried, wrong, unusual = [], [], []
    verified_cuts = tried_cuts([cut for _, cut in written], files, against, runner, progress)
    for (item, _), verified in zip(written, verified_cuts, strict=True):
        if isinstance(verified, WrongCut):
            wrong.append(_left_out(item.cut, verified, found.pipeline))
            continue
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
    notes = (*against.whole.notes(), *asked_note(against.allowed), *judgement.notes(unusual))
    return Tried(tuple(tried), tuple(wrong), notes)


def _left_out(cut: Cut, wrong: WrongCut, pipeline: Pipeline) -> LeftOut:
    why = wrong.why
    for part, words in ((wrong.cut.head, "its head"), (wrong.cut.tail, "its tail")):
        for file in part_files(part) if part is not None else ():
            why = why.replace(file, words)
    return LeftOut(cut, _in_words(wrong.cut, pipeline), why)


def _in_words(cut: CutEntry, pipeline: Pipeline) -> str:
    if cut.kind != "split":
        place = "on the device" if cut.kind == "all-head" else "in the cloud"
        return f"the whole {pipeline.noun} {place} ({cut.kind})"
    names = [entry.name for entry in cut.boundary]
    names = [name for name in names if name not in pipeline.inputs] or names
    shown = " and ".join(f"'{name}'" for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the {'cloud-first ' if cut.is_cloud_first else ''}cut after {shown}{more}"


def _threads(device: UnitTimes, cloud: UnitTimes) -> int:
    return next((side.threads for side in (cloud, device) if side.here), usable_cores())


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
