"""Answers by enumeration, for graphs of up to 14 units. Shares no code with the solver but the types."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import Cut, make_cut

FloatArray = NDArray[np.float64]


def closures(graph: Graph) -> list[frozenset[int]]:
    """All sets of units that contain all predecessors of their members."""
    assert len(graph.units) <= 14
    heads = [frozenset[int]()]
    for unit, needs in enumerate(_predecessors(graph)):
        heads += [head | {unit} for head in heads if needs <= head]
    return heads


def feasible_cuts(
    costs: Costs,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    directions: Sequence[Direction] = ("device-first",),
) -> list[Cut]:
    """All cuts that keep pins, privacy, unsendable inputs and budgets."""
    whole = frozenset(range(len(costs.graph.units)))
    found: list[Cut] = []
    for head in closures(costs.graph):
        ways = directions if 0 < len(head) < len(whole) else ("device-first",)
        for way in ways:
            if _keeps_pins(costs.graph, head if way == "device-first" else whole - head, limits):
                cut = make_cut(costs, head, way)
                found += [cut] if keeps_budgets(costs, cut, limits) else []
    return found


def _predecessors(graph: Graph) -> list[set[int]]:
    makers: list[set[int]] = [set() for _ in graph.units]
    for tensor in graph.tensors:
        for reader in tensor.consumers:
            makers[reader] |= {tensor.producer} - {None}  # type: ignore[arg-type]
    return makers


def _keeps_pins(graph: Graph, device: frozenset[int], limits: Limits) -> bool:
    private = [graph.tensors[index] for index in limits.private | limits.recoverable]
    stays = {unit for t in private for unit in (t.producer, *t.consumers) if unit is not None}
    return (limits.pin_device | graph.device_only | stays) <= device and not limits.pin_cloud & device


def keeps_budgets(costs: Costs, cut: Cut, limits: Limits) -> bool:
    infinite = float("inf")

    def most(limit: float | None) -> float:
        return infinite if limit is None else limit

    return (
        cut.device_weight_bytes <= most(limits.max_device_weight_bytes)
        and cut.device_peak_bytes <= most(limits.max_device_peak_bytes)
        and cut.uplink_bytes <= most(limits.max_payload_bytes)
        and (limits.max_energy_j is None or energy_j(costs, cut) <= limits.max_energy_j)
    )


def energy_j(costs: Costs, cut: Cut) -> float:
    assert costs.energy is not None
    spent = (cut.device_s * costs.energy.active_w, cut.uplink_bytes * costs.energy.uplink_j_per_byte)
    return sum(spent) + cut.downlink_bytes * costs.energy.downlink_j_per_byte


def crossing(graph: Graph, first: frozenset[int]) -> list[int]:
    """Tensors that the rest reads and does not make, model inputs among them."""
    rest = set(range(len(graph.units))) - first
    read = {t for unit in rest for t in graph.units[unit].inputs}
    made = {t for unit in rest for t in graph.units[unit].outputs}
    return sorted(read - made)


def sent_and_received(graph: Graph, head: frozenset[int], direction: Direction) -> tuple[set[int], set[int]]:
    """What goes up and what comes down."""
    inputs = {i for i, tensor in enumerate(graph.tensors) if tensor.producer is None}
    outputs = {i for i, tensor in enumerate(graph.tensors) if tensor.is_output} - inputs
    made_by_head = {t for unit in head for t in graph.units[unit].outputs}
    if direction == "device-first":
        return set(crossing(graph, head)), outputs - made_by_head
    read_by_head = {t for unit in head for t in graph.units[unit].inputs}
    return inputs & read_by_head, (outputs & made_by_head) | (set(crossing(graph, head)) - inputs)


def peak_bytes(graph: Graph, head: frozenset[int], direction: Direction) -> int:
    """Play the device's part step by step with a set of what is in memory."""
    device = head if direction == "device-first" else frozenset(range(len(graph.units))) - head
    sent, received = sent_and_received(graph, head, direction)
    waiting = {i for i, t in enumerate(graph.tensors) if t.is_output}
    still_read = {t for unit in device for t in graph.units[unit].inputs}
    held = {i for i, t in enumerate(graph.tensors) if t.producer is None}
    if direction == "device-first":
        waiting |= sent
    else:
        held |= received
    held &= waiting | still_read
    todo = sorted(device)
    peak = 0
    while todo:
        unit = todo.pop(0)
        held |= set(graph.units[unit].outputs)
        peak = max(peak, sum(graph.tensors[i].nbytes or 0 for i in held) + graph.units[unit].scratch_bytes)
        later = {t for other in todo for t in graph.units[other].inputs}
        held &= waiting | later
    weights = {weight for unit in device for weight in graph.units[unit].weights}
    return peak + sum(graph.weights[weight].nbytes for weight in weights)


def price_range(box: Box) -> tuple[FloatArray, FloatArray]:
    """Prices (device, cloud, uplink s/byte, downlink s/byte, round trip s), lowest and highest."""
    up, down = (tuple(8.0 / bps for bps in reversed(pair)) for pair in (box.uplink_bps, box.downlink_bps))
    low, high = np.array([box.device_slowdown, box.cloud_slowdown, up, down, box.rtt_s]).T
    return low, high


def amounts(cuts: Iterable[Cut]) -> FloatArray:
    """(cuts, prices): latency is the product with prices."""
    return np.array(
        [[c.device_s, c.cloud_s, c.uplink_bytes, c.downlink_bytes, c.kind != "all-head"] for c in cuts], float
    )


def random_prices(box: Box, count: int, seed: int) -> FloatArray:
    """Points of the box: some of its corners, and log-uniform ones."""
    low, high = price_range(box)
    random = np.random.default_rng(seed)
    start = np.maximum(low, 1e-9 * high)
    inside = start * (np.maximum(high, 1e-300) / np.maximum(start, 1e-300)) ** random.random((count, 5))
    corners = np.array(list(product(*zip(low, high, strict=True))))
    return np.vstack([np.clip(inside, low, high), corners])


def worst_ratio(shipped: FloatArray, cut: FloatArray, box: Box) -> float:
    """Maximum over *box* of (best of *shipped*) / *cut*, all as amounts: a linear program in five prices."""
    low, high = price_range(box)
    shipped, cut = shipped * high, cut * high
    size = cut.max()
    if size == 0.0:  # takes no time anywhere
        return 1.0 if np.any(np.all(shipped == 0.0, axis=1)) else float("inf")
    shipped, cut = shipped / size, cut / size
    low = np.divide(low, high, out=np.ones(5), where=high > 0)
    undercut = np.column_stack([-shipped, np.ones(len(shipped)), np.zeros(len(shipped))])
    upper = np.column_stack([np.eye(5), np.zeros(5), -np.ones(5)])
    lower = np.column_stack([-np.eye(5), np.zeros(5), low])
    rows = np.vstack([undercut, upper, lower])
    equal = np.append(cut, [0.0, 0.0])[None]
    result = linprog([0, 0, 0, 0, 0, -1.0, 0], A_ub=rows, b_ub=np.zeros(len(rows)), A_eq=equal, b_eq=[1.0])
    assert result.status == 0, result.message
    return float(-result.fun)


def undominated(cuts: Sequence[Cut]) -> list[Cut]:
    """One cut of each vector of amounts that no other undercuts in every price."""
    table = amounts(cuts)
    _, first = np.unique(table, axis=0, return_index=True)
    return [
        cuts[i]
        for i in sorted(first)
        if not any(np.all(table[j] <= table[i]) and np.any(table[j] < table[i]) for j in first)
    ]


def exhaustive_regret(shipped: Sequence[Cut], cuts: Sequence[Cut], box: Box) -> float:
    """Worst regret of *shipped* against all of *cuts* anywhere in *box*."""
    table = amounts(shipped)
    return max(worst_ratio(table, row, box) for row in amounts(undominated(cuts))) - 1.0


def exhaustive_margins(cuts: Sequence[Cut], box: Box) -> list[tuple[Cut, float]]:
    """How much worse all others get than each undominated cut: above 0, the cut is needed."""
    candidates = undominated(cuts)
    table = amounts(candidates)
    if len(candidates) == 1:
        return [(candidates[0], float("inf"))]
    others = (np.delete(table, i, axis=0) for i in range(len(table)))
    return [
        (cut, worst_ratio(rest, row, box) - 1.0)
        for cut, row, rest in zip(candidates, table, others, strict=True)
    ]
