"""A cut: which units run on the device, what crosses, and what that costs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import fsum
from typing import Literal

from splitc.common.errors import TargetError
from splitc.common.kinds import Direction
from splitc.model.graph import Graph, Tensor
from splitc.solve.costs import Costs, Limits, Placement

Kind = Literal["all-head", "split", "all-tail"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A division of the units into head and tail, with its costs.

    Attributes:
        head: the upstream units; contains all predecessors of its members.
        direction: where the head of a split runs; all-head and all-tail are always device-first.
        device: the units on the device: the head, or the tail of a cloud-first split.
        boundary: indices of the tensors that the tail receives from the head's machine, ascending. They
            include raw inputs only if the device sends these. Each tensor crosses once, even if several
            units read it.
        device_s, cloud_s: the sum of the unit times on that side, plus its fixed seconds.
        uplink_bytes: bytes that the device sends: the boundary, or the raw inputs of a cloud-first head.
        downlink_bytes: bytes that the device receives: the model outputs made in the cloud, and the boundary
            of a cloud-first split. A tensor that is both is received once.
        device_peak_bytes: the device's weights plus the largest amount of memory in use while its units run
            in order: tensors between units, received tensors that a later unit reads, tensors that wait to
            be sent or returned, and scratch memory.
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
    def placement(self) -> Placement:
        """What tells it from all other cuts."""
        return self.device, self.direction

    @property
    def offloads(self) -> bool:
        """Whether anything runs in the cloud."""
        return self.kind != "all-head"


@dataclass(frozen=True, slots=True)
class CutSet:
    """The selected cuts, and the largest loss compared with the best cut anywhere in the box.

    Attributes:
        cuts: all-head first, then splits by increasing time in the cloud, all-tail last.
        frontier: every cut that is optimal at some point of the box.
        regret: certified maximum of (best latency of `cuts` / best possible latency) - 1.
        regret_limit: the requested limit; `regret` exceeds it only if no `max_cuts` cuts can meet it.
    """

    cuts: tuple[Cut, ...]
    frontier: tuple[Cut, ...]
    regret: float
    regret_limit: float


def is_closure(graph: Graph, head: frozenset[int]) -> bool:
    """Return whether *head* contains every predecessor of its units."""
    return all(
        producer is None or producer in head
        for unit in head
        for producer in (graph.tensors[t].producer for t in graph.units[unit].inputs)
    )


def boundary(graph: Graph, head: frozenset[int]) -> tuple[int, ...]:
    """Return the tensors that a head on the device sends: its tensors and model inputs that the tail reads."""
    return tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if (tensor.producer is None or tensor.producer in head) and not head.issuperset(tensor.consumers)
    )


def make_cut(costs: Costs, head: frozenset[int], direction: Direction = "device-first") -> Cut:
    """Compute the costs of the closure *head*; if one part is empty, the cut is all-head or all-tail.

    Raises:
        ValueError: *head* is not a closure, or a tensor that cannot be sent would cross.
    """
    rest = frozenset(range(len(costs.graph.units))) - head
    return place(costs, head if direction == "device-first" else rest, direction)


def place(costs: Costs, device: frozenset[int], direction: Direction) -> Cut:
    """Compute the costs of the cut that runs exactly the units of *device* on the device.

    Raises:
        ValueError: the units that run first are not a closure, or a tensor that cannot be sent would cross.
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
    """Return the tensors that the device receives: made in the cloud, and read by *device* or model outputs."""
    return tuple(
        index
        for index, tensor in enumerate(graph.tensors)
        if not (tensor.producer is None or tensor.producer in device)
        and (tensor.is_output or not device.isdisjoint(tensor.consumers))
    )


def _seconds(units_s: tuple[float, ...], fixed_s: float, units: frozenset[int]) -> float:
    return fsum([*(units_s[unit] for unit in units), fixed_s]) if units else 0.0


def _sendable_bytes(tensor: Tensor) -> int:
    if tensor.nbytes is None:
        raise ValueError(
            f"tensor '{tensor.name}' has no known size and cannot be sent; keep its readers on the device"
        )
    return tensor.nbytes


def _weight_bytes(graph: Graph, units: Iterable[int]) -> int:
    return sum(graph.weights[w].nbytes for w in {w for unit in units for w in graph.units[unit].weights})


def alive_bytes(graph: Graph, device: frozenset[int], direction: Direction) -> dict[int, int]:
    """Return the bytes in use on the device, without weights, while each of its units runs, in graph order.

    An input of unknown size never leaves the device and needs the same memory in every cut, so it counts 0.
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
    """Return the last step at which *tensor* is in the device's memory, or None if it never is.

    If the device runs first, it keeps the tensors to send until its last unit has run, and receives tensors
    after that. If it runs second, it has sent and received everything before its first unit runs.
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
    """Return the energy that the device uses for one request if nothing slows it down.

    Raises:
        TargetError: *costs* contain no energy data.
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
    """Return whether *cut* meets every budget; pins and privacy are not checked.

    Raises:
        TargetError: an energy limit is set, but *costs* contain no energy data.
    """
    within = (
        (cut.device_weight_bytes, limits.max_device_weight_bytes),
        (cut.device_peak_bytes, limits.max_device_peak_bytes),
        (cut.uplink_bytes, limits.max_payload_bytes),
    )
    if any(limit is not None and amount > limit for amount, limit in within):
        return False
    return limits.max_energy_j is None or energy_j(costs, cut) <= limits.max_energy_j
