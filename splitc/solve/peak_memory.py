"""What is alive on the device while one of its units runs, as a linear function of a cut.

Most tensors are alive in the cuts that have one certain unit on the device or in the cloud, or in which the
tensor crosses. Only one that a cloud-first cut receives is alive for as long as any of its readers on the
device is still to come, which is no linear function. One of these readers then stands for all: the function
is exact for the cut that the reader is chosen for, and never too high for others.
"""

from dataclasses import dataclass

import numpy as np

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.space import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Alive:
    """Bytes alive while some unit runs on the device, weights aside.

    Attributes:
        always: in every cut that has this unit on the device.
        by_unit: (units,) besides, for each unit on the device.
        by_tensor: (tensors,) besides, for each tensor that crosses.
    """

    always: float
    by_unit: FloatArray
    by_tensor: FloatArray


def alive_while(graph: Graph, unit: int, device: frozenset[int], direction: Direction) -> Alive:
    """Bytes alive while *unit* runs; exact for the cut that has the units of *device* on the device."""
    find = _kept_or_sent if direction == "device-first" else _kept_or_received
    return find(graph, unit, device)


def _kept_or_sent(graph: Graph, unit: int, _: frozenset[int]) -> Alive:
    """A tensor with a reader to come is alive if it was made at all: for that reader, or to be sent.

    After its last reader it is alive only if it crosses.
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
    """Model outputs wait to be returned, whoever made them, and all else for its last reader here.

    What an earlier unit makes here has all its readers here.
    """
    always = float(graph.units[unit].scratch_bytes)
    by_unit, by_tensor = np.zeros(len(graph.units)), np.zeros(len(graph.tensors))
    for index, tensor in enumerate(graph.tensors):
        nbytes, made = tensor.nbytes or 0, tensor.producer
        stays = made == unit or tensor.is_output
        to_come = [reader for reader in tensor.consumers if reader >= unit]
        if stays:
            always += nbytes
        if made is not None and made > unit:  # here already only if it was received
            if tensor.is_output:
                by_unit[made] -= nbytes
            else:
                by_tensor[index] = nbytes
        elif to_come and not stays:
            by_unit[max(to_come, key=lambda reader: (reader in device, reader))] += nbytes
    return Alive(always, by_unit, by_tensor)
