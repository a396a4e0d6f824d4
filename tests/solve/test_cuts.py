"""A cut's costs are what a direct count gives."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.errors import TargetError
from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, energy_j, is_closure, make_cut, meets_budgets
from tests import graphs, oracle

DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")
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
    assert cut.device_s == pytest.approx(0.03)
    assert cut.cloud_s == pytest.approx(0.007)
    assert cut.device_weight_bytes == 100 + 20  # w0 is shared by u0 and u1
    assert cut.cloud_weight_bytes == 20 + 3  # w1 is needed on both sides
    assert cut.device_peak_bytes == 120 + 1000 + 400 + 200


def test_scratch_and_released_tensors_count_while_they_live() -> None:
    costs = graphs.diamond()
    whole = make_cut(costs, frozenset(range(4)))
    # While u2 runs: raw input (u3 reads it), t1, the early output t2, its own t3, 5000 of scratch.
    assert whole.device_peak_bytes == 123 + 1000 + 400 + 200 + 50 + 5000


def test_a_tensor_is_released_after_its_last_reader() -> None:
    costs = graphs.chain([1, 1, 1], [1, 1, 1], [1000, 10, 500, 1])
    assert make_cut(costs, frozenset({0, 1, 2})).device_peak_bytes == 1010
    assert make_cut(costs, frozenset({0, 1})).device_peak_bytes == 1010


def test_kinds() -> None:
    costs = graphs.diamond()
    all_tail, all_head = make_cut(costs, frozenset()), make_cut(costs, frozenset(range(4)))
    assert (all_tail.kind, all_tail.boundary, all_tail.device_peak_bytes) == ("all-tail", (0,), 0)
    assert (all_head.kind, all_head.boundary, all_head.downlink_bytes) == ("all-head", (), 0)
    assert all_tail.offloads
    assert not all_head.offloads


def test_refuses_what_is_no_closure() -> None:
    with pytest.raises(ValueError, match="closure"):
        make_cut(graphs.diamond(), frozenset({1}))


def test_refuses_to_send_what_has_no_size() -> None:
    graph = graphs.make_graph([[0], [1]], [None, 8, 8], device_only=[0])
    costs = Costs(graph, (1.0, 1.0), (1.0, 1.0))
    for head, direction in ((frozenset[int](), DIRECTIONS[0]), (frozenset({0}), DIRECTIONS[1])):
        with pytest.raises(ValueError, match="'t0' has no known size"):
            make_cut(costs, head, direction)
    assert make_cut(costs, frozenset({0})).uplink_bytes == 8


def test_cloud_first_by_hand() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}), "cloud-first")
    assert (cut.kind, cut.direction) == ("split", "cloud-first")
    assert (cut.head, cut.device) == (frozenset({0, 1}), frozenset({2, 3}))
    assert cut.boundary == (1, 2)  # the raw input that u3 reads is on the device
    assert cut.uplink_bytes == 1000
    assert cut.downlink_bytes == 400 + 200  # t2 once, though it is an output and u3 reads it
    assert cut.device_s == pytest.approx(0.07)
    assert cut.cloud_s == pytest.approx(0.003)
    assert cut.device_weight_bytes == 20 + 3
    assert cut.cloud_weight_bytes == 100 + 20
    # While u2 runs: the raw input and t2 for u3, t1, its own t3, 5000 of scratch.
    assert cut.device_peak_bytes == 23 + 1000 + 400 + 200 + 50 + 5000


def test_what_was_received_is_released_after_its_last_reader_unless_it_is_returned() -> None:
    reads, nbytes = [[0], [1], [2], [3]], [1000, 300, 20, 2, 1]
    graph = graphs.make_graph(reads, nbytes)
    returned = graphs.make_graph(reads, nbytes, outputs=[1])
    peaks = [
        make_cut(Costs(g, (0.0,) * 4, (0.0,) * 4), frozenset({0}), "cloud-first").device_peak_bytes
        for g in (graph, returned)
    ]
    assert peaks == [300 + 20, 300 + 20 + 2]


def test_a_cloud_first_cut_with_an_empty_part_is_all_head_or_all_tail() -> None:
    costs = graphs.diamond()
    whole = frozenset(range(4))
    assert make_cut(costs, frozenset(), "cloud-first") == make_cut(costs, whole)
    assert make_cut(costs, whole, "cloud-first") == make_cut(costs, frozenset())


def test_iterations_that_share_weights_hold_them_once() -> None:
    costs = graphs.iterations(5)
    for direction in DIRECTIONS:
        cut = make_cut(costs, frozenset({0, 1, 2}), direction)
        device, cloud = (1000 + 70, 1000 + 5) if direction == "device-first" else (1000 + 5, 1000 + 70)
        assert (cut.device_weight_bytes, cut.cloud_weight_bytes) == (device, cloud)
        assert cut.device_peak_bytes == oracle.peak_bytes(costs.graph, cut.head, direction)
    assert make_cut(costs, frozenset(range(7))).device_weight_bytes == 70 + 1000 + 5


@SETTINGS
@given(graphs.costs(9), st.sampled_from(DIRECTIONS))
def test_every_closure_is_priced_like_a_direct_count(costs: Costs, direction: Direction) -> None:
    graph = costs.graph
    for head in oracle.closures(graph):
        assert is_closure(graph, head)
        cut = make_cut(costs, head, direction)
        rest = frozenset(range(len(graph.units))) - head
        if not (head and rest):
            assert cut.direction == "device-first"
            continue
        check_counts(costs, cut, *((head, rest) if direction == "device-first" else (rest, head)))


def check_counts(costs: Costs, cut: Cut, device: frozenset[int], cloud: frozenset[int]) -> None:
    graph = costs.graph
    sent, received = oracle.sent_and_received(graph, cut.head, cut.direction)
    inputs = {t for t, tensor in enumerate(graph.tensors) if tensor.producer is None}
    crossing = set(oracle.crossing(graph, cut.head)) - (inputs if cut.direction == "cloud-first" else set())
    assert (cut.device, set(cut.boundary)) == (device, crossing)
    assert list(cut.boundary) == sorted(cut.boundary)
    assert cut.uplink_bytes == sum(graph.tensors[t].nbytes or 0 for t in sent)
    assert cut.downlink_bytes == sum(graph.tensors[t].nbytes or 0 for t in received)
    device_s = sum(costs.device_s[u] for u in device) + costs.device_fixed_s * bool(device)
    cloud_s = sum(costs.cloud_s[u] for u in cloud) + costs.cloud_fixed_s * bool(cloud)
    assert cut.device_s == pytest.approx(device_s)
    assert cut.cloud_s == pytest.approx(cloud_s)
    assert cut.device_peak_bytes == oracle.peak_bytes(graph, cut.head, cut.direction)


@SETTINGS
@given(graphs.costs(9), st.integers(0, 2**9 - 1))
def test_is_closure_agrees_with_enumeration(costs: Costs, bits: int) -> None:
    units = frozenset(u for u in range(len(costs.graph.units)) if bits >> u & 1)
    assert is_closure(costs.graph, units) == (units in oracle.closures(costs.graph))


def test_budgets_include_the_limit_itself() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}))
    met = Limits(
        max_device_weight_bytes=cut.device_weight_bytes,
        max_device_peak_bytes=cut.device_peak_bytes,
        max_payload_bytes=cut.uplink_bytes,
        max_energy_j=energy_j(costs, cut),
    )
    assert meets_budgets(costs, cut, met)
    assert not meets_budgets(costs, cut, replace(met, max_device_weight_bytes=cut.device_weight_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_device_peak_bytes=cut.device_peak_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_payload_bytes=cut.uplink_bytes - 1))
    assert not meets_budgets(costs, cut, replace(met, max_energy_j=energy_j(costs, cut) * 0.999))


def test_energy_by_hand_and_its_absence() -> None:
    costs = graphs.diamond()
    cut = make_cut(costs, frozenset({0, 1}))
    assert energy_j(costs, cut) == pytest.approx(2.0 * 0.03 + 1e-6 * 1600 + 5e-7 * 10)
    with pytest.raises(TargetError, match="energy"):
        energy_j(replace(costs, energy=None), cut)


def test_seconds_are_rounded_once() -> None:
    """Python's own sum rounds after each unit before 3.12, and less since: the same model, other bytes."""
    costs = graphs.chain([0.1] * 11, [0.1] * 11, [8] * 12)
    cut = make_cut(costs, frozenset(range(10)))
    assert cut.device_s == 1.0
    assert make_cut(costs, frozenset({0})).cloud_s == 1.0
