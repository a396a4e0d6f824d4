"""Add cuts between stages and iterations ("hand-overs") to the cuts that are fastest at some conditions.

All hand-overs inside a loop send the same number of bytes, so latency is linear in the iteration. The fastest
hand-over is therefore always at an end of the loop, and a set of fastest cuts contains no hand-over inside the loop.
A target latency still needs these: the least cloud work that meets the target is at an iteration between the ends
(arXiv 2402.04880, section 4). A bundle contains each model of a pipeline whole, so a hand-over adds only an entry in
the manifest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, CutSet, make_cut, meets_budgets
from splitc.solve.pins import device_reasons

# A cut must change the cloud time by at least this share of the largest cloud time.
_FINE = 0.01
_ORDER = {"all-head": 0, "split": 1, "all-tail": 2}


def with_handovers(
    cut_set: CutSet,
    ends: Sequence[int],
    costs: Costs,
    limits: Limits,
    *,
    directions: Sequence[Direction],
    max_cuts: int,
) -> CutSet:
    """Add hand-overs to *cut_set* up to *max_cuts*, each in the largest gap between cloud times.

    The certified regret stays valid, because more cuts can only lower the regret.

    Args:
        ends: how many units have run before each hand-over between stages or iterations.
    """
    chosen = list(cut_set.cuts)
    known = {cut.placement for cut in chosen}
    left = [
        cut
        for cut in _handovers(ends, costs, directions)
        if cut.placement not in known and _allowed(cut, costs, limits)
    ]
    if not left:
        return cut_set
    fine_s = _FINE * max((cut.cloud_s for cut in (*chosen, *left)), default=0.0)
    while len(chosen) < max_cuts and (found := _next(chosen, left, fine_s)) is not None:
        chosen.append(found)
        left.remove(found)
    chosen.sort(key=lambda cut: (_ORDER[cut.kind], cut.cloud_s, cut.uplink_bytes, sorted(cut.device)))
    return replace(cut_set, cuts=tuple(chosen))


def _handovers(ends: Iterable[int], costs: Costs, directions: Iterable[Direction]) -> Iterator[Cut]:
    """Every cut between whole stages or iterations, in the order of the pipeline."""
    for end in ends:
        for direction in directions:
            yield make_cut(costs, frozenset(range(end)), direction)


def _allowed(cut: Cut, costs: Costs, limits: Limits) -> bool:
    return (
        device_reasons(costs.graph, limits).keys() <= cut.device
        and limits.pin_cloud.isdisjoint(cut.device)
        and cut.placement not in limits.left_out
        and meets_budgets(costs, cut, limits)
    )


def _next(chosen: Sequence[Cut], left: Sequence[Cut], fine_s: float) -> Cut | None:
    """Return the cut nearest to the middle of the largest gap in cloud times that contains a cut.

    Of nearly equal cuts, return the one that sends the fewest bytes.
    """
    times_s = sorted(cut.cloud_s for cut in chosen)
    for low_s, high_s in sorted(pairwise(times_s), key=lambda step: (step[0] - step[1], step[0])):
        inside = [cut for cut in left if low_s + fine_s < cut.cloud_s < high_s - fine_s]
        if inside:
            middle_s = (low_s + high_s) / 2
            nearest_s = min(abs(cut.cloud_s - middle_s) for cut in inside)
            equals = [cut for cut in inside if abs(cut.cloud_s - middle_s) <= nearest_s + fine_s]
            return min(equals, key=_sent)
    return None


def _sent(cut: Cut) -> tuple[int, float, list[int]]:
    return cut.uplink_bytes + cut.downlink_bytes, cut.device_s, sorted(cut.device)
