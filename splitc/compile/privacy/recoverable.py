"""Find the tensors of a pipeline from which a private one can be recovered, through all of its stages."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.stages import Loop, ModelCall
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.model.lossless import LosslessPaths, lossless_paths

Inner = tuple[int, str]
"""A tensor inside a stage: the stage's number, and the tensor's name in its model."""

_NAMED = 6


def recoverable_tensors(
    found: PipelineAnalysis, unrolled: Unrolled, private: frozenset[int], inside: frozenset[Inner]
) -> frozenset[int]:
    """Find the tensors of the unrolled graph from which operators that lose nothing recover a private one.

    They are made from it without a loss, or it is made from them.

    Args:
        private: those of the graph that are private.
        inside: private tensors that are inside a unit.
    """
    if not private and not inside:
        return frozenset()
    steps = _steps(found, unrolled)
    back = _Telling(set(private), set(inside))
    for step in reversed(steps):
        step.back(back)
    # What precedes a private tensor may be split into pieces that have nothing to do with it.
    onward = _Telling(set(back.tensors), set(back.inside))
    for step in steps:
        step.onward(onward, divide=False)
    pieces = _Telling(set(private), set(inside))
    for step in steps:
        step.onward(pieces, divide=True)
    return frozenset(onward.tensors | pieces.tensors) - private


def recoverable_note(
    unrolled: Unrolled, private: Iterable[str], recoverable: Iterable[int]
) -> tuple[str, ...]:
    """Say which tensors stay on the device besides the *private* ones; nothing if there are none."""
    names = list(dict.fromkeys(unrolled.values[index] for index in sorted(recoverable)))
    if not names:
        return ()
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    told = list(dict.fromkeys(private))
    what = f"the private tensor '{told[0]}'" if len(told) == 1 else "a private tensor"
    note = (
        f"also kept on the device: {', '.join(names[:_NAMED])}{more}, because {what} can be recovered from "
        f"{'it' if len(names) == 1 else 'them'}, wholly or in part"
    )
    return (note,)


@dataclass(slots=True)
class _Telling:
    """What tells of a private tensor, as far as is known: tensors of the graph, and tensors inside stages."""

    tensors: set[int]
    inside: set[Inner]


@dataclass(frozen=True, slots=True)
class _DividedStage:
    """A stage that is cut inside.

    Attributes:
        tensors: those of the graph, by their names in the stage's model.
    """

    stage: int
    paths: LosslessPaths
    tensors: Mapping[str, int]

    def onward(self, known: _Telling, *, divide: bool) -> None:
        """Add what the stage makes of *known* without a loss."""
        self._add(known, self.paths.onward(self._names(known), divide=divide))

    def back(self, known: _Telling) -> None:
        """Add what the stage makes *known* from without a loss."""
        self._add(known, self.paths.back(self._names(known)))

    def _names(self, known: _Telling) -> set[str]:
        names = {name for name, index in self.tensors.items() if index in known.tensors}
        return names | {name for stage, name in known.inside if stage == self.stage}

    def _add(self, known: _Telling, names: Iterable[str]) -> None:
        for name in names:
            known.inside.add((self.stage, name))
            if name in self.tensors:
                known.tensors.add(self.tensors[name])


@dataclass(frozen=True, slots=True)
class _StageRun:
    """An iteration of a loop, or a stage that is never cut inside.

    Attributes:
        begins: what carried values begin as, in the first iteration.
        takes, makes: tensors of the graph with their values.
    """

    calls: tuple[tuple[ModelCall, LosslessPaths], ...]
    begins: Mapping[str, str]
    takes: Mapping[int, str]
    makes: Mapping[int, str]

    def onward(self, known: _Telling, *, divide: bool) -> None:
        """Add what the calls make of *known* without a loss."""
        values = {value for index, value in self.takes.items() if index in known.tensors}
        values |= {value for value, begin in self.begins.items() if begin in values}
        for call, paths in self.calls:
            given = {name for name, value in call.inputs.items() if value in values}
            made = paths.onward(given, divide=divide)
            for name, value in call.outputs.items():
                values = values | {value} if name in made else values - {value}
        known.tensors |= {index for index, value in self.makes.items() if value in values}

    def back(self, known: _Telling) -> None:
        """Add what the calls make *known* from without a loss."""
        values = {value for index, value in self.makes.items() if index in known.tensors}
        for call, paths in reversed(self.calls):
            names = {name for name, value in call.outputs.items() if value in values}
            sources = paths.back(names)
            values -= set(call.outputs.values())
            values |= {value for name, value in call.inputs.items() if name in sources}
        values |= {begin for value, begin in self.begins.items() if value in values}
        known.tensors |= {index for index, value in self.takes.items() if value in values}


@dataclass(slots=True)
class _PathsOfAnalyses:
    """The paths of each analysis, found when they are first needed."""

    found: PipelineAnalysis
    known: dict[int, LosslessPaths] = field(default_factory=dict)

    def __call__(self, number: int) -> LosslessPaths:
        if number not in self.known:
            analysis = self.found.analyses[number]
            self.known[number] = lossless_paths(analysis.model, analysis.sources, analysis.sizes)
        return self.known[number]


def _steps(found: PipelineAnalysis, unrolled: Unrolled) -> list[_DividedStage | _StageRun]:
    """The stages and iterations in running order."""
    paths = _PathsOfAnalyses(found)
    steps: list[_DividedStage | _StageRun] = []
    numbered = enumerate(unrolled.places)
    for (stage, iteration), group in groupby(numbered, key=lambda item: (item[1].stage, item[1].iteration)):
        units = [number for number, _ in group]
        if unrolled.places[units[0]].unit is not None:
            names = dict(_stage_tensors(found, unrolled, stage, units))
            steps.append(_DividedStage(stage, paths(found.calls[stage][0]), names))
            continue
        (unit,) = units
        described, graph = found.pipeline.stages[stage], unrolled.graph
        steps.append(
            _StageRun(
                tuple(zip(described.calls, map(paths, found.calls[stage]), strict=True)),
                _begins(described.loop) if iteration == 0 else {},
                {index: unrolled.values[index] for index in graph.units[unit].inputs},
                {index: unrolled.values[index] for index in graph.units[unit].outputs},
            )
        )
    return steps


def _begins(loop: Loop | None) -> Mapping[str, str]:
    return loop.carry if loop is not None else {}


def _stage_tensors(
    found: PipelineAnalysis, unrolled: Unrolled, stage: int, units: list[int]
) -> Iterator[tuple[str, int]]:
    """Each tensor of a stage that runs once and is in the graph, by its name in the stage's model."""
    (call,) = found.pipeline.stages[stage].calls
    graph = unrolled.graph
    read = {unrolled.values[index]: index for unit in units for index in graph.units[unit].inputs}
    made = {unrolled.values[index]: index for unit in units for index in graph.units[unit].outputs}
    for name, value in call.inputs.items():
        if value in read:
            yield name, read[value]
    for node in found.analysis(stage).sources.nodes:
        for output in node.outputs:
            name = output.name or ""
            value = call.outputs.get(name) or unrolled.inner.get((stage, name), "")
            if value in made:
                yield name, made[value]
