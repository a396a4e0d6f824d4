"""No smaller set of cuts meets the limit; a set of fixed size is the best of that size."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.solve.costs import Box, Costs
from splitc.solve.cuts import Cut, CutSet
from splitc.solve.select import worst_points
from splitc.solve.solve import solve
from splitc.solve.space import make_space
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)


def regret_lp(shipped: tuple[Cut, ...], frontier: tuple[Cut, ...], box: Box) -> float:
    table = oracle.amounts(shipped)
    rows = oracle.amounts([cut for cut in frontier if cut not in shipped])
    return max((oracle.worst_ratio(table, row, box) - 1.0 for row in rows), default=0.0)


def other_sets(costs: Costs, solved: CutSet, size: int) -> list[tuple[Cut, ...]]:
    """All sets of *size* cuts that include the extremes."""
    whole = frozenset(range(len(costs.graph.units)))
    extremes = [cut for cut in oracle.feasible_cuts(costs) if cut.head in (frozenset(), whole)]
    rest = [cut for cut in solved.frontier if cut not in extremes]
    return [(*extremes, *some) for some in combinations(rest, max(size - len(extremes), 0))]


@SETTINGS
@given(graphs.costs(9), graphs.boxes(), st.sampled_from([0.0, 0.01, 0.05, 0.3]))
def test_no_smaller_set_meets_the_limit(costs: Costs, box: Box, limit: float) -> None:
    solved = solve(costs, box, max_cuts=50, regret=limit)
    assert solved.regret <= limit + 1e-9
    assert regret_lp(solved.cuts, solved.frontier, box) <= limit + 1e-7
    smaller = other_sets(costs, solved, len(solved.cuts) - 1) if len(solved.cuts) > 2 else []
    for some in smaller[:200]:
        assert regret_lp(some, solved.frontier, box) > limit - 1e-7


@SETTINGS
@given(graphs.costs(9), graphs.boxes(), st.integers(2, 4))
def test_a_set_of_fixed_size_has_the_least_regret(costs: Costs, box: Box, max_cuts: int) -> None:
    solved = solve(costs, box, max_cuts=max_cuts, regret=0.0)
    assert len(solved.cuts) <= max_cuts
    others = other_sets(costs, solved, max_cuts)[:200]
    for some in others:
        assert solved.regret <= regret_lp(some, solved.frontier, box) + 1e-7


def test_both_outcomes_of_the_limit_occur() -> None:
    costs = graphs.random_costs(6, 12, single_output=False)
    enough, too_few = solve(costs, Box(), regret=0.05), solve(costs, Box(), max_cuts=3, regret=0.0)
    assert len(enough.cuts) < len(enough.frontier)
    assert 0.0 < enough.regret <= 0.05
    assert len(too_few.cuts) == 3
    assert too_few.regret > too_few.regret_limit


@SETTINGS
@given(graphs.costs(9), graphs.boxes())
def test_regret_is_worst_at_a_vertex_of_the_shipped_envelope(costs: Costs, box: Box) -> None:
    solved = solve(costs, box, max_cuts=2, regret=0.0)
    space = make_space(costs.graph, box)
    shipped, best = space.scaled_amounts(solved.cuts), space.scaled_amounts(solved.frontier)
    points, regrets = worst_points(space.scaled_low(), shipped, best)
    assert np.all(points <= 1.0 + 1e-12)
    assert np.all(points >= space.scaled_low() * (1 - 1e-9))
    assert max(regrets.max(), 0.0) == pytest.approx(solved.regret, rel=1e-6, abs=1e-8)


def test_order_of_a_cut_set() -> None:
    solved = solve(graphs.random_costs(6, 12, single_output=False), Box())
    assert [cut.kind for cut in solved.cuts][:: len(solved.cuts) - 1] == ["all-head", "all-tail"]
    times_s = [cut.cloud_s for cut in solved.cuts]
    assert len(times_s) > 3
    assert times_s == sorted(times_s)


def test_order_of_cuts_of_both_directions() -> None:
    costs = graphs.random_costs(6, 12, single_output=False)
    solved = solve(costs, Box(), directions=["cloud-first", "device-first"])
    assert solved == solve(costs, Box(), directions=["device-first", "cloud-first"])
    assert [cut.kind for cut in solved.cuts][:: len(solved.cuts) - 1] == ["all-head", "all-tail"]
    assert {cut.direction for cut in solved.cuts[1:-1]} == {"device-first", "cloud-first"}
    times_s = [cut.cloud_s for cut in solved.cuts]
    assert times_s == sorted(times_s)


def test_one_cut_is_all_head() -> None:
    assert [cut.kind for cut in solve(graphs.diamond(), Box(), max_cuts=1).cuts] == ["all-head"]


@pytest.mark.parametrize(("max_cuts", "regret"), [(0, 0.01), (8, -0.1), (8, float("nan"))])
def test_refuses_nonsense(max_cuts: int, regret: float) -> None:
    with pytest.raises(ValueError, match="max_cuts"):
        solve(graphs.diamond(), Box(), max_cuts=max_cuts, regret=regret)
