"""Find the best cut at given prices as a minimum s-t cut.

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

What a run costs besides its units is paid by every split alike, and by all-head and all-tail on their one
side only. It is left out of the network: if that prefers all-head or all-tail, no split is better; and if
it prefers a split, that is the best one, and only these two may still undercut it.

SciPy's maximum flow takes 32-bit integers only. Capacities are therefore rounded down and the flow is
improved on what remains of them, at a finer scale, until it proves the cut optimal (weak duality).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, place
from splitc.solve.pins import Pins, make_pins
from splitc.solve.space import BoolArray, FloatArray, IntArray, Oracle

# A forward and a backward residual must fit into 31 bits together.
_INFINITE = 2**30
_GAP = 1e-9  # the largest allowed relative distance of a cut from the optimum


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """Arcs in the order of a sparse matrix.

    Each arc has its reverse arc in the matrix, so that a flow has the same order of arcs.

    Attributes:
        source: the vertex s, and the number of units before it; t comes next, then tensors.
        rows, columns: (arcs,) where each arc starts and ends.
        prices: (arcs, 4) how much of each price an arc pays.
        from_source, to_sink: (units,) positions of the arcs s -> unit and unit -> t.
    """

    source: int
    rows: IntArray
    columns: IntArray
    row_starts: IntArray
    prices: FloatArray
    infinite: BoolArray
    from_source: IntArray
    to_sink: IntArray


def min_cut_oracle(costs: Costs, limits: Limits, direction: Direction = "device-first") -> Oracle:
    """Build the network of *costs* once and return an oracle that uses it; budgets in *limits* are ignored.

    Of equally good cuts, the oracle returns the one with the fewest units on the device.

    Raises:
        NoFeasibleCut: pins exclude each other.
    """
    pins = make_pins(costs.graph, limits, direction)
    network = _make_network(costs, pins, direction)
    fallbacks = ends(costs, pins, direction)
    known: dict[bytes, Cut] = {}

    def oracle(prices: FloatArray) -> Cut:
        bound_s = min(latency_s(cut, prices) for cut in fallbacks)
        on_device = _solve(network, prices, bound_s)
        key = on_device.tobytes()
        if key not in known:
            known[key] = place(costs, frozenset(np.flatnonzero(on_device).tolist()), direction)
        return better_of(known[key], fallbacks, prices)

    return oracle


def ends(costs: Costs, pins: Pins, direction: Direction) -> list[Cut]:
    """Return the cut with the fewest possible units on the device, and the one with the most."""
    everything = frozenset(range(len(costs.graph.units)))
    return [place(costs, device, direction) for device in (pins.device, everything - pins.cloud)]


def better_of(cut: Cut, others: Iterable[Cut], prices: FloatArray) -> Cut:
    """Return *cut*, or the fastest of *others* if that is faster at *prices* by more than rounding errors."""
    least_s = (1.0 - _GAP) * latency_s(cut, prices)
    faster = [other for other in others if latency_s(other, prices) < least_s]
    return min(faster, key=lambda other: latency_s(other, prices), default=cut)


def latency_s(cut: Cut, prices: FloatArray) -> float:
    """Latency at prices (device, cloud, uplink, downlink), without the round trip."""
    return float(
        prices[0] * cut.device_s
        + prices[1] * cut.cloud_s
        + prices[2] * cut.uplink_bytes
        + prices[3] * cut.downlink_bytes
    )


def _solve(network: _Network, prices: FloatArray, bound_s: float) -> BoolArray:
    """Return the units on the device in the best cut; *bound_s* is the latency of some feasible cut."""
    capacity = network.prices @ prices
    paid_anyway = np.minimum(capacity[network.from_source], capacity[network.to_sink])
    capacity[network.from_source] -= paid_anyway
    capacity[network.to_sink] -= paid_anyway
    residual = np.where(network.infinite, np.inf, capacity)
    proven_s = float(paid_anyway.sum())
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
            return reached[: network.source]
        gap_s = unproven_s


def _reachable(network: _Network, open_arcs: BoolArray) -> BoolArray:
    """Return the vertices that the source reaches over *open_arcs*: the smallest source side of all minimum cuts."""
    starts = np.append(0, np.cumsum(open_arcs))[network.row_starts]
    columns = network.columns[open_arcs]
    matrix = csr_array((np.ones(len(columns), dtype=np.int8), columns, starts), shape=(len(starts) - 1,) * 2)
    reached = np.zeros(len(starts) - 1, dtype=bool)
    reached[breadth_first_order(matrix, network.source, return_predecessors=False)] = True
    return reached


def _make_network(costs: Costs, pins: Pins, direction: Direction) -> _Network:
    source = len(costs.graph.units)
    sink = source + 1
    paid: dict[tuple[int, int], list[float]] = {}
    infinite: set[tuple[int, int]] = set()

    def pay(arc: tuple[int, int], price: int, amount: float) -> None:
        paid.setdefault(arc, [0.0] * 4)[price] += amount

    for unit in range(source):
        pay((unit, sink), 0, costs.device_s[unit])
        pay((source, unit), 1, costs.cloud_s[unit])
    vertices = sink + 1
    for tensor in costs.graph.tensors:
        nbytes, made = tensor.nbytes or 0, tensor.producer is not None
        start = source if tensor.producer is None else tensor.producer
        if made and tensor.is_output:
            pay((source, start), 3, nbytes)
        comes_down = made and direction == "cloud-first"
        if made:
            infinite.update(_arc(reader, start, turned=comes_down) for reader in tensor.consumers)
        if comes_down and tensor.is_output:
            continue
        crossing = tensor.consumers[0] if len(tensor.consumers) == 1 else vertices
        if tensor.consumers:
            pay(_arc(start, crossing, turned=comes_down), 3 if comes_down else 2, nbytes)
        if len(tensor.consumers) > 1:
            infinite.update(_arc(vertices, reader, turned=comes_down) for reader in tensor.consumers)
            vertices += 1
    infinite.update((source, unit) for unit in pins.device)
    infinite.update((unit, sink) for unit in pins.cloud)
    return _sorted_network(paid, infinite, source, vertices)


def _arc(start: int, end: int, *, turned: bool) -> tuple[int, int]:
    return (end, start) if turned else (start, end)


def _sorted_network(
    paid: dict[tuple[int, int], list[float]], infinite: set[tuple[int, int]], source: int, vertices: int
) -> _Network:
    one_way = paid.keys() | infinite
    arcs = sorted(one_way | {(j, i) for i, j in one_way})
    position = {arc: at for at, arc in enumerate(arcs)}
    rows, columns = np.array(arcs, dtype=np.int32).reshape(-1, 2).T
    free = [0.0] * 4
    return _Network(
        source=source,
        rows=rows,
        columns=np.ascontiguousarray(columns),
        row_starts=np.searchsorted(rows, np.arange(vertices + 1)).astype(np.int32),
        prices=np.array([paid.get(arc, free) for arc in arcs], dtype=np.float64).reshape(-1, 4),
        infinite=np.array([arc in infinite for arc in arcs], dtype=bool),
        from_source=np.array([position[source, unit] for unit in range(source)], dtype=np.intp),
        to_sink=np.array([position[unit, source + 1] for unit in range(source)], dtype=np.intp),
    )
