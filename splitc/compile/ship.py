"""Choose cuts, write them and try them; those that prove wrong are left out, and others are chosen in their place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from splitc.bundle.manifest import CutEntry
from splitc.common.cache import Cache
from splitc.common.errors import NoFeasibleCut, VerifyError
from splitc.common.kinds import Direction
from splitc.compile.describe import cut_entries
from splitc.compile.emit import Emitted, emit
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.times import PipelineTimes
from splitc.compile.pipeline.unrolled import Unrolled, ends
from splitc.compile.privacy.limit import leak_limit_notes, leaking
from splitc.compile.privacy.measure import LeakMeter
from splitc.compile.trial import LeftOut, Tried, try_cuts
from splitc.compile.verification.verify import Reference
from splitc.model.analysis import Progress
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import CutSet
from splitc.solve.handovers import with_handovers
from splitc.solve.solve import only_allowed, solve

# So often others are chosen; after that, cuts that prove wrong are not replaced any more.
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """What the solver is given."""

    costs: Costs
    box: Box
    limits: Limits
    directions: tuple[Direction, ...]
    max_cuts: int
    regret: float


@dataclass(frozen=True, slots=True)
class Trials:
    """How cuts are tried.

    Attributes:
        against: what they are compared with, or why they are not; see `known_whole`.
        meter: measures what they tell of private tensors.
        max_leak: the most that a cut may tell; None for any.
    """

    found: PipelineAnalysis
    unrolled: Unrolled
    against: Reference | str
    meter: LeakMeter
    max_leak: float | None
    device: PipelineTimes
    cloud: PipelineTimes
    cache: Cache


@dataclass(frozen=True, slots=True)
class _Round:
    """The cuts of one solution that are right, and those that are not or tell too much."""

    emitted: Emitted
    tried: Tried
    telling: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class Shipped:
    """Cuts that are written and right, and notes on what was left out and how the others were verified."""

    cut_set: CutSet
    cuts: tuple[CutEntry, ...]
    emitted: Emitted
    notes: tuple[str, ...]


def choose(problem: Problem, unrolled: Unrolled) -> CutSet:
    """Solve *problem*.

    Raises:
        NoFeasibleCut: limits leave no cut.
        TargetError: an energy limit is set, but there are no energy data.
    """
    limits, directions, most = problem.limits, problem.directions, problem.max_cuts
    found = solve(
        problem.costs, problem.box, limits, directions=directions, max_cuts=most, regret=problem.regret
    )
    return with_handovers(found, ends(unrolled), problem.costs, limits, directions=directions, max_cuts=most)


def ship(problem: Problem, cut_set: CutSet, trials: Trials, folder: Path, progress: Progress) -> Shipped:
    """Write *cut_set* into the empty *folder*, and try it; while a cut is wrong, choose again without it.

    Args:
        cut_set: the solution of *problem*.

    Raises:
        VerifyError: no cut is right.
        NoFeasibleCut: every cut tells more of a private tensor than is allowed.
    """
    wrong: list[LeftOut] = []
    telling: list[LeftOut] = []
    replaced: tuple[str, ...] = ()
    for turn in count(1):
        now = _tried(cut_set, trials, folder, progress)
        if not now.tried.wrong and not now.telling:
            left_out = (f"{item.name} was left out: {item.why}" for item in wrong)
            notes = (*left_out, *leak_limit_notes(trials.max_leak, telling), *replaced, *now.tried.notes)
            return Shipped(cut_set, now.tried.cuts, now.emitted, notes)
        wrong += now.tried.wrong
        telling += now.telling
        if _is_hopeless(now.tried):
            break
        problem = _without(problem, (*now.tried.wrong, *now.telling))
        progress("Solving without the cuts that were left out")
        is_last = turn >= _ROUNDS or (bool(now.telling) and not trials.meter.works)
        if is_last:
            replaced = ("not all cuts that were left out were replaced by others",)
        cut_set = _next(problem, cut_set, trials.unrolled, is_last=is_last)
        if not cut_set.cuts:
            break
        for path in folder.iterdir():
            path.unlink()
    if not wrong:
        raise NoFeasibleCut(
            f"every cut gives away more than --max-leak {trials.max_leak:g} allows; raise it or drop a pin"
        )
    raise VerifyError(_nothing_left(wrong, trials.found))


def _tried(cut_set: CutSet, trials: Trials, folder: Path, progress: Progress) -> _Round:
    progress("Writing heads and tails")
    found, unrolled, device, cloud = trials.found, trials.unrolled, trials.device, trials.cloud
    emitted = emit(found, unrolled, cut_set, folder)
    cuts = cut_entries(found, unrolled, emitted.cuts, device, cloud)
    cuts = trials.meter.measured(emitted.cuts, cuts, folder, progress)
    telling = leaking(trials.max_leak, (item.cut for item in emitted.cuts), cuts)
    left_out = {item.cut.placement for item in telling}
    others = [
        (item, cut)
        for item, cut in zip(emitted.cuts, cuts, strict=True)
        if item.cut.placement not in left_out
    ]
    sides = device.whole, cloud.whole
    tried = try_cuts(found, unrolled, others, folder, trials.against, *sides, trials.cache, progress)
    return _Round(emitted, tried, telling)


def _is_hopeless(tried: Tried) -> bool:
    """Whether all is wrong, even what is not split: then it is not a matter of where the cut is."""
    return not tried.cuts and any(item.cut.kind != "split" for item in tried.wrong)


def _without(problem: Problem, left_out: Iterable[LeftOut]) -> Problem:
    more = {item.cut.placement for item in left_out}
    return replace(problem, limits=replace(problem.limits, left_out=problem.limits.left_out | more))


def _next(problem: Problem, before: CutSet, unrolled: Unrolled, *, is_last: bool) -> CutSet:
    """The solution of *problem*; what is right of that *before*, if it is the last."""
    if not is_last:
        try:
            return choose(problem, unrolled)
        except NoFeasibleCut:
            return CutSet((), (), 0.0, problem.regret)
    return only_allowed(before, problem.costs, problem.box, problem.limits, problem.directions)


def _nothing_left(wrong: Sequence[LeftOut], found: PipelineAnalysis) -> str:
    hint = "; try --no-simplify" if any(item.model is not item.original for item in found.analyses) else ""
    return f"no cut computes what the {found.pipeline.noun} does; {wrong[0].name}: {wrong[0].why}{hint}"
