"""From costs to the cuts that are worth shipping."""

from splitc.costs import Box, Costs, Limits
from splitc.cuts import Cut, CutSet, make_cut, meets_budgets
from splitc.solve.budgets import budget_oracle, has_budgets
from splitc.solve.certify import certified_regret
from splitc.solve.frontier import frontier
from splitc.solve.mincut import min_cut_oracle
from splitc.solve.pins import make_pins
from splitc.solve.select import select
from splitc.solve.space import make_space

__all__ = ["solve"]

_NO_LIMITS = Limits()


def solve(
    costs: Costs, box: Box, limits: Limits = _NO_LIMITS, *, max_cuts: int = 8, regret: float = 0.01
) -> CutSet:
    """Find the fewest cuts, at most *max_cuts*, that are nowhere in *box* worse than *regret*.

    All-head and all-tail are always among them when *limits* allow (of `max_cuts=1`, all-head).

    Raises:
        NoFeasibleCut: pins, privacy or budgets leave no cut.
        TargetError: an energy limit is set, but *costs* know no energy.
        ValueError: *box*, *max_cuts* or *regret* make no sense.
    """
    if max_cuts < 1 or not regret >= 0:
        raise ValueError(f"max_cuts must be at least 1 and regret at least 0, not {max_cuts} and {regret}")
    space = make_space(costs.graph, box)
    oracle = budget_oracle(costs, limits) if has_budgets(limits) else min_cut_oracle(costs, limits)
    extremes = _extremes(costs, limits)
    all_head = next((cut for cut in extremes if cut.kind == "all-head"), None)
    best = frontier(space, oracle, all_head)
    shipped = select(space, best, extremes, max_cuts=max_cuts, regret=regret)
    return CutSet(shipped, best, certified_regret(space, shipped, best), regret)


def _extremes(costs: Costs, limits: Limits) -> list[Cut]:
    """All-head and all-tail, as far as they are feasible."""
    pins = make_pins(costs.graph, limits)
    heads = [frozenset(range(len(costs.graph.units)))] if not pins.tail else []
    heads += [frozenset()] if not pins.head else []
    return [cut for cut in (make_cut(costs, head) for head in heads) if meets_budgets(costs, cut, limits)]
