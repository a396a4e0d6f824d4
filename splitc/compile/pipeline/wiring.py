"""Check that every value of a pipeline is made once, and before it is read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from splitc.common.errors import ModelError
from splitc.common.records import did_you_mean
from splitc.compile.pipeline.spec import PipelineSpec
from splitc.compile.pipeline.stages import Loop, Stage


def given_values(path: Path, spec: PipelineSpec, stages: Sequence[Stage]) -> tuple[str, ...]:
    """Check that every value is made once and before it is read; return those that have to be given.

    Raises:
        ModelError: a value is not, or the lists of inputs and outputs do not fit the stages.
    """
    makers = _makers(path, stages)
    known = set[str]()
    given: dict[str, str] = {}
    for stage, name, inner in _reads(stages, known):
        if name in known or name in inner:
            continue
        where = f"{path}: stage '{stage.name}' reads '{name}'"
        if makers.get(name) is stage:
            raise ModelError(
                f"{where} before it makes it; give it a first value with carry, or change the order of the steps"
            )
        if name in makers:
            raise ModelError(
                f"{where}, which stage '{makers[name].name}' makes later; stages run in the order given"
            )
        given.setdefault(name, stage.name)
    missing = next((name for name in spec.outputs if name not in makers), None)
    if missing is not None:
        raise ModelError(
            f"{path}: no stage makes the output '{missing}'{did_you_mean(missing, makers) or ';'} "
            f"the stages make {', '.join(makers)}"
        )
    return _as_listed(path, spec, given, makers)


def refuse_useless(path: Path, spec: PipelineSpec, stages: Sequence[Stage]) -> None:
    """Check that every call makes something that an output needs.

    Raises:
        ModelError: one does not.
    """
    live = set(spec.outputs)
    for stage in reversed(stages):
        live |= set(stage.loop.carry if stage.loop is not None else ())
        for call in reversed(stage.calls):
            if not live.intersection(call.outputs.values()):
                raise ModelError(
                    f"{path}: stage '{stage.name}': no output needs what {call.model.path.name} makes "
                    f"({', '.join(call.outputs.values())}); remove it, or name one of these in outputs"
                )
            live |= set(call.inputs.values())
        if stage.loop is not None:
            live |= set(stage.loop.carry.values())


def _reads(stages: Sequence[Stage], known: set[str]) -> Iterator[tuple[Stage, str, set[str]]]:
    """Every read in order: the stage, the value, and what this iteration has made; *known* grows by whole stages."""
    for stage in stages:
        inner = set[str]()
        if stage.loop is not None:
            for begin in stage.loop.carry.values():
                yield stage, begin, inner
            inner |= stage.loop.carry.keys() | stage.loop.each.keys()
        for call in stage.calls:
            for value in call.inputs.values():
                yield stage, value, inner
            inner |= set(call.outputs.values())
        known |= stage.made()


def _makers(path: Path, stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stage that makes each value.

    Raises:
        ModelError: two make the same, or the values of a loop do not fit.
    """
    makers: dict[str, Stage] = {}
    rowed: dict[str, Stage] = {}
    for stage in stages:
        carried = stage.loop.carry if stage.loop is not None else {}
        made = [value for call in stage.calls for value in call.outputs.values()]
        for value in made:
            again = made.count(value) > 1 and value not in carried
            if value in makers or again:
                first = stage.name if again else makers[value].name
                raise ModelError(
                    f"{path}: '{value}' is made twice, by stage '{first}' and by stage '{stage.name}'; "
                    "call one of them something else in outputs"
                )
        makers |= dict.fromkeys(made, stage)
        if stage.loop is not None:
            _check_loop(path, stage, stage.loop, made)
            rowed |= dict.fromkeys(stage.loop.each, stage)
    for value, stage in rowed.items():
        if value in makers:
            raise ModelError(
                f"{path}: '{value}' is made twice, by each of stage '{stage.name}' and by stage "
                f"'{makers[value].name}'; rename one"
            )
        stray = next((other for other in stages if other is not stage and value in _read_by(other)), None)
        if stray is not None:
            raise ModelError(
                f"{path}: stage '{stray.name}' reads '{value}', which exists only in the iterations of "
                f"stage '{stage.name}'"
            )
    return makers


def _check_loop(path: Path, stage: Stage, loop: Loop, made: list[str]) -> None:
    where = f"{path}: stage '{stage.name}'"
    read = {value for call in stage.calls for value in call.inputs.values()}
    for value, begin in loop.carry.items():
        if value not in made:
            raise ModelError(
                f"{where} carries '{value}', but none of its steps makes that{did_you_mean(value, made) or ';'} "
                f"they make {', '.join(made)}"
            )
        if value not in read:
            raise ModelError(
                f"{where} carries '{value}', but none of its steps reads that{did_you_mean(value, read)}"
            )
        if begin == value:
            raise ModelError(f"{where}: '{value}' begins as itself; give its first value another name")
        if begin in made or begin in loop.each:
            raise ModelError(
                f"{where}: '{value}' begins as '{begin}', which exists only in its own iterations"
            )
    for value in loop.each:
        if value not in read:
            raise ModelError(f"{where}: none of its steps reads '{value}' of each{did_you_mean(value, read)}")


def _read_by(stage: Stage) -> set[str]:
    begins = stage.loop.carry.values() if stage.loop is not None else ()
    return {*begins, *(value for call in stage.calls for value in call.inputs.values())}


def _as_listed(
    path: Path, spec: PipelineSpec, given: Mapping[str, str], makers: Iterable[str]
) -> tuple[str, ...]:
    """The values *given* (and the stage that first reads each), in the order that the description lists them."""
    if spec.inputs is None:
        return tuple(given)
    for name, stage in given.items():
        if name not in spec.inputs:
            hint = did_you_mean(name, [*spec.inputs, *makers])
            raise ModelError(
                f"{path}: stage '{stage}' reads '{name}', which no stage makes and inputs do not list{hint}"
            )
    unread = next((name for name in spec.inputs if name not in given), None)
    if unread is not None:
        raise ModelError(f"{path}: nothing reads the input '{unread}'{did_you_mean(unread, given)}")
    return spec.inputs
