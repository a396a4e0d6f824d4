"""Prices and amounts: their product is the latency, with or without a downlink of its own."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.kinds import Direction
from splitc.solve.costs import Box, Costs
from splitc.solve.space import make_space
from tests import graphs, oracle

DIRECTIONS: list[Sequence[Direction]] = [["device-first"], ["device-first", "cloud-first"]]


def test_one_output_needs_no_price_of_the_downlink() -> None:
    space = make_space(graphs.chain([1, 1], [1, 1], [8, 8, 1000]).graph, Box())
    assert not space.keeps_downlink
    assert space.low[-1] == pytest.approx(0.001 + 1000 * 8 / 1e9)
    assert space.high[-1] == pytest.approx(0.3 + 1000 * 8 / 1e6)


@pytest.mark.parametrize(
    ("sizes", "kept"), [([8, 8, 5, 7], True), ([8, 8, 5, 0], True), ([8, 8, 0, 0], False)]
)
def test_two_ends_differ_in_what_they_return(sizes: list[int], kept: bool) -> None:
    graph = graphs.make_graph([[0], [1], [1]], sizes)
    assert make_space(graph, Box()).keeps_downlink == kept


def test_an_early_output_keeps_the_downlink() -> None:
    assert make_space(graphs.diamond().graph, Box()).keeps_downlink


def test_cloud_first_cuts_keep_the_downlink() -> None:
    graph = graphs.chain([1, 1], [1, 1], [8, 8, 1000]).graph
    assert make_space(graph, Box(), ["cloud-first"]).keeps_downlink
    assert make_space(graph, Box(), ["device-first", "cloud-first"]).keeps_downlink


@settings(derandomize=True, deadline=None, max_examples=60)
@given(graphs.costs(7), graphs.boxes(), st.sampled_from(DIRECTIONS))
def test_the_product_is_the_latency(costs: Costs, box: Box, directions: Sequence[Direction]) -> None:
    space = make_space(costs.graph, box, directions)
    cuts = oracle.feasible_cuts(costs, directions=directions)
    for end, scaled in ((0, space.scaled_low()), (1, np.ones(len(space.low)))):
        expected = oracle.amounts(cuts) @ oracle.price_range(box)[end]
        assert space.scaled_amounts(cuts) @ scaled == pytest.approx(expected)
