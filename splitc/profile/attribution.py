"""From the nodes that a runtime ran to the units that splitc cuts: whose time is whose.

A profiler writes an event down for every node, also inside the bodies of If and Loop, and does it while
the node's clock still runs: 3 to 10 us each, more than a small node takes. What the nodes took beyond
the run without profiling is therefore taken off evenly, event by event. Only what then remains between
the two is a matter of proportion.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from splitc.common.errors import ProfileError
from splitc.model.graph import Graph
from splitc.model.nodes import Sources
from splitc.model.units import Partition
from splitc.profile.document import Measurement, NodeTimes, Profile, UnitTimes, measurement_sha256

# ONNX Runtime computes fp16 operators that it lacks in fp32 and calls their tensors so.
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
    """Times of the units in one *measurement* of *profile*.

    Raises:
        ProfileError: it holds no nodes, or none that belongs to the model.
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
    """What any call of the runtime costs; never more than the whole run. None if that was not measured."""
    if not measurement.fixed_s:
        return None
    return min(median(measurement.fixed_s), median(measurement.whole_s))


def unit_seconds(measurement: Measurement, sources: Sources, graph: Graph) -> tuple[float, ...]:
    """Seconds of each unit; with the fixed cost, they add up to the median whole run without profiling.

    Raises:
        ProfileError: the measurement holds no nodes, or none that belongs to the model.
    """
    if not measurement.nodes:
        raise ProfileError(
            "the profile holds times of the whole model only, not of its nodes; record one with `splitc profile`, "
            "or calibrate a target with it"
        )
    units = _units_of_nodes(measurement.nodes, sources, graph)
    own = [(node, unit) for node, unit in zip(measurement.nodes, units, strict=True) if unit is not None]
    node_s = [_middle(node.seconds) for node, _ in own]
    if sum(node_s) <= 0:
        raise ProfileError(
            "no node of the profile belongs to this model; record one of it with `splitc profile`"
        )
    run_s = median(measurement.whole_s) - (fixed_s(measurement) or 0.0)
    event_s = max(0.0, sum(node_s) - run_s) / sum(node.events for node, _ in own)
    seconds = [0.0] * len(graph.units)
    for (node, unit), value in zip(own, node_s, strict=True):
        seconds[unit] += max(0.0, value - event_s * node.events)
    total = sum(seconds)
    scale = run_s / total if total > 0 else 0.0
    return tuple(scale * value for value in seconds)


def _middle(samples: Sequence[float]) -> float:
    """The mean of the middle quarter: a median alone would show that runtimes count whole microseconds."""
    low = len(samples) * 3 // 8
    return fmean(sorted(samples)[low : len(samples) - low])


def attributed_share(measurement: Measurement, sources: Sources, graph: Graph) -> float:
    """How much of the time of its nodes belongs to units of *graph*: 0 to 1; 0 also if it holds no nodes."""
    seconds = [_middle(node.seconds) for node in measurement.nodes]
    units = _units_of_nodes(measurement.nodes, sources, graph)
    known_s = sum(value for value, unit in zip(seconds, units, strict=True) if unit is not None)
    return known_s / sum(seconds) if known_s else 0.0


def _units_of_nodes(nodes: Sequence[NodeTimes], sources: Sources, graph: Graph) -> list[int | None]:
    """The unit that each profiled node belongs to; None for one that nothing connects to a unit.

    A node is recognised by a tensor it makes, else by its own name. What ONNX Runtime inserted
    (reorders, casts, transposes) belongs to the unit that reads it, else to the one that it reads.
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
    # At level ALL convolutions are called after the tensor they made; casts of fp16 bear a prefix.
    for name in (node.name, *node.outputs):
        plain = name.removeprefix(_CAST_PREFIX).removesuffix("_nchwc")
        if plain in by_tensor:
            return by_tensor[plain]
    return by_name.get(node.name)
