"""Find the best cut in any of the requested directions."""

from collections.abc import Sequence
from functools import partial

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.solve.budgets import budget_oracle, has_budgets
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut
from splitc.solve.exclude import Prepare, excluding_oracle
from splitc.solve.mincut import better_of, min_cut_oracle
from splitc.solve.space import FloatArray, Oracle


def best_oracle(costs: Costs, limits: Limits, directions: Sequence[Direction]) -> Oracle:
    """Return an oracle for the best cut in any of *directions*; of equal cuts, it returns the first.

    Raises:
        NoFeasibleCut: *limits* leave no cut in any direction.
        TargetError: an energy limit is set, but *costs* contain no energy data.
    """
    prepare: Prepare = budget_oracle if has_budgets(limits) else min_cut_oracle
    if limits.left_out:
        prepare = partial(excluding_oracle, prepare)
    oracles: list[Oracle] = []
    failed: dict[str, Direction] = {}
    for direction in directions:
        try:
            oracles.append(prepare(costs, limits, direction))
        except NoFeasibleCut as error:
            failed.setdefault(str(error), direction)
    if not oracles:
        raise NoFeasibleCut(
            next(iter(failed))
            if len(failed) == 1
            else "; ".join(f"{direction}: {why}" for why, direction in failed.items())
        )

    def oracle(prices: FloatArray) -> Cut:
        first, *others = (one(prices) for one in oracles)
        return better_of(first, others, prices)

    return oracle if len(oracles) > 1 else oracles[0]
