"""Measure, on the user's samples, how much of the private tensors each cut of a build gives away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitc.bundle.manifest import CutEntry, LeakEntry, part_files
from splitc.bundle.program import run_program, stages_program
from splitc.common import ort
from splitc.common.ort import usable_cores
from splitc.common.values import Feeds, Value
from splitc.compile.leak import MIN_SAMPLES, products, share_explained
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.private import Inner
from splitc.compile.verify import Runner, values_digest
from splitc.compile.whole import Whole, files_in, short_program, whole_as_given
from splitc.model.analysis import Progress
from splitc.model.normalize import copied_from
from splitc.model.sizes import session_with_outputs

_Products = NDArray[np.float64]


def leak_notes(cuts: Sequence[CutEntry]) -> tuple[str, ...]:
    """Say that figures of *cuts* are unknown, and why; nothing if none is."""
    unknown = [cut for cut in cuts if cut.leak is not None and cut.leak.share is None]
    if not unknown:
        return ()
    fault = (
        f"give at least {MIN_SAMPLES} different samples with --samples"
        if all(cut.leak is not None and cut.leak.samples < MIN_SAMPLES for cut in unknown)
        else "all samples have the same private value, or values differ in size"
    )
    cut_ids = ", ".join(cut.id for cut in unknown)
    note = f"how much of a private tensor can be rebuilt from what crosses in {cut_ids} is unknown: {fault}"
    return (note,)


def with_leaks(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    private: Sequence[str],
    cuts: Sequence[CutEntry],
    folder: Path,
    progress: Progress,
    *,
    sampled: bool,
) -> tuple[CutEntry, ...]:
    """Return *cuts*, whose files lie in *folder*, with their leak figures.

    Args:
        private: the names of the private tensors; without any, no cut has a figure.
        sampled: whether the inputs of *found* are the user's samples; random inputs tell nothing.

    Raises:
        ModelError: a part cannot be run.
    """
    if not private:
        return tuple(cuts)
    feeds = _different(found.feeds) if sampled else ()
    if len(feeds) < MIN_SAMPLES:
        return tuple(replace(cut, leak=_unknown(cut, len(feeds))) for cut in cuts)
    progress("Running the samples for the leak figures")
    runner = Runner(files_in(folder).path, usable_cores())
    whole = whole_as_given(found.pipeline)
    hidden = {
        name: products(values)
        for name, values in _private_values(found, unrolled, whole, private, feeds).items()
    }
    told = []
    for cut in cuts:
        if cut.cloud is not None:
            progress(f"Measuring the leak of cut {cut.id}")
        crossing = _crossing(cut, whole, folder, runner, feeds)
        shares = {
            name: share_explained(crossing, one) if one is not None and crossing is not None else None
            for name, one in hidden.items()
        }
        told.append(replace(cut, leak=_entry(cut, shares, len(feeds))))
    return tuple(told)


def _unknown(cut: CutEntry, samples: int) -> LeakEntry:
    return LeakEntry(None if cut.sent and cut.cloud is not None else 0.0, samples, None)


def _entry(cut: CutEntry, shares: Mapping[str, float | None], samples: int) -> LeakEntry:
    """The largest of *shares*; unknown if any of them is, unless nothing crosses."""
    known = {name: share for name, share in shares.items() if share is not None}
    if len(known) < len(shares) or cut.cloud is None or not cut.sent:
        return _unknown(cut, samples)
    name = max(known, key=lambda name: known[name])
    return LeakEntry(known[name], samples, name)


def _different(feeds: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """Each sample once: one that is given twice would be held out and known at the same time."""
    return tuple({values_digest(sample): sample for sample in feeds}.values())


def _private_values(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    whole: Whole,
    private: Sequence[str],
    feeds: Sequence[Feeds],
) -> dict[str, list[Value]]:
    """What each private tensor is for every sample."""
    inner = dict(_inner_names(found, unrolled))
    runner = Runner(whole.files.path, usable_cores())
    array = whole.files.array
    values: dict[str, list[Value]] = {}
    for name in dict.fromkeys(private):
        if name not in inner:
            program = stages_program([item.entry for item in whole.program.stages], (name,))
            values[name] = [run_program(program, sample, runner, array)[name] for sample in feeds]
            continue
        stage, tensor = inner[name]
        (call,) = found.pipeline.stages[stage].calls
        before = [item.entry for item in whole.program.stages[:stage]]
        program = stages_program(before, call.inputs.values())
        opened = session_with_outputs(found.analysis(stage).model, [tensor])
        for sample in feeds:
            given = run_program(program, sample, runner, array)
            named = {item: given[value] for item, value in call.inputs.items()}
            values.setdefault(name, []).append(ort.run(opened, named, [tensor])[tensor])
    return values


def _inner_names(found: PipelineAnalysis, unrolled: Unrolled) -> Iterator[tuple[str, Inner]]:
    """Names that a user gives for tensors inside stages, and which these are."""
    for place in {place.stage: place for place in unrolled.places if place.unit is not None}.values():
        stage = found.pipeline.stages[place.stage]
        prefix = f"{stage.name}/" if found.pipeline.only is None else ""
        values = {value for call in stage.calls for value in (*call.inputs.values(), *call.outputs.values())}
        for node in found.analysis(place.stage).sources.nodes:
            for output in node.outputs:
                if output.name:
                    name = unrolled.inner.get((place.stage, output.name), f"{prefix}{output.name}")
                    if name not in values:
                        yield name, (place.stage, copied_from(output.name))


def _crossing(
    cut: CutEntry, whole: Whole, folder: Path, runner: Runner, feeds: Sequence[Feeds]
) -> list[_Products] | None:
    """The `products` of each tensor that goes up; None if one of them has none."""
    if cut.cloud is None:
        return []
    values: list[Mapping[str, Value]] = list(feeds)
    if cut.head is not None and not cut.is_cloud_first:
        program = short_program(cut, cut.head, whole.outputs, whole.times)
        array = files_in(folder).array
        values = [{**sample, **run_program(program, sample, runner, array)} for sample in feeds]
        runner.forget(part_files(cut.head))
    found = [products([sample[tensor.name] for sample in values]) for tensor in cut.sent]
    return [one for one in found if one is not None] if all(one is not None for one in found) else None
