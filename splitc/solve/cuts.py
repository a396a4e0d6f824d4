"""A cut: which units run on the device, what crosses, and what that costs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from splitc.common.errors import TargetError
from splitc.common.kinds import Direction
from splitc.model.graph import Graph, Tensor
from splitc.solve.costs import Costs, Limits

Kind = Literal["all-head", "split", "all-tail"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A division of the units into head and tail, with its costs.

    Attributes:
        head: the upstream units; contains all predecessors of its members.
        direction: where the head of a split runs; all-head and all-tail are always device-first.
        device: the units on the device: the head, or the tail of a cloud-first split.
        boundary: indices of the tensors that the tail takes from the head's machine, ascending; raw inputs
            are among them only where the device sends them. Each crosses once, however many units read it.
        device_s, cloud_s: sums of unit times, and what a run of any part costs besides.
        uplink_bytes: what the device sends: the boundary, or raw inputs to a cloud-first head.
        downlink_bytes: what the device receives: the model outputs made in the cloud, and the boundary of a
            cloud-first split. What is both is received once.
        device_peak_bytes: the device's weights plus the most that is alive at once while its units run in
            order: tensors between units, what was received and has a reader to come, what waits to be sent
            or returned, and scratch.
    """

    head: frozenset[int]
    direction: Direction
    device: frozenset[int]
    kind: Kind
    boundary: tuple[int, ...]
    device_s: float
    cloud_s: float
    uplink_bytes: int
    downlink_bytes: int
    device_weight_bytes: int
    cloud_weight_bytes: int
    device_peak_bytes: int

    @property
    def offloads(self) -> bool:
        """Whether anything runs in the cloud."""
        return self.kind != "all-head"


@dataclass(frozen=True, slots=True)
class CutSet:
    """The cuts that are shipped, and how far from the best they can ever be inside the box.

    Attributes:
        cuts: all-head first, then by growing time in the cloud, all-tail last.
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
    """Tensors that a head on the device sends: made at home or fed in, and read by the tail."""
    return tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if (tensor.producer is None or tensor.producer in head) and not head.issuperset(tensor.consumers)
    )


def make_cut(costs: Costs, head: frozenset[int], direction: Direction = "device-first") -> Cut:
    """Price the closure *head*; where one part is empty, the cut is all-head or all-tail.

    Raises:
        ValueError: *head* is not a closure, or something crosses that cannot be sent.
    """
    rest = frozenset(range(len(costs.graph.units))) - head
    return place(costs, head if direction == "device-first" else rest, direction)


def place(costs: Costs, device: frozenset[int], direction: Direction) -> Cut:
    """Price the cut that has exactly the units of *device* on the device.

    Raises:
        ValueError: the units that are to run first are not a closure, or something crosses that cannot be
            sent.
    """
    graph = costs.graph
    cloud = frozenset(range(len(graph.units))) - device
    direction = direction if device and cloud else "device-first"
    head = device if direction == "device-first" else cloud
    if not is_closure(graph, head):
        raise ValueError("the head lacks a predecessor of one of its units; only closures can be cut off")
    sent = boundary(graph, device)
    received = _received(graph, device)
    device_weight_bytes = _weight_bytes(graph, device)
    return Cut(
        head=head,
        direction=direction,
        device=device,
        kind="split" if device and cloud else "all-tail" if cloud else "all-head",
        boundary=sent
        if direction == "device-first"
        else tuple(t for t in received if not device.isdisjoint(graph.tensors[t].consumers)),
        device_s=_seconds(costs.device_s, costs.device_fixed_s, device),
        cloud_s=_seconds(costs.cloud_s, costs.cloud_fixed_s, cloud),
        uplink_bytes=sum(_sendable_bytes(graph.tensors[t]) for t in sent),
        downlink_bytes=sum(_sendable_bytes(graph.tensors[t]) for t in received),
        device_weight_bytes=device_weight_bytes,
        cloud_weight_bytes=_weight_bytes(graph, cloud),
        device_peak_bytes=device_weight_bytes
        + max(alive_bytes(graph, device, direction).values(), default=0),
    )


def _received(graph: Graph, device: frozenset[int]) -> tuple[int, ...]:
    """Tensors that the device receives: made in the cloud, and read by *device* or returned."""
    return tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if not (tensor.producer is None or tensor.producer in device)
        and (tensor.is_output or not device.isdisjoint(tensor.consumers))
    )


def _seconds(units_s: tuple[float, ...], fixed_s: float, units: frozenset[int]) -> float:
    return sum((units_s[unit] for unit in sorted(units)), fixed_s) if units else 0.0


def _sendable_bytes(tensor: Tensor) -> int:
    if tensor.nbytes is None:
        raise ValueError(
            f"tensor '{tensor.name}' has no known size and cannot be sent; keep its readers on the device"
        )
    return tensor.nbytes


def _weight_bytes(graph: Graph, units: Iterable[int]) -> int:
    return sum(graph.weights[w].nbytes for w in {w for unit in units for w in graph.units[unit].weights})


def alive_bytes(graph: Graph, device: frozenset[int], direction: Direction) -> dict[int, int]:
    """Bytes alive on the device, weights aside, while each of its units runs, in the order of the graph.

    An input of unknown size never leaves the device and weighs the same on every cut that reads it: it
    counts 0.
    """
    end = len(graph.units)
    growth = [0] * (end + 1)  # at step i, how many more bytes are alive than at step i-1
    for tensor in graph.tensors:
        last = _last_step(tensor, device, direction, end)
        if last is not None:
            made = tensor.producer
            growth[made if made is not None and made in device else 0] += tensor.nbytes or 0
            growth[last + 1] -= tensor.nbytes or 0
    alive = list(accumulate(growth))
    return {unit: alive[unit] + graph.units[unit].scratch_bytes for unit in sorted(device)}


def _last_step(tensor: Tensor, device: frozenset[int], direction: Direction, end: int) -> int | None:
    """Last step at which *tensor* occupies the device, or None if it never does.

    A device that comes first holds what it sends until its last unit has run, and receives after that; one
    that comes second has sent and received everything before its first unit runs.
    """
    is_local = tensor.producer is None or tensor.producer in device
    if direction == "device-first" and not is_local:
        return None
    waits_to_be_sent = direction == "device-first" and not device.issuperset(tensor.consumers)
    if tensor.is_output or waits_to_be_sent:
        return end - 1
    readers = (unit for unit in tensor.consumers if unit in device)
    return max(readers, default=tensor.producer if is_local else None)


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
        energy.active_w * cut.device_s
        + energy.uplink_j_per_byte * cut.uplink_bytes
        + energy.downlink_j_per_byte * cut.downlink_bytes
    )


def meets_budgets(costs: Costs, cut: Cut, limits: Limits) -> bool:
    """Whether *cut* keeps every budget; pins and privacy are not looked at.

    Raises:
        TargetError: an energy limit is set, but *costs* know no energy.
    """
    within = (
        (cut.device_weight_bytes, limits.max_device_weight_bytes),
        (cut.device_peak_bytes, limits.max_device_peak_bytes),
        (cut.uplink_bytes, limits.max_payload_bytes),
    )
    if any(limit is not None and amount > limit for amount, limit in within):
        return False
    return limits.max_energy_j is None or energy_j(costs, cut) <= limits.max_energy_j
