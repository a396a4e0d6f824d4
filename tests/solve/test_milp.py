"""The rows of the program describe every cut exactly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut
from splitc.solve.milp import MixedIntegerProgram, make_program, peak_row
from splitc.solve.pins import make_pins
from splitc.solve.space import FloatArray
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)
DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")


def program_of(costs: Costs, direction: Direction) -> MixedIntegerProgram:
    return make_program(costs, Limits(), make_pins(costs.graph, Limits(), direction), direction)


def variables(costs: Costs, cut: Cut) -> FloatArray:
    graph = costs.graph
    inputs = {at for at, tensor in enumerate(graph.tensors) if tensor.producer is None}
    sent, _ = oracle.sent_and_received(graph, cut.head, cut.direction)
    crossing = {*cut.boundary, *(sent & inputs)}
    held = {weight for unit in cut.device for weight in graph.units[unit].weights}
    parts = ((graph.units, cut.device), (graph.tensors, crossing), (graph.weights, held))
    return np.concatenate(
        [np.isin(np.arange(len(all_of)), sorted(some)) for all_of, some in parts], dtype=float
    )


@SETTINGS
@given(graphs.costs(8), st.sampled_from(DIRECTIONS))
def test_every_cut_keeps_the_structure(costs: Costs, direction: Direction) -> None:
    program = program_of(costs, direction)
    for cut in oracle.feasible_cuts(costs, directions=[direction]):
        assert (program.matrix @ variables(costs, cut) <= program.limit).all()


@SETTINGS
@given(graphs.costs(8), st.sampled_from(DIRECTIONS))
def test_the_worst_row_is_the_peak(costs: Costs, direction: Direction) -> None:
    program = program_of(costs, direction)
    for cut in oracle.feasible_cuts(costs, directions=[direction]):
        rows = [peak_row(program, unit, cut.device) for unit in sorted(cut.device)]
        alive = [row @ variables(costs, cut) + constant for row, constant in rows]
        assert max(alive, default=0) == cut.device_peak_bytes


@SETTINGS
@given(graphs.costs(6), st.sampled_from(DIRECTIONS))
def test_a_row_of_one_cut_never_overstates_another(costs: Costs, direction: Direction) -> None:
    program = program_of(costs, direction)
    cuts = oracle.feasible_cuts(costs, directions=[direction])
    for unit in range(len(costs.graph.units)):
        with_unit = [cut for cut in cuts if unit in cut.device]
        for row, constant in (peak_row(program, unit, cut.device) for cut in with_unit):
            for cut in with_unit:
                assert row @ variables(costs, cut) + constant <= cut.device_peak_bytes
