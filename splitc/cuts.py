"""A cut: which units run on the device, what crosses, and what that costs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from splitc.costs import Costs, Limits
from splitc.errors import TargetError
from splitc.graph import Graph, Tensor

Kind = Literal["all-head", "split", "all-tail"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A division of the units into head and tail, with its costs (DESIGN section 6).

    Attributes:
        head: the units on the device; contains all predecessors of its members.
        boundary: indices of the tensors that cross, ascending; raw inputs that the tail reads
            are among them. Each crosses once, however many units read it.
        head_s, tail_s: sums of unit times, and what a run of any part costs besides.
        head_peak_bytes: head weights plus the most that is alive at once while its units run in
            order: tensors between units, what already waits to be sent or returned, and scratch.
    """

    head: frozenset[int]
    kind: Kind
    boundary: tuple[int, ...]
    head_s: float
    tail_s: float
    uplink_bytes: int
    downlink_bytes: int
    head_weight_bytes: int
    tail_weight_bytes: int
    head_peak_bytes: int

    @property
    def offloads(self) -> bool:
        """Whether anything runs in the cloud."""
        return self.kind != "all-head"


@dataclass(frozen=True, slots=True)
class CutSet:
    """The cuts that are shipped, and how far from the best they can ever be inside the box.

    Attributes:
        cuts: all-head first, then by growing tail, all-tail last.
        frontier: every cut that is optimal somewhere in the box.
        regret: certified worst of (best shipped latency / best possible latency) - 1.
        regret_limit: what was asked for; `regret` exceeds it only when `max_cuts` cuts cannot do better.
    """

    cuts: tuple[Cut, ...]
    frontier: tuple[Cut, ...]
    regret: float
    regret_limit: float


def is_closure(graph: Graph, head: frozenset[int]) -> bool:
    """Whether *head* contains every predecessor of its units."""
    return all(
        producer is None or producer in head
        for unit in head
        for producer in (graph.tensors[t].producer for t in graph.units[unit].inputs)
    )


def boundary(graph: Graph, head: frozenset[int]) -> tuple[int, ...]:
    """Tensors that cross from *head* to the rest: made at home or fed in, and read by the tail."""
    return tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if (tensor.producer is None or tensor.producer in head)
        and any(unit not in head for unit in tensor.consumers)
    )


def make_cut(costs: Costs, head: frozenset[int]) -> Cut:
    """Price the closure *head*.

    Raises:
        ValueError: *head* is not a closure, or something crosses that cannot be sent.
    """
    graph = costs.graph
    if not is_closure(graph, head):
        raise ValueError("the head lacks a predecessor of one of its units; only closures can be cut off")
    tail = [unit for unit in range(len(graph.units)) if unit not in head]
    crossing = boundary(graph, head)
    made_by_tail = (t for unit in tail for t in graph.units[unit].outputs if graph.tensors[t].is_output)
    head_weight_bytes = _weight_bytes(graph, head)
    return Cut(
        head=head,
        kind="split" if head and tail else "all-tail" if tail else "all-head",
        boundary=crossing,
        head_s=sum((costs.head_s[unit] for unit in sorted(head)), costs.head_fixed_s) if head else 0.0,
        tail_s=sum((costs.tail_s[unit] for unit in tail), costs.tail_fixed_s) if tail else 0.0,
        uplink_bytes=sum(_sendable_bytes(graph.tensors[t]) for t in crossing),
        downlink_bytes=sum(_sendable_bytes(graph.tensors[t]) for t in made_by_tail),
        head_weight_bytes=head_weight_bytes,
        tail_weight_bytes=_weight_bytes(graph, tail),
        head_peak_bytes=head_weight_bytes + _peak_alive_bytes(graph, head),
    )


def _sendable_bytes(tensor: Tensor) -> int:
    if tensor.nbytes is None:
        raise ValueError(
            f"tensor '{tensor.name}' has no known size and cannot be sent; keep its readers in the head"
        )
    return tensor.nbytes


def _weight_bytes(graph: Graph, units: Iterable[int]) -> int:
    return sum(graph.weights[w].nbytes for w in {w for unit in units for w in graph.units[unit].weights})


def _peak_alive_bytes(graph: Graph, head: frozenset[int]) -> int:
    """Most bytes alive while any one unit of *head* runs, the units running in the order of the graph.

    An input of unknown size never leaves the device and weighs the same on every cut that reads it: it
    counts 0.
    """
    if not head:
        return 0
    end = len(graph.units)
    growth = [0] * (end + 1)  # at step i, how many more bytes are alive than at step i-1
    for tensor in graph.tensors:
        last = _last_step(tensor, head, end)
        if last is not None:
            growth[tensor.producer or 0] += tensor.nbytes or 0
            growth[last + 1] -= tensor.nbytes or 0
    alive = list(accumulate(growth))
    return max(alive[unit] + graph.units[unit].scratch_bytes for unit in head)


def _last_step(tensor: Tensor, head: frozenset[int], end: int) -> int | None:
    """Last step at which *tensor* occupies the device, or None if it never does."""
    if tensor.producer is not None and tensor.producer not in head:
        return None
    waits = tensor.is_output or any(unit not in head for unit in tensor.consumers)
    if waits:
        return end - 1
    return max(tensor.consumers, default=tensor.producer)


def energy_j(costs: Costs, cut: Cut) -> float:
    """Energy that the device spends on one request when nothing slows it down.

    Raises:
        TargetError: *costs* know no energy.
    """
    energy = costs.energy
    if energy is None:
        raise TargetError(
            "an energy limit is set, but the device's target gives no energy; add it or drop --max-energy"
        )
    return (
        energy.active_w * cut.head_s
        + energy.uplink_j_per_byte * cut.uplink_bytes
        + energy.downlink_j_per_byte * cut.downlink_bytes
    )


def meets_budgets(costs: Costs, cut: Cut, limits: Limits) -> bool:
    """Whether *cut* keeps every budget; pins and privacy are not looked at.

    Raises:
        TargetError: an energy limit is set, but *costs* know no energy.
    """
    within = (
        (cut.head_weight_bytes, limits.max_head_weight_bytes),
        (cut.head_peak_bytes, limits.max_head_peak_bytes),
        (cut.uplink_bytes, limits.max_payload_bytes),
    )
    if any(limit is not None and amount > limit for amount, limit in within):
        return False
    return limits.max_energy_j is None or energy_j(costs, cut) <= limits.max_energy_j
