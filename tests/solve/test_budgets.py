"""Under budgets the program's cut is the best of all closures that keep them."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.errors import NoFeasibleCut, TargetError
from splitc.common.kinds import Direction
from splitc.solve.budgets import budget_oracle
from splitc.solve.costs import Box, Costs, Energy, Limits
from splitc.solve.cuts import Cut, energy_j
from splitc.solve.milp import best_cut, make_program
from splitc.solve.mincut import latency_s
from splitc.solve.pins import make_pins
from splitc.solve.solve import solve
from splitc.solve.space import FloatArray
from tests import graphs, oracle

Directions = Sequence[Direction]
DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")
SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)
PRICES = np.array([1e4, 1.0, 1e-6, 1e-7])
BUDGETS = {
    "max_device_weight_bytes": "device_weight_bytes",
    "max_device_peak_bytes": "device_peak_bytes",
    "max_payload_bytes": "uplink_bytes",
}


def binding_limits(
    costs: Costs, names: list[str], seed: int, pins: Limits, directions: Directions = ("device-first",)
) -> Limits:
    """Limits drawn between the least and the most that any cut needs, so that they exclude some cuts."""
    random = Random(seed)
    cuts = oracle.feasible_cuts(costs, directions=directions)
    drawn: dict[str, Any] = {}
    for name in names:
        needs = [energy_j(costs, c) if name == "max_energy_j" else getattr(c, BUDGETS[name]) for c in cuts]
        drawn[name] = random.choice(sorted(needs))
    return replace(pins, **drawn)


def check_best(costs: Costs, limits: Limits, seed: int, direction: Direction) -> None:
    plain = replace(costs, device_fixed_s=0.0, cloud_fixed_s=0.0)
    pins = make_pins(costs.graph, limits, direction)
    program = make_program(plain, limits, pins, direction)
    for prices in oracle.random_prices(Box(), 2, seed)[:3, :4]:
        if cuts := oracle.feasible_cuts(plain, limits, [direction]):
            best = min(oracle.amounts(cuts)[:, :4] @ prices)
            check_cut(best_cut(program, prices, at_least_s=best), cuts, prices)
        else:
            assert best_cut(program, prices) is None
        if cuts := oracle.feasible_cuts(costs, limits, [direction]):
            check_cut(budget_oracle(costs, limits, direction)(prices), cuts, prices)
        else:
            with pytest.raises(NoFeasibleCut):
                budget_oracle(costs, limits, direction)


def check_cut(found: Cut | None, cuts: list[Cut], prices: FloatArray) -> None:
    assert found is not None
    assert found in cuts
    assert latency_s(found, prices) == pytest.approx(min(oracle.amounts(cuts)[:, :4] @ prices), rel=1e-7)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", [*BUDGETS, "max_energy_j"])
@SETTINGS
@given(graphs.costs(8), st.integers(0, 2**32))
def test_each_budget(name: str, direction: Direction, costs: Costs, seed: int) -> None:
    check_best(costs, binding_limits(costs, [name], seed, Limits(), [direction]), seed, direction)


@pytest.mark.parametrize("direction", DIRECTIONS)
@SETTINGS
@given(graphs.costs(8), st.integers(0, 2**32))
def test_all_budgets_and_pins_together(direction: Direction, costs: Costs, seed: int) -> None:
    pins = graphs.random_limits(costs, seed)
    if not oracle.feasible_cuts(costs, pins, [direction]):
        pins = Limits()
    limits = binding_limits(costs, [*BUDGETS, "max_energy_j"], seed, pins, [direction])
    check_best(costs, limits, seed, direction)


@pytest.mark.parametrize("directions", [DIRECTIONS[:1], DIRECTIONS], ids=["device-first", "both"])
@settings(SETTINGS, max_examples=25)
@given(graphs.costs(7), st.integers(0, 2**32))
def test_the_cut_set_keeps_budgets_and_misses_no_cut(directions: Directions, costs: Costs, seed: int) -> None:
    names = ["max_device_weight_bytes", "max_payload_bytes"]
    limits = binding_limits(costs, names, seed, graphs.random_limits(costs, seed), directions)
    cuts = oracle.feasible_cuts(costs, limits, directions)
    if not cuts:
        with pytest.raises(NoFeasibleCut):
            solve(costs, Box(), limits, directions=directions)
        return
    solved = solve(costs, Box(), limits, directions=directions)
    assert set(solved.cuts) | set(solved.frontier) <= set(cuts)
    prices = oracle.random_prices(Box(), 100, seed)
    best, ours = ((prices @ oracle.amounts(some).T).min(axis=1) for some in (cuts, solved.frontier))
    assert np.all(ours <= best * (1 + 1e-6))


def test_a_limit_is_kept_to_the_byte() -> None:
    # One byte in 1e9 is far below the tolerance of the solver.
    costs = graphs.chain([1.0, 1.0], [0.0, 0.0], [10**9, 10**9 - 1, 4])
    assert budget_oracle(costs, Limits(max_payload_bytes=10**9))(PRICES).head == frozenset()
    assert budget_oracle(costs, Limits(max_payload_bytes=10**9 - 1))(PRICES).head == {0}
    assert budget_oracle(costs, Limits(max_payload_bytes=10**9 - 2))(PRICES).head == {0, 1}


def test_a_pipeline_is_cut_between_iterations() -> None:
    # The image stays on the device, which has the energy for its decoder and ten of fifty iterations.
    costs = replace(graphs.iterations(50, device_s=0.2, cloud_s=0.05), energy=Energy(1.0, 0.0, 0.0))
    image = len(costs.graph.tensors) - 1
    limits = Limits(private=frozenset({image}), max_energy_j=0.5 * 0.2 + 10 * 0.2 + 1e-9)
    solved = solve(costs, Box(), limits, directions=DIRECTIONS)
    assert {cut.direction for cut in solved.cuts} == {"cloud-first"}
    assert [len(cut.device) for cut in solved.frontier] == [11, 1]
    assert {cut.device_weight_bytes for cut in solved.frontier} == {1000 + 5, 5}


def message(costs: Costs, limits: Limits) -> str:
    with pytest.raises(NoFeasibleCut) as caught:
        solve(costs, Box(), limits)
    return str(caught.value)


def test_names_the_budget_that_alone_excludes_everything() -> None:
    costs = graphs.diamond()
    pinned = Limits(pin_device=frozenset({1}))
    assert message(costs, replace(pinned, max_device_weight_bytes=100)) == (
        "no cut keeps weights on the device under 100 bytes: the least possible with these pins is 120 bytes; "
        "raise --max-device-weights or drop a pin"
    )
    assert (
        "memory on the device under 1 kB: the least possible with these pins is 1.72 kB; raise --max-device-memory"
        in message(costs, replace(pinned, max_device_peak_bytes=1000))
    )
    assert (
        "the payload under 999 bytes: the least possible with these pins is 1 kB; raise --max-payload"
        in message(costs, Limits(pin_cloud=frozenset({0}), max_payload_bytes=999))
    )
    assert message(costs, Limits(max_energy_j=1e-4)) == (
        "no cut keeps the device's energy under 0.0001 J: the least possible is 0.001105 J; "
        "raise --max-energy"
    )


def test_names_a_combination_that_excludes_everything() -> None:
    costs = graphs.diamond()
    found = message(costs, Limits(max_payload_bytes=900, max_device_weight_bytes=122))
    assert found == (
        "no cut meets --max-device-weights 122 bytes and --max-payload 900 bytes together, "
        "though each alone can be met; raise one"
    )


def test_of_two_directions_each_says_what_excludes_its_cuts() -> None:
    costs = graphs.chain([1, 1, 1], [1, 1, 1], [1000, 400, 300, 200])
    ends_on_device = Limits(pin_device=frozenset({0, 2}), pin_cloud=frozenset({1}))
    with pytest.raises(NoFeasibleCut) as caught:
        solve(costs, Box(), ends_on_device, directions=DIRECTIONS)
    assert str(caught.value) == (
        "device-first: no cut has 'u1' in the cloud, because --pin-device keeps 'u2' on the device, which needs "
        "'u1'; drop one of the two; cloud-first: no cut has 'u1' in the cloud, because --pin-device keeps 'u0' "
        "on the device, which 'u1' needs; drop one of the two"
    )
    one_side = Limits(pin_device=frozenset({1}), pin_cloud=frozenset({1}))
    with pytest.raises(NoFeasibleCut, match=r"^no cut has 'u1' in the cloud"):
        solve(costs, Box(), one_side, directions=DIRECTIONS)
    # Only cloud-first cuts are left, and the budget is what excludes them.
    message = r"^device-first: no cut has .*; cloud-first: no cut keeps the payload under 999 bytes"
    limits = Limits(pin_device=frozenset({2}), pin_cloud=frozenset({0}), max_payload_bytes=999)
    with pytest.raises(NoFeasibleCut, match=message):
        solve(costs, Box(), limits, directions=DIRECTIONS)


def test_a_limit_of_energy_needs_energy() -> None:
    with pytest.raises(TargetError, match="energy"):
        solve(replace(graphs.diamond(), energy=None), Box(), Limits(max_energy_j=1.0))
