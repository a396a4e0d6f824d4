"""Measure, on the user's samples, how much of the private tensors each cut of a build gives away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitc.bundle.manifest import CutEntry, LeakEntry, part_files
from splitc.bundle.program import run_program, stages_program
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError
from splitc.common.kinds import Direction
from splitc.common.ort import usable_cores
from splitc.common.values import Feeds, Value
from splitc.compile.emit import Written
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.privacy.leak import MIN_SAMPLES, products, share_explained
from splitc.compile.privacy.recoverable import Inner
from splitc.compile.verification.verify import Runner, values_digest
from splitc.compile.verification.whole import Whole, files_in, short_program, whole_as_given
from splitc.model.analysis import Progress
from splitc.model.sizes import session_with_outputs

_Products = NDArray[np.float64]


def leak_notes(cuts: Sequence[CutEntry], *, runs: bool) -> tuple[str, ...]:
    """Say that figures of *cuts* are unknown, and why; nothing if none is.

    Args:
        runs: whether the models could be run here.
    """
    unknown = [cut for cut in cuts if cut.leak is not None and cut.leak.share is None]
    if not unknown:
        return ()
    fault = (
        "too little memory to run the samples"
        if not runs
        else f"give at least {MIN_SAMPLES} different samples with --samples"
        if all(cut.leak is not None and cut.leak.samples < MIN_SAMPLES for cut in unknown)
        else "all samples have the same private value, or values differ in size"
    )
    cut_ids = ", ".join(cut.id for cut in unknown)
    note = f"how much of a private tensor can be rebuilt from what crosses in {cut_ids} is unknown: {fault}"
    return (note,)


@dataclass(slots=True)
class LeakMeter:
    """Measures cuts, each once.

    Attributes:
        feeds: the user's samples, each once.
        private: whether there are private tensors; else cuts have no figure.
        hidden: the `products` of each private tensor, if there are enough samples.
        known: the figures so far, by direction and the units on the device.
    """

    whole: Whole
    private: bool
    feeds: tuple[Feeds, ...]
    hidden: Mapping[str, _Products | None]
    known: dict[tuple[Direction, frozenset[int]], LeakEntry] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether there are enough samples to measure anything."""
        return len(self.feeds) >= MIN_SAMPLES

    def measured(
        self, written: Sequence[Written], cuts: Sequence[CutEntry], folder: Path, progress: Progress
    ) -> tuple[CutEntry, ...]:
        """Return *cuts*, which describe those *written* into *folder*, with their leak figures."""
        if not self.private:
            return tuple(cuts)
        runner = Runner(files_in(folder).path, usable_cores())
        told = []
        for item, cut in zip(written, cuts, strict=True):
            key = (item.cut.direction, item.cut.device)
            if key not in self.known:
                self.known[key] = self._figure(cut, folder, runner, progress)
            told.append(replace(cut, leak=self.known[key]))
        return tuple(told)

    def _figure(self, cut: CutEntry, folder: Path, runner: Runner, progress: Progress) -> LeakEntry:
        if cut.cloud is None or not cut.sent:
            return LeakEntry(0.0, len(self.feeds), None)
        unknown = LeakEntry(None, len(self.feeds), None)
        if not self.works:
            return unknown
        progress(f"Measuring the leak of cut {cut.id}")
        try:
            crossing = _crossing(cut, self.whole, folder, runner, self.feeds)
        except (ModelError, BundleError):  # a cut that does not work is the business of those that verify it
            return unknown
        if crossing is None:
            return unknown
        shares: dict[str, float] = {}
        for name, one in self.hidden.items():
            share = share_explained(crossing, one) if one is not None else None
            if share is None:
                return unknown
            shares[name] = share
        worst = max(shares, key=lambda name: shares[name])
        return LeakEntry(shares[worst], len(self.feeds), worst)


def leak_meter(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    private: Sequence[str],
    progress: Progress,
    *,
    sampled: bool,
) -> LeakMeter:
    """Prepare to measure how much of the tensors *private* cuts give away.

    Args:
        sampled: whether the inputs of *found* are the user's samples; random inputs tell nothing.

    Raises:
        ModelError: a model cannot be run.
    """
    whole = whole_as_given(found.pipeline)
    feeds = _different(found.feeds) if sampled and private else ()
    if len(feeds) < MIN_SAMPLES:
        return LeakMeter(whole, bool(private), feeds, {})
    progress("Running the samples for the leak figures")
    values = _private_values(found, unrolled, whole, private, feeds)
    return LeakMeter(whole, bool(private), feeds, {name: products(items) for name, items in values.items()})


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
        copies = found.analysis(place.stage).model.changes.copies
        for node in found.analysis(place.stage).sources.nodes:
            for output in node.outputs:
                if output.name:
                    name = unrolled.inner.get((place.stage, output.name), f"{prefix}{output.name}")
                    if name not in values:
                        yield name, (place.stage, copies.get(output.name, output.name))


def _crossing(
    cut: CutEntry, whole: Whole, folder: Path, runner: Runner, feeds: Sequence[Feeds]
) -> list[_Products] | None:
    """The `products` of each tensor that goes up; None if one of them has none."""
    values: list[Mapping[str, Value]] = list(feeds)
    if cut.head is not None and not cut.is_cloud_first:
        program = short_program(cut, cut.head, whole.outputs, whole.times)
        array = files_in(folder).array
        values = [{**sample, **run_program(program, sample, runner, array)} for sample in feeds]
        runner.forget(part_files(cut.head))
    found = [products([sample[tensor.name] for sample in values]) for tensor in cut.sent]
    return [one for one in found if one is not None] if all(one is not None for one in found) else None
