"""The certified regret is the true worst case: never exceeded, and reached."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.kinds import Direction
from splitc.solve.certify import certified_regret
from splitc.solve.costs import Box, Costs
from splitc.solve.solve import solve
from splitc.solve.space import make_space
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)
given_directions = pytest.mark.parametrize(
    "directions",
    [["device-first"], ["device-first", "cloud-first"]],
    ids=["device-first", "both"],
)


@given_directions
@SETTINGS
@given(graphs.costs(7), graphs.boxes(), st.integers(1, 4))
def test_equals_the_exhaustive_regret(
    directions: Sequence[Direction], costs: Costs, box: Box, max_cuts: int
) -> None:
    solved = solve(costs, box, directions=directions, max_cuts=max_cuts, regret=0.0)
    expected = oracle.exhaustive_regret(solved.cuts, oracle.feasible_cuts(costs, directions=directions), box)
    assert solved.regret == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given_directions
@SETTINGS
@given(graphs.costs(9), graphs.boxes(), st.integers(1, 4), st.integers(0, 2**32))
def test_is_never_exceeded(
    directions: Sequence[Direction], costs: Costs, box: Box, max_cuts: int, seed: int
) -> None:
    solved = solve(costs, box, directions=directions, max_cuts=max_cuts, regret=0.0)
    prices = oracle.random_prices(box, 500, seed)
    every = oracle.feasible_cuts(costs, directions=directions)
    best, shipped = ((prices @ oracle.amounts(some).T).min(axis=1) for some in (every, solved.cuts))
    assert np.all(shipped <= best * (1.0 + solved.regret) * (1.0 + 1e-8))


def test_by_hand() -> None:
    # All-head 2 s, all-tail 1 s + 1 s of sending + 0.5 s; only the head's slowdown varies, from 1 to 2.
    costs = graphs.chain([2.0], [1.0], [125_000, 0])
    box = Box((1.0, 2.0), (1.0, 1.0), (1e6, 1e6), (1e6, 1e6), (0.5, 0.5))
    all_tail, all_head = oracle.feasible_cuts(costs)
    space = make_space(costs.graph, box)
    assert certified_regret(space, [all_head], [all_head, all_tail]) == pytest.approx(4.0 / 2.5 - 1.0)
    assert certified_regret(space, [all_tail], [all_head, all_tail]) == pytest.approx(2.5 / 2.0 - 1.0)


def test_is_zero_when_the_frontier_is_shipped() -> None:
    solved = solve(graphs.random_costs(6, 12, single_output=False), Box(), max_cuts=100, regret=0.0)
    assert set(solved.frontier) <= set(solved.cuts)
    assert solved.regret == 0.0
