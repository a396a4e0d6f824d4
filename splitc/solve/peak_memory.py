"""Express the memory in use on the device while a unit runs as a linear function of a cut.

Whether a tensor is in memory usually depends only on the side of one unit, or on whether the tensor crosses.
The exception is a tensor that the device receives in a cloud-first cut: it stays in memory until its last
reader on the device has run, which is not a linear function. One of these readers then represents all of
them: the function is exact for the cut that the reader is chosen for, and never too high for other cuts.
"""

from dataclasses import dataclass

import numpy as np

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.space import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Alive:
    """Bytes in use while one unit runs on the device, without weights.

    Attributes:
        always: bytes in every cut that has this unit on the device.
        by_unit: (units,) bytes to add for each unit on the device.
        by_tensor: (tensors,) bytes to add for each tensor that crosses.
    """

    always: float
    by_unit: FloatArray
    by_tensor: FloatArray


def alive_while(graph: Graph, unit: int, device: frozenset[int], direction: Direction) -> Alive:
    """Return the bytes in use while *unit* runs; exact for the cut with the units of *device* on the device."""
    find = _kept_or_sent if direction == "device-first" else _kept_or_received
    return find(graph, unit, device)


def _kept_or_sent(graph: Graph, unit: int, _: frozenset[int]) -> Alive:
    """Handle a device that runs first.

    A tensor with a later reader is in memory once it was produced: for that reader, or to be sent. After its
    last reader it is in memory only if it crosses.
    """
    always = float(graph.units[unit].scratch_bytes)
    by_unit, by_tensor = np.zeros(len(graph.units)), np.zeros(len(graph.tensors))
    for index, tensor in enumerate(graph.tensors):
        nbytes, made = tensor.nbytes or 0, tensor.producer
        if made is not None and made > unit:
            continue
        if not (made == unit or tensor.is_output or any(reader >= unit for reader in tensor.consumers)):
            by_tensor[index] = nbytes
        elif made is None:
            always += nbytes
        else:
            by_unit[made] += nbytes
    return Alive(always, by_unit, by_tensor)


def _kept_or_received(graph: Graph, unit: int, device: frozenset[int]) -> Alive:
    """Handle a device that runs second.

    Model outputs stay in memory until they are returned, on whichever side they were made; other tensors stay
    until their last reader on the device has run. All readers of a tensor made on the device are there, too.
    """
    always = float(graph.units[unit].scratch_bytes)
    by_unit, by_tensor = np.zeros(len(graph.units)), np.zeros(len(graph.tensors))
    for index, tensor in enumerate(graph.tensors):
        nbytes, made = tensor.nbytes or 0, tensor.producer
        stays = made == unit or tensor.is_output
        to_come = [reader for reader in tensor.consumers if reader >= unit]
        if stays:
            always += nbytes
        if made is not None and made > unit:  # in memory only if it was received
            if tensor.is_output:
                by_unit[made] -= nbytes
            else:
                by_tensor[index] = nbytes
        elif to_come and not stays:
            by_unit[max(to_come, key=lambda reader: (reader in device, reader))] += nbytes
    return Alive(always, by_unit, by_tensor)
