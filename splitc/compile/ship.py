"""Choose cuts, write them and try them; those that prove wrong are left out, and others are chosen in their place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from splitc.bundle.manifest import CutEntry, FileEntry
from splitc.common.cache import Cache
from splitc.common.errors import NoFeasibleCut, VerifyError
from splitc.common.kinds import Direction
from splitc.compile.describe import cut_entries
from splitc.compile.emit import emit
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.times import PipelineTimes
from splitc.compile.pipeline.unrolled import Unrolled, ends
from splitc.compile.trial import LeftOut, Tried, try_cuts
from splitc.compile.verify import Reference
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
class Shipped:
    """Cuts that are written and right, and notes on what was left out and how the others were verified."""

    cut_set: CutSet
    cuts: tuple[CutEntry, ...]
    files: tuple[FileEntry, ...]
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


def ship(
    problem: Problem,
    cut_set: CutSet,
    found: PipelineAnalysis,
    unrolled: Unrolled,
    against: Reference | str,
    device: PipelineTimes,
    cloud: PipelineTimes,
    folder: Path,
    cache: Cache,
    progress: Progress,
) -> Shipped:
    """Write *cut_set* into the empty *folder*, and try it; while a cut is wrong, choose again without it.

    Args:
        cut_set: the solution of *problem*.
        against: see `known_whole`.

    Raises:
        VerifyError: no cut is right.
    """
    wrong: list[LeftOut] = []
    for turn in count(1):
        progress("Writing heads and tails")
        written, files = emit(found, unrolled, cut_set, folder)
        cuts = cut_entries(found, unrolled, written, device, cloud)
        sides = device.whole, cloud.whole
        tried = try_cuts(found, unrolled, written, cuts, folder, against, *sides, cache, progress)
        if not tried.wrong:
            left_out = (f"{item.name} was left out: {item.why}" for item in wrong)
            return Shipped(cut_set, tried.cuts, files, (*left_out, *tried.notes))
        wrong += tried.wrong
        if _is_hopeless(tried):
            break
        problem = _without(problem, tried)
        progress("Solving without the cuts that are wrong")
        cut_set = _next(problem, cut_set, unrolled, is_last=turn >= _ROUNDS)
        if not cut_set.cuts:
            break
        for path in folder.iterdir():
            path.unlink()
    raise VerifyError(_nothing_left(wrong, found))


def _is_hopeless(tried: Tried) -> bool:
    """Whether all is wrong, even what is not split: then it is not a matter of where the cut is."""
    return not tried.cuts and any(item.cut.kind != "split" for item in tried.wrong)


def _without(problem: Problem, tried: Tried) -> Problem:
    more = {item.cut.placement for item in tried.wrong}
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
