"""The minimum cut is the best of all closures at any prices."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import Cut
from splitc.solve.mincut import latency_s, min_cut_oracle
from tests import graphs, oracle

DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")
SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)


MOST_CLOSURES = st.sampled_from([0, 4, 2048])  # 0: each section is a network, 2048: each is a list


def check_best(
    costs: Costs, limits: Limits, cuts: list[Cut], seed: int, direction: Direction, most_closures: int
) -> None:
    solver = min_cut_oracle(costs, limits, direction, most_closures=most_closures)
    for prices in oracle.random_prices(Box(), 6, seed)[:12, :4]:
        found = solver(prices)
        assert found in cuts
        assert latency_s(found, prices) == pytest.approx(min(oracle.amounts(cuts)[:, :4] @ prices), rel=1e-8)


@pytest.mark.parametrize("direction", DIRECTIONS)
@SETTINGS
@given(graphs.costs(10), st.integers(0, 2**32), MOST_CLOSURES)
def test_is_best_of_all_closures(direction: Direction, costs: Costs, seed: int, most_closures: int) -> None:
    cuts = oracle.feasible_cuts(costs, directions=[direction])
    check_best(costs, Limits(), cuts, seed, direction, most_closures)


@pytest.mark.parametrize("direction", DIRECTIONS)
@SETTINGS
@given(graphs.costs(10), st.integers(0, 2**32), MOST_CLOSURES)
def test_is_best_under_pins_and_privacy(
    direction: Direction, costs: Costs, seed: int, most_closures: int
) -> None:
    limits = graphs.random_limits(costs, seed)
    assume(limits != Limits())
    cuts = oracle.feasible_cuts(costs, limits, [direction])
    if cuts:
        check_best(costs, limits, cuts, seed, direction, most_closures)
    else:
        with pytest.raises(NoFeasibleCut, match="drop one of the two"):
            min_cut_oracle(costs, limits, direction)


def test_keeps_the_readers_of_what_cannot_be_sent_on_the_device() -> None:
    graph = graphs.make_graph([[0], [1], [2]], [None, 8, 8, 8], device_only=[0])
    solver = min_cut_oracle(Costs(graph, (9.0, 9.0, 9.0), (0.0, 0.0, 0.0)), Limits())
    assert solver(np.ones(4) * 1e-3).head == {0}
    # What can be sent is read later than what cannot: a head in the cloud does without the latter.
    graph = graphs.make_graph([[1], [0, 2], [3]], [None, 8, 8, 8, 8], inputs=2, device_only=[1])
    solver = min_cut_oracle(Costs(graph, (9.0, 9.0, 9.0), (0.0, 0.0, 0.0)), Limits(), "cloud-first")
    assert solver(np.array([1.0, 1.0, 1e-3, 1e-3])).head == {0}


def test_fan_out_is_paid_once() -> None:
    # Two readers of one tensor: sending it costs 10, running both readers elsewhere 12, sending it twice
    # would be 20.
    graph = graphs.make_graph([[0], [1], [1]], [1000, 10, 0, 0])
    solver = min_cut_oracle(Costs(graph, (0.0, 6.0, 6.0), (0.0, 0.0, 0.0)), Limits())
    assert solver(np.ones(4)).head == {0}
    graph = graphs.make_graph([[0], [1], [1]], [0, 10, 0, 0])
    solver = min_cut_oracle(Costs(graph, (90.0, 0.0, 0.0), (0.0, 6.0, 6.0)), Limits(), "cloud-first")
    assert solver(np.ones(4)).head == {0}


def test_a_raw_input_is_sent_once_and_an_output_received_once() -> None:
    # Both readers of the input run in the cloud: 10 to send it, 12 to keep one of them, 20 to send it twice.
    graph = graphs.make_graph([[0], [0], [1, 2]], [10, 0, 0, 0])
    solver = min_cut_oracle(Costs(graph, (12.0, 12.0, 0.0), (0.0, 0.0, 99.0)), Limits(), "cloud-first")
    assert solver(np.ones(4)).head == {0, 1}
    # u0's result is an output, and read on the device: 10 to receive it, 12 to make it there.
    graph = graphs.make_graph([[0], [1]], [0, 10, 0], outputs=[1])
    solver = min_cut_oracle(Costs(graph, (12.0, 0.0), (0.0, 99.0)), Limits(), "cloud-first")
    assert solver(np.ones(4)).head == {0}


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(SETTINGS, max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_lists_and_networks_find_the_same_cuts(direction: Direction, seed: int, at: int) -> None:
    """On graphs too large to enumerate."""
    costs = graphs.random_costs(seed, 60, single_output=False)
    one, other = (min_cut_oracle(costs, Limits(), direction, most_closures=most) for most in (0, 2048))
    for prices in oracle.random_prices(Box(), 6, at)[:12, :4]:
        assert latency_s(one(prices), prices) == pytest.approx(latency_s(other(prices), prices), rel=1e-8)


@pytest.mark.parametrize("most_closures", [0, 2048])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ties_go_to_the_smallest_part_on_the_device(direction: Direction, most_closures: int) -> None:
    costs = graphs.chain([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [8, 8, 8, 8])
    solver = min_cut_oracle(costs, Limits(), direction, most_closures=most_closures)
    assert solver(np.array([1.0, 1.0, 0.0, 0.0])).device == frozenset()


@pytest.mark.parametrize("most_closures", [0, 2048])
def test_finds_a_gain_that_a_coarse_scale_rounds_away(most_closures: int) -> None:
    # All-head and all-tail take 1000 s; u1 gains 10 ns of 1 ms in the head. u3 reads the model input only, so that
    # all four units are one section.
    reads = [[0], [1], [2], [0]]
    graph = graphs.make_graph(reads, [8, 8, 8, 8, 8])
    costs = Costs(graph, (0.0, 1.0e-3, 1e3, 0.0), (1e3, 1.00001e-3, 0.0, 0.0))
    solver = min_cut_oracle(costs, Limits(), most_closures=most_closures)
    assert solver(np.array([1.0, 1.0, 1e-9, 0.0])).head - {3} == {0, 1}


def test_conflicting_pins_name_both_units_and_the_reason() -> None:
    costs = graphs.chain([1, 1, 1], [1, 1, 1], [8, 8, 8, 8])
    device_last = Limits(pin_device=frozenset({2}), pin_cloud=frozenset({0}))
    with pytest.raises(
        NoFeasibleCut,
        match=r"'u0' in the cloud, because --pin-device keeps 'u2' on the device, which needs 'u0'",
    ):
        min_cut_oracle(costs, device_last)
    assert min_cut_oracle(costs, device_last, "cloud-first")(np.ones(4)).head in ({0}, {0, 1})
    device_early = Limits(private=frozenset({1}), pin_cloud=frozenset({2}))
    with pytest.raises(
        NoFeasibleCut,
        match=r"'u2' in the cloud, because the private tensor 't1' keeps 'u1' on the device, which 'u2' needs",
    ):
        min_cut_oracle(costs, device_early, "cloud-first")
    assert min_cut_oracle(costs, device_early)(np.ones(4)).head == {0, 1}
    for direction in DIRECTIONS:
        with pytest.raises(NoFeasibleCut, match=r"the private tensor 't1' keeps 'u1' on the device; drop"):
            min_cut_oracle(costs, Limits(private=frozenset({1}), pin_cloud=frozenset({1})), direction)
