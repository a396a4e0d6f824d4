"""A cut's costs are what a direct count gives."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.costs import Costs, Limits
from splitc.cuts import boundary, energy_j, is_closure, make_cut, meets_budgets
from splitc.errors import TargetError
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


def test_diamond_by_hand() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}))
    assert cut.kind == "split"
    assert cut.boundary == (
        0,
        1,
        2,
    )  # the raw input is read again; u0's result once, though two units read it
    assert cut.uplink_bytes == 1000 + 400 + 200
    assert cut.downlink_bytes == 10  # the early output is already home
    assert cut.head_s == pytest.approx(0.03)
    assert cut.tail_s == pytest.approx(0.007)
    assert cut.head_weight_bytes == 100 + 20  # w0 is shared by u0 and u1
    assert cut.tail_weight_bytes == 20 + 3  # w1 is needed on both sides
    assert cut.head_peak_bytes == 120 + 1000 + 400 + 200


def test_scratch_and_released_tensors_count_while_they_live() -> None:
    costs = graphs.diamond()
    whole = make_cut(costs, frozenset(range(4)))
    # While u2 runs: raw input (u3 reads it), t1, the early output t2, its own t3, 5000 of scratch.
    assert whole.head_peak_bytes == 123 + 1000 + 400 + 200 + 50 + 5000


def test_a_tensor_is_released_after_its_last_reader() -> None:
    costs = graphs.chain([1, 1, 1], [1, 1, 1], [1000, 10, 500, 1])
    assert make_cut(costs, frozenset({0, 1, 2})).head_peak_bytes == 1010
    assert make_cut(costs, frozenset({0, 1})).head_peak_bytes == 1010


def test_kinds() -> None:
    costs = graphs.diamond()
    all_tail, all_head = make_cut(costs, frozenset()), make_cut(costs, frozenset(range(4)))
    assert (all_tail.kind, all_tail.boundary, all_tail.head_peak_bytes) == ("all-tail", (0,), 0)
    assert (all_head.kind, all_head.boundary, all_head.downlink_bytes) == ("all-head", (), 0)
    assert all_tail.offloads
    assert not all_head.offloads


def test_refuses_what_is_no_closure() -> None:
    with pytest.raises(ValueError, match="closure"):
        make_cut(graphs.diamond(), frozenset({1}))


def test_refuses_to_send_what_has_no_size() -> None:
    graph = graphs.make_graph([[0], [1]], [None, 8, 8], device_only=[0])
    costs = Costs(graph, (1.0, 1.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="'t0' has no known size"):
        make_cut(costs, frozenset())
    assert make_cut(costs, frozenset({0})).uplink_bytes == 8


@SETTINGS
@given(graphs.costs(9))
def test_every_closure_is_priced_like_a_direct_count(costs: Costs) -> None:
    graph = costs.graph
    for head in oracle.closures(graph):
        cut = make_cut(costs, head)
        tail = set(range(len(graph.units))) - head
        assert is_closure(graph, head)
        assert list(cut.boundary) == oracle.crossing(graph, head) == list(boundary(graph, head))
        assert cut.uplink_bytes == sum(graph.tensors[t].nbytes or 0 for t in oracle.crossing(graph, head))
        home = [t for t in graph.tensors if t.is_output and t.producer not in tail]
        assert cut.downlink_bytes == sum(
            t.nbytes or 0 for t in graph.tensors if t.is_output and t not in home
        )
        assert cut.head_s == pytest.approx(
            sum(costs.head_s[u] for u in head) + costs.head_fixed_s * bool(head)
        )
        assert cut.tail_s == pytest.approx(
            sum(costs.tail_s[u] for u in tail) + costs.tail_fixed_s * bool(tail)
        )
        assert cut.head_peak_bytes == oracle.peak_bytes(graph, head)


@SETTINGS
@given(graphs.costs(9), st.integers(0, 2**9 - 1))
def test_is_closure_agrees_with_enumeration(costs: Costs, bits: int) -> None:
    units = frozenset(u for u in range(len(costs.graph.units)) if bits >> u & 1)
    assert is_closure(costs.graph, units) == (units in oracle.closures(costs.graph))


def test_budgets_include_the_limit_itself() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}))
    met = Limits(
        max_head_weight_bytes=cut.head_weight_bytes,
        max_head_peak_bytes=cut.head_peak_bytes,
        max_payload_bytes=cut.uplink_bytes,
        max_energy_j=energy_j(costs, cut),
    )
    assert meets_budgets(costs, cut, met)
    assert not meets_budgets(costs, cut, replace(met, max_head_weight_bytes=cut.head_weight_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_head_peak_bytes=cut.head_peak_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_payload_bytes=cut.uplink_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_energy_j=energy_j(costs, cut) * 0.999))


def test_energy_by_hand_and_its_absence() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}))
    assert energy_j(costs, cut) == pytest.approx(2.0 * 0.03 + 1e-6 * 1600 + 5e-7 * 10)
    with pytest.raises(TargetError, match="energy"):
        energy_j(replace(costs, energy=None), cut)
