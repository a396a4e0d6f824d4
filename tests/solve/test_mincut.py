"""The minimum cut is the best of all closures at any prices."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitc.costs import Box, Costs, Limits
from splitc.cuts import Cut
from splitc.errors import NoFeasibleCut
from splitc.solve.mincut import latency_s, min_cut_oracle
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)


def check_best(costs: Costs, limits: Limits, cuts: list[Cut], seed: int) -> None:
    solver = min_cut_oracle(costs, limits)
    for prices in oracle.random_prices(Box(), 6, seed)[:12, :4]:
        found = solver(prices)
        assert found in cuts
        assert latency_s(found, prices) == pytest.approx(min(oracle.amounts(cuts)[:, :4] @ prices), rel=1e-8)


@SETTINGS
@given(graphs.costs(10), st.integers(0, 2**32))
def test_is_best_of_all_closures(costs: Costs, seed: int) -> None:
    check_best(costs, Limits(), oracle.feasible_cuts(costs), seed)


@SETTINGS
@given(graphs.costs(10), st.integers(0, 2**32))
def test_is_best_under_pins_and_privacy(costs: Costs, seed: int) -> None:
    limits = graphs.random_limits(costs, seed)
    assume(limits != Limits())
    cuts = oracle.feasible_cuts(costs, limits)
    if cuts:
        check_best(costs, limits, cuts, seed)
    else:
        with pytest.raises(NoFeasibleCut, match="drop one of the two"):
            min_cut_oracle(costs, limits)


def test_keeps_what_cannot_be_sent_in_the_head() -> None:
    graph = graphs.make_graph([[0], [1], [2]], [None, 8, 8, 8], device_only=[0])
    solver = min_cut_oracle(Costs(graph, (9.0, 9.0, 9.0), (0.0, 0.0, 0.0)), Limits())
    assert solver(np.ones(4) * 1e-3).head == {0}


def test_fan_out_is_paid_once() -> None:
    # Two readers of one tensor: sending it costs 10, running both readers at home 12, sending it twice
    # would be 20.
    graph = graphs.make_graph([[0], [1], [1]], [1000, 10, 0, 0])
    solver = min_cut_oracle(Costs(graph, (0.0, 6.0, 6.0), (0.0, 0.0, 0.0)), Limits())
    assert solver(np.ones(4)).head == {0}


def test_ties_go_to_the_smallest_head() -> None:
    costs = graphs.chain([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [8, 8, 8, 8])
    assert min_cut_oracle(costs, Limits())(np.array([1.0, 1.0, 0.0, 0.0])).head == frozenset()


def test_finds_a_gain_that_the_first_scale_rounds_away() -> None:
    # All-head and all-tail take 1000 s, and with them the first scale; u1 gains 10 ns of 1 ms in the head.
    costs = graphs.chain([0.0, 1.0e-3, 1e3], [1e3, 1.00001e-3, 0.0], [8, 8, 8, 8])
    assert min_cut_oracle(costs, Limits())(np.array([1.0, 1.0, 1e-9, 0.0])).head == {0, 1}


def test_conflicting_pins_name_both_units_and_the_reason() -> None:
    costs = graphs.chain([1, 1, 1], [1, 1, 1], [8, 8, 8, 8])
    with pytest.raises(
        NoFeasibleCut, match=r"'u0' in the tail, because --pin-head keeps 'u2' in the head, which needs"
    ):
        min_cut_oracle(costs, Limits(pin_head=frozenset({2}), pin_tail=frozenset({0})))
    with pytest.raises(
        NoFeasibleCut, match=r"'u1' in the tail, because the private tensor 't1' keeps 'u1' in"
    ):
        min_cut_oracle(costs, Limits(private=frozenset({1}), pin_tail=frozenset({1})))
