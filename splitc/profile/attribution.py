"""Attribute the profiled times of nodes to the units of a model.

The profiler records an event for every node, also inside the bodies of If and Loop. Recording takes 3 to
10 us, often more than a small node, and counts as time of the node. The difference between the sum of all
nodes and a run without profiling is therefore subtracted in equal shares per event. A remaining difference
is removed by scaling all units.
"""

from collections.abc import Mapping, Sequence
from math import fsum
from statistics import fmean, median

from splitc.common.errors import ProfileError
from splitc.model.graph import Graph
from splitc.model.nodes import Sources
from splitc.model.units import Partition
from splitc.profile.document import Measurement, NodeTimes, Profile, UnitTimes, measurement_sha256

# ONNX Runtime computes fp16 operators without an fp16 kernel in fp32, and puts this before their tensors' names.
_CAST_PREFIX = "InsertedPrecisionFreeCast_"


def measured_times(
    profile: Profile,
    measurement: Measurement,
    target: str,
    sources: Sources,
    partition: Partition,
    *,
    here: bool = False,
) -> UnitTimes:
    """Return the times of the units in one *measurement* of *profile*.

    Args:
        here: whether it was measured on this machine.

    Raises:
        ProfileError: the measurement has no nodes, or none that belongs to the model.
    """
    return UnitTimes(
        target=target,
        source=profile.source,
        runtime=profile.runtime,
        runtime_version=profile.runtime_version,
        provider=profile.provider,
        threads=measurement.threads,
        seconds=unit_seconds(measurement, sources, partition.graph),
        fixed_s=fixed_s(measurement),
        interval=measurement.spread(),
        sha256=measurement_sha256(profile, measurement),
        here=here,
    )


def fixed_s(measurement: Measurement) -> float | None:
    """Return the fixed cost of a call in seconds, at most that of a whole run; None if it was not measured."""
    if not measurement.fixed_s:
        return None
    return min(median(measurement.fixed_s), median(measurement.whole_s))


def unit_seconds(measurement: Measurement, sources: Sources, graph: Graph) -> tuple[float, ...]:
    """Return the seconds of each unit; with the fixed cost, they add up to the median run without profiling.

    Raises:
        ProfileError: the measurement has no nodes, or none that belongs to the model.
    """
    if not measurement.nodes:
        raise ProfileError(
            "the profile has only times of the whole model, not of its nodes; record one with `splitc profile`, "
            "or use this one to calibrate a target"
        )
    units = _units_of_nodes(measurement.nodes, sources, graph)
    own = [(node, unit) for node, unit in zip(measurement.nodes, units, strict=True) if unit is not None]
    node_s = [_middle(node.seconds) for node, _ in own]
    if fsum(node_s) <= 0:
        raise ProfileError(
            "no node of the profile belongs to this model; record a profile of it with `splitc profile`"
        )
    run_s = median(measurement.whole_s) - (fixed_s(measurement) or 0.0)
    event_s = max(0.0, fsum(node_s) - run_s) / sum(node.events for node, _ in own)
    seconds = [0.0] * len(graph.units)
    for (node, unit), value in zip(own, node_s, strict=True):
        seconds[unit] += max(0.0, value - event_s * node.events)
    total = fsum(seconds)
    scale = run_s / total if total > 0 else 0.0
    return tuple(scale * value for value in seconds)


def _middle(samples: Sequence[float]) -> float:
    """Return the mean of the middle quarter: a median would be rounded to the runtime's whole microseconds."""
    low = len(samples) * 3 // 8
    return fmean(sorted(samples)[low : len(samples) - low])


def attributed_share(measurement: Measurement, sources: Sources, graph: Graph) -> float:
    """Return the share of the nodes' time that belongs to units of *graph*, from 0 to 1; 0 if there are no nodes."""
    seconds = [_middle(node.seconds) for node in measurement.nodes]
    units = _units_of_nodes(measurement.nodes, sources, graph)
    known_s = fsum(value for value, unit in zip(seconds, units, strict=True) if unit is not None)
    return known_s / fsum(seconds) if known_s else 0.0


def _units_of_nodes(nodes: Sequence[NodeTimes], sources: Sources, graph: Graph) -> list[int | None]:
    """Return the unit that each profiled node belongs to; None for a node that is not connected to a unit.

    A node is recognised by the name of an output, else by its own name. A node that ONNX Runtime inserted
    (a reorder, cast or transpose) belongs to the unit that reads its output, else to the unit whose output it reads.
    """
    by_tensor: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for number, unit in enumerate(graph.units):
        for index in unit.nodes:
            source = sources.nodes[index]
            by_name[source.name or ""] = number
            by_tensor |= {output.name or "": number for output in source.outputs}
    found: list[int | None] = [_recognise(node, by_tensor, by_name) for node in nodes]
    readers: dict[str, int] = {}
    for position in reversed(range(len(found))):
        node = nodes[position]
        if found[position] is None:
            found[position] = next((readers[name] for name in node.outputs if name in readers), None)
        if (unit_number := found[position]) is not None:
            readers |= dict.fromkeys(node.inputs, unit_number)
    makers: dict[str, int] = {}
    for position, node in enumerate(nodes):
        if found[position] is None:
            found[position] = next((makers[name] for name in node.inputs if name in makers), None)
        if (unit_number := found[position]) is not None:
            makers |= dict.fromkeys(node.outputs, unit_number)
    return found


def _recognise(node: NodeTimes, by_tensor: Mapping[str, int], by_name: Mapping[str, int]) -> int | None:
    for output in node.outputs:
        if output in by_tensor:
            return by_tensor[output]
    # At level ALL, a convolution is named after its original output; tensors around fp16 casts have a prefix.
    for name in (node.name, *node.outputs):
        plain = name.removeprefix(_CAST_PREFIX).removesuffix("_nchwc")
        if plain in by_tensor:
            return by_tensor[plain]
    return by_name.get(node.name)
