"""From what a user asks for (names of stages and values, budgets) to limits on the unrolled graph."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from splitc.common.errors import ModelError
from splitc.common.records import did_you_mean
from splitc.compile.limits import LimitOptions
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.solve.costs import Limits

Named = Mapping[str, Iterable[int]]


def pipeline_limits(options: LimitOptions, found: PipelineAnalysis, unrolled: Unrolled) -> Limits:
    """Find what *options* name.

    Pins name a stage (all of its iterations), a value (whatever makes it), or "stage/node" of a stage that runs once;
    privacy names a value, or "stage/tensor".

    Raises:
        ModelError: a name that the pipeline does not have.
    """
    units, tensors = _units(found, unrolled), _tensors(unrolled)
    return Limits(
        pin_device=_find(options.pin_device, units, "--pin-device", "stage, value or node"),
        pin_cloud=_find(options.pin_cloud, units, "--pin-cloud", "stage, value or node"),
        private=_find(options.private, tensors, "--private", "value"),
        max_device_weight_bytes=options.max_device_weight_bytes,
        max_device_peak_bytes=options.max_device_peak_bytes,
        max_payload_bytes=options.max_payload_bytes,
        max_energy_j=options.max_energy_j,
    )


def _units(found: PipelineAnalysis, unrolled: Unrolled) -> Named:
    names: defaultdict[str, set[int]] = defaultdict(set)
    for number, place in enumerate(unrolled.places):
        stage = found.pipeline.stages[place.stage]
        names[stage.name].add(number)
        if place.unit is not None:
            analysis = found.analysis(place.stage)
            for index in analysis.partition.graph.units[place.unit].nodes:
                node = analysis.sources.nodes[index]
                for name in (node.name, *(output.name for output in node.outputs)):
                    if name:
                        names[f"{stage.name}/{name}"].add(number)
    for tensor, value in zip(unrolled.graph.tensors, unrolled.values, strict=True):
        if tensor.producer is not None:
            names[value].add(tensor.producer)
    return names


def _tensors(unrolled: Unrolled) -> Named:
    """A value that a loop carries is several tensors."""
    names: defaultdict[str, set[int]] = defaultdict(set)
    for number, value in enumerate(unrolled.values):
        names[value].add(number)
    return names


def _find(wanted: Iterable[str], known: Named, option: str, what: str) -> frozenset[int]:
    found = set[int]()
    for name in wanted:
        if name not in known:
            raise ModelError(
                f"{option}: the pipeline has no {what} '{name}'{did_you_mean(name, known) or ';'} "
                f"it has {', '.join(sorted(known)[:20])}"
            )
        found |= set(known[name])
    return frozenset(found)
