"""Select, from the costs of all units, the cuts that a bundle contains."""

from collections.abc import Sequence

from splitc.common.kinds import Direction
from splitc.solve.certify import certified_regret
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import Cut, CutSet, make_cut, meets_budgets
from splitc.solve.directions import best_oracle
from splitc.solve.frontier import frontier
from splitc.solve.pins import device_reasons
from splitc.solve.select import select
from splitc.solve.space import make_space

__all__ = ["only_allowed", "solve"]

_NO_LIMITS = Limits()


def solve(
    costs: Costs,
    box: Box,
    limits: Limits = _NO_LIMITS,
    *,
    directions: Sequence[Direction] = ("device-first",),
    max_cuts: int = 8,
    regret: float = 0.01,
) -> CutSet:
    """Find the fewest cuts, at most *max_cuts*, whose regret is at most *regret* everywhere in *box*.

    The result includes all-head and all-tail if *limits* allow them (with `max_cuts=1`, only all-head). Each
    split has one of *directions*; if two splits cost the same, the device-first one is used.

    Raises:
        NoFeasibleCut: pins, privacy or budgets leave no cut.
        TargetError: an energy limit is set, but *costs* contain no energy data.
        ValueError: *box*, *directions*, *max_cuts* or *regret* is not valid.
    """
    if max_cuts < 1 or not regret >= 0:
        raise ValueError(f"max_cuts must be at least 1 and regret at least 0, not {max_cuts} and {regret}")
    if not directions:
        raise ValueError("at least one direction is needed")
    space = make_space(costs.graph, box, directions)
    oracle = best_oracle(costs, limits, sorted(set(directions), reverse=True))  # device-first comes first
    extremes = _extremes(costs, limits)
    all_head = next((cut for cut in extremes if cut.kind == "all-head"), None)
    best = frontier(space, oracle, all_head)
    shipped = select(space, best, extremes, max_cuts=max_cuts, regret=regret)
    return CutSet(shipped, best, certified_regret(space, shipped, best), regret)


def only_allowed(
    cut_set: CutSet, costs: Costs, box: Box, limits: Limits, directions: Sequence[Direction]
) -> CutSet:
    """Return *cut_set* without what *limits* leave out since.

    The regret is certified against the frontier with the cuts that are left out: the best of the other cuts is not
    known, but it is not better.
    """
    cuts, best = (
        tuple(cut for cut in some if cut.placement not in limits.left_out)
        for some in (cut_set.cuts, cut_set.frontier)
    )
    space = make_space(costs.graph, box, directions)
    regret = certified_regret(space, cuts, cut_set.frontier) if cuts else 0.0
    return CutSet(cuts, best, regret, cut_set.regret_limit)


def _extremes(costs: Costs, limits: Limits) -> list[Cut]:
    """Return all-head and all-tail, each only if it is feasible and not left out."""
    heads = [frozenset(range(len(costs.graph.units)))] if not limits.pin_cloud else []
    heads += [frozenset()] if not device_reasons(costs.graph, limits) else []
    cuts = [make_cut(costs, head) for head in heads]
    return [cut for cut in cuts if cut.placement not in limits.left_out and meets_budgets(costs, cut, limits)]
