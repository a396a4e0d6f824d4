"""Print a pipeline that is not compiled yet; return the same facts as a record for --json."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from splitc.cli.facts.pipeline import PipelineFacts, StageFacts, ValueFacts
from splitc.cli.terminal import Text, new_table
from splitc.common.formatting import format_bytes
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.places import Place, Traffic, places
from splitc.compile.pipeline.ports import shown
from splitc.compile.pipeline.stages import Stage
from splitc.compile.pipeline.unroll import has_units
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.model.sizes import Size

_SHOWN_INSIDE = 3


def pipeline_facts(found: PipelineAnalysis, unrolled: Unrolled) -> PipelineFacts:
    """What `splitc inspect --json` prints for a pipeline."""
    pipeline = found.pipeline
    return PipelineFacts(
        pipeline=pipeline.name,
        sha256=pipeline.sha256,
        inputs=tuple(pipeline.inputs),
        outputs=tuple(pipeline.outputs),
        stages=tuple(_stage_facts(found, number) for number in range(len(pipeline.stages))),
        values=tuple(_value_facts(found, name, size) for name, size in _passing(found)),
        places=places(found, unrolled),
        dims=dict(found.dims),
        notes=found.notes,
    )


def _stage_facts(found: PipelineAnalysis, number: int) -> StageFacts:
    stage = found.pipeline.stages[number]
    return StageFacts(
        name=stage.name,
        times=stage.loop.times if stage.loop is not None else None,
        models=tuple(call.model.path.name for call in stage.calls),
        units=_units(found, number),
        weight_bytes=_weight_bytes(stage),
        takes=tuple(_takes(stage)),
        makes=tuple(sorted(stage.made())),
    )


def _value_facts(found: PipelineAnalysis, name: str, size: Size) -> ValueFacts:
    return ValueFacts(
        name=name,
        dtype=size.dtype,
        shape=size.shape,
        bytes=size.nbytes,
        made_by=_maker(found.pipeline.stages, name),
        read_by=tuple(_readers(found, name)),
    )


def show_pipeline(found: PipelineAnalysis, unrolled: Unrolled, console: Console, *, tensors: bool) -> None:
    """Print the stages, the values that pass between them, and the best places to cut; with *tensors*, all places."""
    pipeline = found.pipeline
    weights = format_bytes(sum(model.weight_bytes() for model in pipeline.models))
    console.print(
        Text(
            f"{pipeline.name}: {len(pipeline.stages)} stages of {len(pipeline.models)} models, {weights} of weights"
        )
    )
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(_stage_table(found))
    console.print("values that pass from stage to stage, or from one iteration to the next:")
    console.print(_value_table(found))
    every = places(found, unrolled)
    told = every if tensors else tuple(_notable(every))
    console.print("places to cut, in order of execution, and what a request sends and receives there:")
    console.print(_place_table(told))
    if len(told) < len(every):
        console.print(
            f"{len(every) - len(told)} more places inside stages; list them with --tensors", style="dim"
        )


def _stage_table(found: PipelineAnalysis) -> Table:
    table = new_table("stage", "runs", "models", "units", "weights", "takes", right=("units", "weights"))
    for number, stage in enumerate(found.pipeline.stages):
        units = _units(found, number)
        table.add_row(
            Text(stage.name),
            f"{stage.loop.times} times" if stage.loop is not None else "once",
            Text(_counted(call.model.path.name for call in stage.calls)),
            str(units) if units is not None else "not cut inside",
            format_bytes(_weight_bytes(stage)),
            Text(", ".join(_takes(stage))),
        )
    return table


def _value_table(found: PipelineAnalysis) -> Table:
    table = new_table("value", "type", "bytes", "made by", "read by", right=("bytes",))
    for name, size in _passing(found):
        table.add_row(
            Text(name),
            Text(shown(size.dtype, size.shape)),
            format_bytes(size.nbytes),
            Text(_maker(found.pipeline.stages, name) or "input"),
            Text(", ".join(_readers(found, name))),
        )
    return table


def _place_table(told: Iterable[Place]) -> Table:
    table = new_table("after", "device first", "cloud first", "what crosses")
    for place in told:
        table.add_row(
            Text(place.words),
            _exchanged(place.device_first),
            _exchanged(place.cloud_first),
            Text(", ".join(place.crossing)),
        )
    return table


def _exchanged(traffic: Traffic | None) -> str:
    if traffic is None:
        return "cannot be sent"
    return f"{format_bytes(traffic.uplink_bytes)} up, {format_bytes(traffic.downlink_bytes)} down"


def _notable(every: Sequence[Place]) -> Iterable[Place]:
    """All hand-overs and, of each stage, the few places inside it with the least traffic."""
    inside: Counter[str] = Counter()
    chosen = {id(place) for place in every if place.unit is None}
    for place in sorted((place for place in every if place.unit is not None), key=_traffic):
        if inside[place.stage] < _SHOWN_INSIDE:
            inside[place.stage] += 1
            chosen.add(id(place))
    return (place for place in every if id(place) in chosen)


def _traffic(place: Place) -> float:
    both = (place.device_first, place.cloud_first)
    return min((item.uplink_bytes + item.downlink_bytes for item in both if item is not None), default=0)


# --- facts about stages and values ---


def _units(found: PipelineAnalysis, number: int) -> int | None:
    """The number of units of a stage; None if it is never cut inside."""
    if found.pipeline.stages[number].loop is not None or not has_units(found.analysis(number)):
        return None
    return len(found.analysis(number).partition.graph.units)


def _weight_bytes(stage: Stage) -> int:
    models = {call.model.sha256: call.model for call in stage.calls}
    return sum(model.weight_bytes() for model in models.values())


def _takes(stage: Stage) -> list[str]:
    """The values from earlier stages that a stage reads."""
    begins = list(stage.loop.carry.values()) if stage.loop is not None else []
    own = stage.made() | set((*stage.loop.carry, *stage.loop.each) if stage.loop is not None else ())
    read = [value for call in stage.calls for value in call.inputs.values()]
    return list(dict.fromkeys([*begins, *(value for value in read if value not in own)]))


def _maker(stages: Iterable[Stage], value: str) -> str | None:
    return next((stage.name for stage in stages if value in stage.made()), None)


def _readers(found: PipelineAnalysis, value: str) -> list[str]:
    """The stages that read or carry the value, and 'output' if it is an output."""
    stages = found.pipeline.stages
    readers = [
        stage.name
        for stage in stages
        if value in _takes(stage) or (stage.loop is not None and value in stage.loop.carry)
    ]
    return readers + (["output"] if value in found.pipeline.outputs else [])


def _passing(found: PipelineAnalysis) -> list[tuple[str, Size]]:
    """The values that are read outside the iteration that makes them."""
    return [(name, size) for name, size in found.sizes.items() if _readers(found, name)]


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in Counter(names).items())
