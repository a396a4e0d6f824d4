"""Sections cover the graph, and their closures and amounts are those of the whole graph."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import make_cut
from splitc.solve.pins import make_pins
from splitc.solve.section_costs import section_costs
from splitc.solve.sections import Section, make_sections
from tests import graphs, oracle

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)


def heads(sections: list[Section]) -> list[frozenset[int]]:
    found = []
    for section in sections:
        assert section.closures is not None
        for closure in section.closures:
            own = np.flatnonzero(closure) + section.first
            found.append(frozenset([*range(section.first), *own.tolist()]))
    return found


def ancestors(graph: Graph) -> list[set[int]]:
    found: list[set[int]] = []
    for unit in graph.units:
        made = {graph.tensors[tensor].producer for tensor in unit.inputs} - {None}
        found.append(set().union(*({one} | found[one] for one in made if one is not None)))
    return found


@SETTINGS
@given(graphs.costs(10))
def test_sections_have_all_closures_of_the_graph(costs: Costs) -> None:
    found = heads(make_sections(costs.graph, 2048))
    assert set(found) == set(oracle.closures(costs.graph))


@SETTINGS
@given(graphs.costs(12))
def test_a_border_is_where_every_later_unit_needs_every_earlier_one(costs: Costs) -> None:
    needs, units = ancestors(costs.graph), range(len(costs.graph.units))
    sections = make_sections(costs.graph, 0)
    assert all(section.closures is None for section in sections)
    assert [section.first for section in sections] == [0] + [
        at for at in units[1:] if all(set(range(at)) <= needs[unit] for unit in units[at:])
    ]
    assert all(one.end == other.first for one, other in pairwise(sections))
    assert sections[-1].end == len(units)


@pytest.mark.parametrize("direction", ["device-first", "cloud-first"])
@SETTINGS
@given(graphs.costs(9), st.sampled_from([0, 3, 2048]))
def test_amounts_are_those_of_the_cut(direction: Direction, costs: Costs, most_closures: int) -> None:
    """Also of sections that are solved as a minimum cut: the closures of the whole graph end somewhere in them."""
    everything = range(len(costs.graph.units))
    pins = make_pins(costs.graph, Limits(), direction)
    seen = set()
    for section in section_costs(costs, pins, direction, make_sections(costs.graph, most_closures)):
        first, end = section.section.first, section.section.end
        for head in oracle.closures(costs.graph):
            if not frozenset(range(first)) <= head <= frozenset(range(end)):
                continue
            closure = np.array([[unit in head for unit in everything[first:end]]])
            cut = make_cut(costs, head, direction)
            device_s = cut.device_s - (costs.device_fixed_s if cut.device else 0.0)
            cloud_s = cut.cloud_s - (costs.cloud_fixed_s if len(cut.device) < len(everything) else 0.0)
            (amounts,) = section.amounts(closure) + section.constant
            expected = [device_s, cloud_s, cut.uplink_bytes, cut.downlink_bytes]
            assert amounts == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert frozenset(np.flatnonzero(section.device(closure[0])).tolist()) == cut.device
            assert section.count_on_device(closure).tolist() == [len(cut.device)]
            seen.add(head)
    assert seen == set(oracle.closures(costs.graph))


def test_a_chain_with_skips_has_one_closure_more_than_units() -> None:
    units = 1000
    reads = [[unit] if unit % 5 else [unit, max(0, unit - 7), 0] for unit in range(units)]
    sections = make_sections(graphs.make_graph(reads, [8] * (units + 1)), 8)
    lengths = sorted({len(head) for head in heads(sections)})
    assert lengths == list(range(units + 1))
    assert len(sections) < 20


def test_side_units_along_the_whole_graph_make_one_section_without_a_list() -> None:
    # Unit 0 is read by thirty side units, each of them by one unit of the chain.
    reads: list[list[int]] = [[0], [0]]
    for _ in range(30):
        chain = len(reads)
        reads += [[1], [chain, chain + 1]]
    sections = make_sections(graphs.make_graph(reads, [8] * (len(reads) + 1)), 2048)
    assert [section.closures is None for section in sections].count(True) == 1
