"""The frontier is complete, and nothing in it is superfluous."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import Cut, make_cut
from splitc.solve.directions import best_oracle
from splitc.solve.frontier import frontier
from splitc.solve.mincut import min_cut_oracle
from splitc.solve.space import FloatArray, make_space
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=120)
given_directions = pytest.mark.parametrize(
    "directions",
    [["device-first"], ["cloud-first"], ["device-first", "cloud-first"]],
    ids=["device-first", "cloud-first", "both"],
)
POINT = Box((1.0, 1.0), (1.0, 1.0), (1e6, 1e6), (1e6, 1e6), (0.01, 0.01))


def find(
    costs: Costs,
    box: Box,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    directions: Sequence[Direction] = ("device-first",),
) -> tuple[Cut, ...]:
    whole = make_cut(costs, frozenset(range(len(costs.graph.units))))
    is_wanted = whole.placement not in limits.left_out
    all_head = whole if is_wanted and whole in oracle.feasible_cuts(costs, limits) else None
    oracle_of_all = best_oracle(costs, limits, directions)
    return frontier(make_space(costs.graph, box, directions), oracle_of_all, all_head)


def check(found: tuple[Cut, ...], cuts: list[Cut], box: Box, seed: int) -> None:
    prices = oracle.random_prices(box, 100, seed)
    best, ours = ((prices @ oracle.amounts(some).T).min(axis=1) for some in (cuts, found))
    assert np.all(ours <= best * (1 + 1e-8))
    vectors = {tuple(row) for row in oracle.amounts(found)}
    assert len(vectors) == len(found)
    # Between 0 and 1e-7 a cut is a matter of taste.
    margins = oracle.exhaustive_margins(cuts, box)
    needed = {tuple(oracle.amounts([cut])[0]) for cut, margin in margins if margin > 1e-7}
    assert needed <= vectors
    for at, row in enumerate(oracle.amounts(found)):
        others = np.delete(oracle.amounts(found), at, axis=0)
        assert not len(others) or oracle.worst_ratio(others, row, box) > 1.0 - 1e-9


@given_directions
@SETTINGS
@given(graphs.costs(7), graphs.boxes(), st.integers(0, 2**32))
def test_equals_the_exhaustive_frontier(
    directions: Sequence[Direction], costs: Costs, box: Box, seed: int
) -> None:
    found = find(costs, box, directions=directions)
    check(found, oracle.feasible_cuts(costs, directions=directions), box, seed)


@given_directions
@SETTINGS
@given(graphs.costs(7), graphs.boxes(), st.integers(0, 2**32))
def test_equals_the_exhaustive_frontier_under_pins(
    directions: Sequence[Direction], costs: Costs, box: Box, seed: int
) -> None:
    limits = graphs.random_limits(costs, seed)
    cuts = oracle.feasible_cuts(costs, limits, directions)
    if not cuts:
        with pytest.raises(NoFeasibleCut):
            find(costs, box, limits, directions)
        return
    check(find(costs, box, limits, directions), cuts, box, seed)


@given_directions
@settings(SETTINGS, max_examples=40)
@given(graphs.costs(6), graphs.boxes(), st.integers(0, 2**32), st.booleans())
def test_equals_the_exhaustive_frontier_of_what_is_not_left_out(
    directions: Sequence[Direction], costs: Costs, box: Box, seed: int, limited: bool
) -> None:
    limits = graphs.random_limits(costs, seed) if limited else Limits()
    cuts = oracle.feasible_cuts(costs, limits, directions)
    random = np.random.default_rng(seed)
    best = find(costs, box, limits, directions) if cuts else ()
    unwanted = [
        *(cut for cut in cuts if random.random() < 0.3),
        *(cut for cut in best if random.random() < 0.7),
    ]
    limits = replace(limits, left_out=frozenset(cut.placement for cut in unwanted))
    left = [cut for cut in cuts if cut not in unwanted]
    if not left:
        with pytest.raises(NoFeasibleCut):
            find(costs, box, limits, directions)
        return
    found = find(costs, box, limits, directions)
    assert not limits.left_out.intersection(cut.placement for cut in found)
    check(found, left, box, seed)


@given_directions
@settings(SETTINGS, max_examples=15)
@given(graphs.costs(12), graphs.boxes(), st.integers(0, 2**32))
def test_envelope_of_larger_graphs(
    directions: Sequence[Direction], costs: Costs, box: Box, seed: int
) -> None:
    prices = oracle.random_prices(box, 300, seed)
    every, found = oracle.feasible_cuts(costs, directions=directions), find(costs, box, directions=directions)
    best, ours = ((prices @ oracle.amounts(some).T).min(axis=1) for some in (every, found))
    assert np.all(ours <= best * (1 + 1e-8))


@settings(SETTINGS, max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 30), st.booleans())
@example(seed=0, units=30, regular=True)
def test_chains_with_many_near_ties(seed: int, units: int, regular: bool) -> None:
    """Cost vectors on or a hair beside one line or curve: the hard case for vertices in floating point."""
    random = np.random.default_rng(seed)
    jitter = np.zeros(units) if regular else random.choice([0.0, 1e-15, 1e-11, 1e-9, 1e-7], units)
    device_s = 0.01 * (1.0 + jitter)
    sizes = np.round(10_000 * (1.0 - np.linspace(0, 0.9, units + 1) ** random.choice([1, 1, 2])))
    costs = graphs.chain(device_s.tolist(), [0.001] * units, [int(size) for size in sizes])
    cuts = [make_cut(costs, frozenset(range(length))) for length in range(units + 1)]
    whole = make_cut(costs, frozenset(range(units)))
    found = frontier(make_space(costs.graph, Box()), min_cut_oracle(costs, Limits()), whole)
    check(found, cuts, Box(), seed)


def test_a_box_that_is_a_point_has_one_cut() -> None:
    costs = graphs.chain([0.01, 0.5], [0.001, 0.01], [10_000, 100, 4])
    assert [cut.head for cut in find(costs, POINT)] == [{0}]


def test_a_slow_link_leaves_all_head_only() -> None:
    costs = graphs.chain([1e-4, 1e-4], [1e-5, 1e-5], [10_000, 10_000, 4])
    assert [cut.kind for cut in find(costs, Box())] == ["all-head"]


def test_all_head_is_left_out_where_it_never_wins() -> None:
    costs = graphs.chain([10.0, 10.0], [1e-5, 1e-5], [100, 100, 4])
    assert "all-head" not in [cut.kind for cut in find(costs, Box())]


def test_all_head_may_be_the_only_feasible_cut() -> None:
    costs = graphs.chain([10.0, 10.0], [1e-5, 1e-5], [100, 100, 4])
    assert [cut.kind for cut in find(costs, Box(), Limits(pin_device=frozenset({1})))] == ["all-head"]


def test_a_cut_that_is_best_only_on_a_rim_is_dropped() -> None:
    # Three cuts on one line tie at the highest prices, and this oracle returns the middle one there.
    costs = graphs.chain([0.01, 0.01, 9.0], [0.001, 0.001, 0.001], [4000, 3000, 2000, 4])
    cuts = oracle.feasible_cuts(costs, Limits(pin_cloud=frozenset({2})))

    def middle_first(prices: FloatArray) -> Cut:
        latencies = oracle.amounts(cuts)[:, :4] @ prices
        ties = [cut for cut, s in zip(cuts, latencies, strict=True) if s <= latencies.min() * (1 + 1e-12)]
        return ties[len(ties) // 2]

    box = Box((0.5, 1.0), (1.0, 2.0), (1e6, 1e7), (1e6, 1e7), (0.01, 0.1))
    space = make_space(costs.graph, box)
    assert middle_first(space.oracle_prices(np.ones(3))).head == {0}
    assert [cut.head for cut in frontier(space, middle_first, None)] == [{0, 1}, frozenset()]


def test_order_and_repetition() -> None:
    costs = graphs.random_costs(6, 12, single_output=False)
    once, twice = find(costs, Box()), find(costs, Box())
    assert once == twice
    offloading = [cut.cloud_s for cut in once if cut.offloads]
    assert len(offloading) > 2
    assert offloading == sorted(offloading)


@SETTINGS
@given(graphs.costs(7), graphs.boxes())
def test_a_cloud_first_cut_costs_what_no_device_first_cut_does(costs: Costs, box: Box) -> None:
    found = find(costs, box, directions=["device-first", "cloud-first"])
    device_first = {tuple(row) for row in oracle.amounts(oracle.feasible_cuts(costs))}
    cloud_first = [cut for cut in found if cut.direction == "cloud-first"]
    assert device_first.isdisjoint(map(tuple, oracle.amounts(cloud_first)))


def test_what_both_directions_allow_is_device_first() -> None:
    # Two units that know nothing of each other: one is dear to send, the other to run on the device.
    graph = graphs.make_graph([[0], [1]], [10**9, 10, 10, 10], inputs=2)
    costs = Costs(graph, (0.1, 90.0), (0.1, 0.1))
    ways: list[Sequence[Direction]] = [["device-first"], ["cloud-first"], ["device-first", "cloud-first"]]
    for directions in ways:
        (found,) = find(costs, Box(), directions=directions)
        assert found.device == {0}
        assert found.direction == directions[0]


@pytest.mark.parametrize(
    "box", [Box(rtt_s=(0.2, 0.1)), Box(uplink_bps=(0.0, 1e6)), Box(device_slowdown=(-1.0, 1.0))]
)
def test_refuses_an_empty_or_negative_range(box: Box) -> None:
    with pytest.raises(ValueError, match=r"box|link rate"):
        make_space(graphs.diamond().graph, box)
