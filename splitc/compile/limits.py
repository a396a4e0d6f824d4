"""From what a user asks for (names, budgets) to limits on units and tensors."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from splitc.common.errors import ModelError
from splitc.common.records import did_you_mean
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.privacy.recoverable import Inner, recoverable_tensors
from splitc.model.model import Model
from splitc.solve.costs import Limits

Named = Mapping[str, Iterable[int]]


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """Pins name nodes, or tensors for the node that makes them; `private` names tensors.

    Of a pipeline of several models, pins name a stage (all of its iterations), a value (whatever makes it), or
    "stage/node" of a stage that runs once; `private` names a value, or "stage/tensor".

    Attributes:
        max_leak: the largest leak figure of a cut, 0 to 1; needs samples.
    """

    pin_device: tuple[str, ...] = ()
    pin_cloud: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    max_leak: float | None = None
    max_device_weight_bytes: int | None = None
    max_device_peak_bytes: int | None = None
    max_payload_bytes: int | None = None
    max_energy_j: float | None = None


def read_limits(options: LimitOptions, found: PipelineAnalysis, unrolled: Unrolled) -> Limits:
    """Find what *options* name in the graph.

    Raises:
        ModelError: a name that the model or pipeline does not have.
    """
    nodes, makers = _units_by_name(found, unrolled)
    crossing = _tensors_by_name(unrolled)
    gone = _names_as_given(found) - (nodes | makers | crossing).keys()
    is_model = found.pipeline.only is not None
    pins = _Names("node or tensor" if is_model else "stage, value or node", makers | nodes, gone, found)
    tensors = _Names("tensor" if is_model else "value", makers | crossing, gone, found)
    # A tensor inside a unit never crosses; its unit must only be on the device.
    inner = tensors.find([name for name in options.private if name not in crossing], "--private")
    private = tensors.find([name for name in options.private if name in crossing], "--private")
    return Limits(
        pin_device=pins.find(options.pin_device, "--pin-device") | inner,
        pin_cloud=pins.find(options.pin_cloud, "--pin-cloud"),
        private=private,
        recoverable=recoverable_tensors(found, unrolled, private, private_inside(options, found, unrolled)),
        max_device_weight_bytes=options.max_device_weight_bytes,
        max_device_peak_bytes=options.max_device_peak_bytes,
        max_payload_bytes=options.max_payload_bytes,
        max_energy_j=options.max_energy_j,
    )


def private_inside(options: LimitOptions, found: PipelineAnalysis, unrolled: Unrolled) -> frozenset[Inner]:
    """The private tensors that never cross, because they are inside a unit: of which stage, and their names there."""
    crossing = set(unrolled.values)
    stages = {place.stage for place in unrolled.places if place.unit is not None}
    return frozenset(
        (stage, output.name)
        for stage in stages
        for node in found.analysis(stage).sources.nodes
        for output in node.outputs
        if output.name
        and (name := f"{_prefix(found, found.pipeline.stages[stage].name)}{output.name}") in options.private
        and name not in crossing
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that a user may give.

    Attributes:
        what: the kind of name.
        known: the units or tensors that each name stands for.
        gone: names that the models had as they were given, and have no more.
    """

    what: str
    known: Named
    gone: frozenset[str]
    found: PipelineAnalysis

    def find(self, names: Iterable[str], option: str) -> frozenset[int]:
        """All that *names*, given with *option*, stand for."""
        return frozenset(number for name in names for number in self._one(name, option))

    def _one(self, name: str, option: str) -> Iterable[int]:
        if name in self.known:
            return self.known[name]
        if name in self.gone:
            raise ModelError(
                f"{option}: '{name}' depends on no input, or is simplified away; "
                "add --no-simplify or name another"
            )
        raise ModelError(
            f"{option}: the {self.found.pipeline.noun} has no {self.what} '{name}'"
            f"{did_you_mean(name, self.known) or ';'} `splitc inspect --tensors` lists what could be cut"
        )


def _units_by_name(
    found: PipelineAnalysis, unrolled: Unrolled
) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """The units of stages and nodes, and those that make tensors and values."""
    nodes: defaultdict[str, set[int]] = defaultdict(set)
    makers: defaultdict[str, set[int]] = defaultdict(set)
    for number, place in enumerate(unrolled.places):
        stage = found.pipeline.stages[place.stage]
        if found.pipeline.only is None:
            nodes[stage.name].add(number)
        if place.unit is not None:
            analysis, prefix = found.analysis(place.stage), _prefix(found, stage.name)
            for index in analysis.partition.graph.units[place.unit].nodes:
                node = analysis.sources.nodes[index]
                nodes[f"{prefix}{node.name or ''}"].add(number)
                for output in node.outputs:
                    if output.name:
                        makers[f"{prefix}{output.name}"].add(number)
    for tensor, value in zip(unrolled.graph.tensors, unrolled.values, strict=True):
        if tensor.producer is not None:
            makers[value].add(tensor.producer)
    return nodes, makers


def _tensors_by_name(unrolled: Unrolled) -> dict[str, set[int]]:
    """Names of values; a value that a loop carries is several tensors."""
    names: defaultdict[str, set[int]] = defaultdict(set)
    for number, value in enumerate(unrolled.values):
        names[value].add(number)
    return names


def _names_as_given(found: PipelineAnalysis) -> frozenset[str]:
    """Names of all nodes, and of the tensors that they make, before anything was simplified."""
    return frozenset(
        f"{_prefix(found, stage.name)}{name}"
        for number, stage in enumerate(found.pipeline.stages)
        for name in _names(found.analysis(number).original)
    )


def _prefix(found: PipelineAnalysis, stage: str) -> str:
    return f"{stage}/" if found.pipeline.only is None else ""


def _names(model: Model) -> Iterable[str]:
    for node in model.ir.graph:
        yield from (name for name in (node.name, *(output.name for output in node.outputs)) if name)
