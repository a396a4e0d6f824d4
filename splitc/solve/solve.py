"""From costs to the cuts that are worth shipping."""

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

__all__ = ["solve"]

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
    """Find the fewest cuts, at most *max_cuts*, that are nowhere in *box* worse than *regret*.

    All-head and all-tail are always among them when *limits* allow (of `max_cuts=1`, all-head). Splits are
    of one of *directions*; of two that cost the same, the one that is device-first.

    Raises:
        NoFeasibleCut: pins, privacy or budgets leave no cut.
        TargetError: an energy limit is set, but *costs* know no energy.
        ValueError: *box*, *directions*, *max_cuts* or *regret* make no sense.
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


def _extremes(costs: Costs, limits: Limits) -> list[Cut]:
    """All-head and all-tail, as far as they are feasible."""
    heads = [frozenset(range(len(costs.graph.units)))] if not limits.pin_cloud else []
    heads += [frozenset()] if not device_reasons(costs.graph, limits) else []
    return [cut for cut in (make_cut(costs, head) for head in heads) if meets_budgets(costs, cut, limits)]
