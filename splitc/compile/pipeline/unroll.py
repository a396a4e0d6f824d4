"""A pipeline as one graph: the units of stages that run once, and each iteration of the others as one unit.

Iterations share their weights. Cuts of this graph are those of the pipeline: between stages, between iterations,
and inside stages that run once. Where there is one model only, the graph is that of the model.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from splitc.compile.pipeline.analyse import PipelineAnalysis, peak_bytes
from splitc.compile.pipeline.ports import renamed
from splitc.compile.pipeline.stages import ModelCall, Stage
from splitc.compile.pipeline.unrolled import Origin, Unrolled
from splitc.model.analysis import Analysis
from splitc.model.graph import Graph, Tensor, Unit, Weight, device_only


def unroll(found: PipelineAnalysis) -> Unrolled:
    """The graph of the analysed pipeline.

    A stage that runs once is a single unit where its model has an output that none of its units makes, which no cut
    inside could tell a side to make.
    """
    if found.pipeline.only is not None:
        return _one_model(found, found.pipeline.only)
    made = _Unrolling(found)
    for name in found.pipeline.inputs:
        made.current[name] = made.tensor(name, name)
    for number, stage in enumerate(found.pipeline.stages):
        if stage.loop is not None:
            made.loop(number, stage)
        elif has_units(found.analysis(number)):
            made.units(number, stage)
        else:
            made.whole(number, stage)
    return made.finished()


def _one_model(found: PipelineAnalysis, call: ModelCall) -> Unrolled:
    """The graph of the only model, its inputs and outputs under the names of the values."""
    graph = found.analysis(0).partition.graph
    names = {**call.outputs, **call.inputs}
    inner: dict[tuple[int, str], str] = {}
    taken = {*names.values(), *(tensor.name for tensor in graph.tensors)}
    for tensor in graph.tensors:
        if tensor.name not in names:
            name = tensor.name
            if name in names.values():
                while name in taken:
                    name += "'"
                taken.add(name)
            inner[0, tensor.name] = name
    values = tuple(names.get(tensor.name) or inner[0, tensor.name] for tensor in graph.tensors)
    tensors = tuple(replace(tensor, name=value) for tensor, value in zip(graph.tensors, values, strict=True))
    places = tuple(Origin(0, unit=number) for number in range(len(graph.units)))
    return Unrolled(replace(graph, tensors=tensors), places, values, inner)


def has_units(analysis: Analysis) -> bool:
    """Whether every output of the model is made by one of its units."""
    made = {tensor.name for tensor in analysis.partition.graph.tensors if tensor.producer is not None}
    return made.issuperset(analysis.model.outputs())


@dataclass(slots=True)
class _Draft:
    """A tensor under construction."""

    name: str
    value: str
    dtype: str
    shape: tuple[int | str, ...]
    nbytes: int | None
    producer: int | None
    consumers: list[int]
    is_output: bool = False


@dataclass(slots=True)
class _Unrolling:
    """The graph so far.

    Attributes:
        current: the tensor that each value is at the moment.
        units_made: name, weights and scratch of each unit.
    """

    found: PipelineAnalysis
    current: dict[str, int] = field(default_factory=dict)
    tensors: list[_Draft] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    weights: dict[tuple[str, str], int] = field(default_factory=dict)
    weight_bytes: list[Weight] = field(default_factory=list)
    units_made: list[tuple[str, tuple[int, ...], int]] = field(default_factory=list)
    places: list[Origin] = field(default_factory=list)
    inner: dict[tuple[int, str], str] = field(default_factory=dict)

    def tensor(self, name: str, value: str, producer: int | None = None) -> int:
        """Add a tensor that holds the pipeline's value *value*; *name* is made unique."""
        size = self.found.sizes[value]
        nbytes = size.nbytes if size.dtype is not None else None
        return self._add(_Draft(name, value, size.dtype or "string", size.shape, nbytes, producer, []))

    def _add(self, draft: _Draft) -> int:
        while draft.name in self.names:
            draft.name += "'"
        self.names.add(draft.name)
        self.tensors.append(draft)
        return len(self.tensors) - 1

    def _unit(self, name: str, place: Origin, weights: Iterable[int], scratch_bytes: int) -> int:
        self.places.append(place)
        self.units_made.append((name, tuple(sorted(set(weights))), scratch_bytes))
        return len(self.places) - 1

    def _weights(self, analysis: Analysis) -> list[int]:
        """Positions of the weights of a model, which all of its runs share."""
        positions = []
        for weight in analysis.partition.graph.weights:
            key = (analysis.model.sha256, weight.name)
            if key not in self.weights:
                self.weights[key] = len(self.weight_bytes)
                self.weight_bytes.append(Weight(f"{analysis.model.name}/{weight.name}", weight.nbytes))
            positions.append(self.weights[key])
        return positions

    def units(self, number: int, stage: Stage) -> None:
        """Add a stage that runs once, unit by unit."""
        analysis, (call,) = self.found.analysis(number), stage.calls
        graph, weights = analysis.partition.graph, self._weights(analysis)
        first = len(self.places)
        for position, unit in enumerate(graph.units):
            own = [weights[weight] for weight in unit.weights]
            self._unit(f"{stage.name}/{unit.name}", Origin(number, unit=position), own, unit.scratch_bytes)
        for tensor in graph.tensors:
            if tensor.producer is None:
                index = self.current[call.inputs[tensor.name]]
            elif tensor.name in call.outputs:
                value = call.outputs[tensor.name]
                index = self.current[value] = self.tensor(value, value, first + tensor.producer)
            else:
                index = self._inner(number, stage, tensor, first + tensor.producer)
            self.tensors[index].consumers += [first + consumer for consumer in tensor.consumers]

    def _inner(self, number: int, stage: Stage, tensor: Tensor, producer: int) -> int:
        """Add a tensor inside a stage that runs once; no value bears its name."""
        name = f"{stage.name}/{tensor.name}"
        while name in self.found.sizes or name in self.names:
            name += "'"
        self.inner[number, tensor.name] = name
        shape = renamed(tensor.shape, self.found.dim_names[number][0])
        return self._add(_Draft(name, name, tensor.dtype, shape, tensor.nbytes, producer, []))

    def whole(self, number: int, stage: Stage) -> None:
        """Add a stage as one unit."""
        unit = self._run(stage.name, Origin(number), number, stage)
        for call in stage.calls:
            for value in call.outputs.values():
                self.current[value] = self.tensor(value, value, unit)

    def loop(self, number: int, stage: Stage) -> None:
        """Add every iteration as one unit; a value that only its own iteration reads is not a tensor of the graph."""
        assert stage.loop is not None, "the caller asked"
        for value, begin in stage.loop.carry.items():
            self.current[value] = self.current[begin]
        for iteration in range(stage.loop.times):
            last = iteration + 1 == stage.loop.times
            unit = self._run(f"{stage.name}[{iteration}]", Origin(number, iteration=iteration), number, stage)
            for value in sorted(stage.made()) if last else stage.loop.carry:
                name = value if last else f"{value}[{iteration + 1}]"
                self.current[value] = self.tensor(name, value, unit)

    def _run(self, name: str, place: Origin, number: int, stage: Stage) -> int:
        """Add a unit that does all calls of *stage* once."""
        analyses = [self.found.analyses[index] for index in self.found.calls[number]]
        weights = [weight for analysis in analyses for weight in self._weights(analysis)]
        unit = self._unit(name, place, weights, self._scratch_bytes(stage, analyses))
        for value in _read_from_outside(stage):
            self.tensors[self.current[value]].consumers.append(unit)
        return unit

    def _scratch_bytes(self, stage: Stage, analyses: list[Analysis]) -> int:
        """At most what is alive inside one iteration: all values that it makes, and the most that a call needs."""
        inner = sum(self.found.sizes[value].nbytes for value in stage.made())
        return inner + max(peak_bytes(analysis.partition.graph) for analysis in analyses)

    def finished(self) -> Unrolled:
        """Leave out what nobody reads, and number the rest."""
        for name in self.found.pipeline.outputs:
            self.tensors[self.current[name]].is_output = True
        kept = [draft for draft in self.tensors if draft.consumers or draft.is_output]
        tensors = tuple(
            Tensor(
                draft.name,
                draft.dtype,
                draft.shape,
                draft.nbytes,
                draft.producer,
                tuple(sorted(set(draft.consumers))),
                draft.is_output,
            )
            for draft in kept
        )
        reads: defaultdict[int, list[int]] = defaultdict(list)
        makes: defaultdict[int, list[int]] = defaultdict(list)
        for position, tensor in enumerate(tensors):
            for consumer in tensor.consumers:
                reads[consumer].append(position)
            if tensor.producer is not None:
                makes[tensor.producer].append(position)
        units = tuple(
            Unit(name, (), tuple(reads[number]), tuple(makes[number]), weights, (), scratch)
            for number, (name, weights, scratch) in enumerate(self.units_made)
        )
        graph = Graph(units, tensors, tuple(self.weight_bytes), device_only(tensors))
        return Unrolled(graph, tuple(self.places), tuple(draft.value for draft in kept), self.inner)


def _read_from_outside(stage: Stage) -> list[str]:
    """The values that a run of all calls takes from before it; rows of `each` lie on both sides."""
    made = set(stage.loop.each if stage.loop is not None else ())
    found = []
    for call in stage.calls:
        found += [value for value in call.inputs.values() if value not in made]
        made |= set(call.outputs.values())
    return list(dict.fromkeys(found))
