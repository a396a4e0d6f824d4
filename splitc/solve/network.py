"""Find the best closure of a section at given prices as a minimum s-t cut.

The source side is the device. In addition to s and t there is one vertex per unit, and one per tensor with
several readers, so that a tensor that crosses is paid once:

    s -> unit      cloud price: the unit's time there, and downlink price: the model outputs that it makes
    unit -> t      device price
    producer -> reader, or producer -> tensor -> readers      uplink price (a model input starts at s)
    reader -> producer      infinite: the device has all predecessors of its units

A cloud-first cut keeps the other end of the model on the device, which sends model inputs only and receives
what crosses. The last two kinds of arcs are then turned round for all tensors but model inputs:

    reader -> producer, or readers -> tensor -> producer      downlink price; nothing for a model output,
                                                              which has its price already
    producer -> reader      infinite: the device has all successors of its units

Units before the section are in the head and those after it in the tail, so s or t stands for them.

SciPy's maximum flow takes 32-bit integers only. Capacities are therefore rounded down and the flow is
improved on what remains of them, at a finer scale, until it proves the cut optimal (weak duality).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from splitc.solve.section_costs import SectionCosts
from splitc.solve.space import BoolArray, FloatArray, IntArray

# A forward and a backward residual must fit into 31 bits together.
_INFINITE = 2**30
_GAP = 1e-9  # the largest allowed relative distance of a cut from the optimum


@dataclass(frozen=True, slots=True, eq=False)
class FlowNetwork:
    """Arcs in the order of a sparse matrix.

    Each arc has its reverse arc in the matrix, so that a flow has the same order of arcs.

    Attributes:
        source: the vertex s, and the number of units before it; t comes next, then tensors.
        rows, columns: (arcs,) where each arc starts and ends.
        prices: (arcs, 4) how much of each price an arc pays.
        from_source, to_sink: (units,) positions of the arcs s -> unit and unit -> t.
        ends: (2, 4) the amounts of two closures; the better one bounds the best cut from above.
    """

    source: int
    rows: IntArray
    columns: IntArray
    row_starts: IntArray
    prices: FloatArray
    infinite: BoolArray
    from_source: IntArray
    to_sink: IntArray
    ends: FloatArray


def least_s(network: FlowNetwork, prices: FloatArray) -> float:
    """Return a lower bound of the best cut: every unit runs on its faster side, and nothing is sent."""
    capacity = network.prices @ prices
    return float(np.minimum(capacity[network.from_source], capacity[network.to_sink]).sum())


def best_on_device(network: FlowNetwork, prices: FloatArray) -> tuple[float, BoolArray]:
    """Return the latency and the units on the device of the best cut; of equal ones, with the fewest there."""
    price_s = network.prices @ prices
    capacity = price_s.copy()
    paid_anyway = np.minimum(capacity[network.from_source], capacity[network.to_sink])
    capacity[network.from_source] -= paid_anyway
    capacity[network.to_sink] -= paid_anyway
    residual = np.where(network.infinite, np.inf, capacity)
    proven_s = float(paid_anyway.sum())
    bound_s = float(min(network.ends @ prices))
    gap_s = max(bound_s - proven_s, 0.0) + 1e-13 * bound_s + 1e-30  # rounding of the two sums; never 0
    while True:
        # A better cut cannot cost more than the gap, so an arc above the gap may count as infinite.
        scale = (_INFINITE - 2**16) / gap_s
        whole = np.minimum(np.floor(np.minimum(residual, 2 * gap_s) * scale), _INFINITE - 1)
        whole[network.infinite] = _INFINITE
        matrix = csr_array((whole.astype(np.int32), network.columns, network.row_starts))
        result = maximum_flow(matrix, network.source, network.source + 1)
        residual = np.maximum(residual - result.flow.data / scale, 0.0)
        proven_s += result.flow_value / scale
        reached = _reachable(network, whole > result.flow.data)
        crossing = reached[network.rows] & ~reached[network.columns]
        unproven_s = float(residual[crossing].sum())
        if unproven_s <= _GAP * proven_s or unproven_s >= gap_s:
            return float(price_s[crossing].sum()), reached[: network.source]
        gap_s = unproven_s


def _reachable(network: FlowNetwork, open_arcs: BoolArray) -> BoolArray:
    """Return the vertices that the source reaches over *open_arcs*: the smallest source side of all minimum cuts."""
    starts = np.append(0, np.cumsum(open_arcs))[network.row_starts]
    columns = network.columns[open_arcs]
    matrix = csr_array((np.ones(len(columns), dtype=np.int8), columns, starts), shape=(len(starts) - 1,) * 2)
    reached = np.zeros(len(starts) - 1, dtype=bool)
    reached[breadth_first_order(matrix, network.source, return_predecessors=False)] = True
    return reached


def make_network(costs: SectionCosts) -> FlowNetwork:
    """Build the network of a section."""
    first, end = costs.section.first, costs.section.end
    source, sink = end - first, end - first + 1
    turns = costs.direction == "cloud-first"
    before, after = (sink, source) if turns else (source, sink)
    paid: dict[tuple[int, int], list[float]] = {}
    infinite: set[tuple[int, int]] = set()

    def vertex(unit: int) -> int:
        return before if unit < first else after if unit >= end else unit - first

    def pay(arc: tuple[int, int], price: int, amount: float) -> None:
        paid.setdefault(arc, [0.0] * 4)[price] += amount

    for unit in range(first, end):
        pay((unit - first, sink), 0, costs.costs.device_s[unit])
        pay((source, unit - first), 1, costs.costs.cloud_s[unit])
    vertices = sink + 1
    for tensor in costs.crossing:
        nbytes, made = tensor.nbytes or 0, tensor.producer is not None
        start = source if tensor.producer is None else vertex(tensor.producer)
        readers = sorted({vertex(reader) for reader in tensor.consumers})
        if start < source and tensor.is_output:
            pay((source, start), 3, nbytes)
        comes_down = made and turns
        if made:
            infinite.update(_arc(reader, start, turned=comes_down) for reader in readers)
        if comes_down and tensor.is_output:
            continue
        crossing = readers[0] if len(readers) == 1 else vertices
        if readers:
            pay(_arc(start, crossing, turned=comes_down), 3 if comes_down else 2, nbytes)
        if len(readers) > 1:
            infinite.update(_arc(vertices, reader, turned=comes_down) for reader in readers)
            vertices += 1
    on_device, in_cloud = (costs.barred, costs.needed) if turns else (costs.needed, costs.barred)
    infinite.update((source, unit) for unit in on_device.tolist())
    infinite.update((unit, sink) for unit in in_cloud.tolist())
    ends = costs.amounts(costs.ends())
    return _sorted_network(paid, infinite, source, vertices, ends)


def _arc(start: int, end: int, *, turned: bool) -> tuple[int, int]:
    return (end, start) if turned else (start, end)


def _sorted_network(
    paid: dict[tuple[int, int], list[float]],
    infinite: set[tuple[int, int]],
    source: int,
    vertices: int,
    ends: FloatArray,
) -> FlowNetwork:
    # Arcs out of t or into s carry nothing.
    one_way = {arc for arc in paid.keys() | infinite if arc[0] != source + 1 and arc[1] != source}
    arcs = sorted(one_way | {(j, i) for i, j in one_way})
    position = {arc: at for at, arc in enumerate(arcs)}
    rows, columns = np.array(arcs, dtype=np.int32).reshape(-1, 2).T
    free = [0.0] * 4
    return FlowNetwork(
        source=source,
        rows=rows,
        columns=np.ascontiguousarray(columns),
        row_starts=np.searchsorted(rows, np.arange(vertices + 1)).astype(np.int32),
        prices=np.array([paid.get(arc, free) for arc in arcs], dtype=np.float64).reshape(-1, 4),
        infinite=np.array([arc in infinite for arc in arcs], dtype=bool),
        from_source=np.array([position[source, unit] for unit in range(source)], dtype=np.intp),
        to_sink=np.array([position[unit, source + 1] for unit in range(source)], dtype=np.intp),
        ends=ends,
    )
