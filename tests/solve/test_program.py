"""The rows of the program describe every cut exactly."""

from hypothesis import given, settings

from splitc.costs import Costs, Limits
from splitc.solve.pins import make_pins
from splitc.solve.program import alive_bytes, make_program, variables
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


@SETTINGS
@given(graphs.costs(8))
def test_the_worst_row_is_the_peak(costs: Costs) -> None:
    program = make_program(costs, Limits(), make_pins(costs.graph, Limits()))
    for cut in oracle.feasible_cuts(costs):
        rows = [alive_bytes(program, unit) for unit in sorted(cut.head)]
        alive = [row @ variables(program, cut) + constant for row, constant in rows]
        assert max(alive, default=0) == cut.head_peak_bytes


@SETTINGS
@given(graphs.costs(8))
def test_every_cut_keeps_the_structure(costs: Costs) -> None:
    program = make_program(costs, Limits(), make_pins(costs.graph, Limits()))
    for cut in oracle.feasible_cuts(costs):
        assert (program.matrix @ variables(program, cut) <= program.limit).all()
