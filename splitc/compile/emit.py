"""Write the parts of all cuts: pieces of models that are cut inside, others whole and once, one file of weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from splitc.bundle.folder import WEIGHTS, file_entry
from splitc.bundle.manifest import CallEntry, FileEntry, LoopEntry, StageEntry
from splitc.bundle.weights import WeightPool, contents_sha256, weight_pool
from splitc.compile.parts import Emitter, PartGraph, head_part, prepare, tail_part, write_part
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.stages import Loop, ModelCall, Stage
from splitc.compile.pipeline.unrolled import Share, Unrolled, shares
from splitc.solve.costs import Costs
from splitc.solve.cuts import Cut, CutSet, make_cut


@dataclass(frozen=True, slots=True)
class Emitted:
    """What was written of all cuts.

    Attributes:
        computes: see `Manifest`.
    """

    cuts: tuple["Written", ...]
    files: tuple[FileEntry, ...]
    computes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """A cut on disk: what each part does, as stages (None where there is no such part) and as shares of the pipeline."""

    id: str
    cut: Cut
    head: tuple[StageEntry, ...] | None
    tail: tuple[StageEntry, ...] | None
    head_shares: tuple[Share, ...]
    tail_shares: tuple[Share, ...]


def emit(found: PipelineAnalysis, unrolled: Unrolled, cut_set: CutSet, folder: Path) -> Emitted:
    """Write every part of the cuts into *folder*; c0, c1, ... in the order of *cut_set*.

    Equal weights are written once, whichever models and parts they are of.
    """
    everything = range(len(unrolled.places))
    written = []
    with weight_pool(folder) as pool:
        writer = _Writer(found, unrolled, folder, pool)
        for number, cut in enumerate(cut_set.cuts):
            first = shares(unrolled, cut.head)
            second = shares(unrolled, [unit for unit in everything if unit not in cut.head])
            head = tuple(writer.stage(share, "head", number, cut) for share in first)
            tail = tuple(writer.stage(share, "tail", number, cut) for share in second)
            written.append(Written(f"c{number}", cut, head or None, tail or None, first, second))
    arrays = sorted(set(writer.arrays.values()))
    weights = [WEIGHTS] if (folder / WEIGHTS).exists() else []
    files = {name: file_entry(folder, name) for name in (*writer.models, *arrays, *weights)}
    placed = pool.digests()
    computes = {name: contents_sha256(folder / name, placed) for name in writer.models}
    computes |= {name: files[name].sha256 for name in arrays}
    return Emitted(tuple(written), tuple(files.values()), dict(sorted(computes.items())))


@dataclass(slots=True)
class _Writer:
    """What is written so far.

    Attributes:
        models: the ONNX files.
        whole: the file, and what it takes, of each model that is run whole; by digest.
        pieces: what runs some units of a stage; several cuts may have the same piece.
        arrays: the .npy file of each stage's values.
        emitters: by analysis.
    """

    found: PipelineAnalysis
    unrolled: Unrolled
    folder: Path
    pool: WeightPool
    models: list[str] = field(default_factory=list)
    whole: dict[str, tuple[str, PartGraph]] = field(default_factory=dict)
    pieces: dict[Share, CallEntry] = field(default_factory=dict)
    arrays: dict[tuple[int, str], str] = field(default_factory=dict)
    emitters: dict[int, Emitter] = field(default_factory=dict)

    def stage(self, share: Share, side: Literal["head", "tail"], number: int, cut: Cut) -> StageEntry:
        """The share of a stage that one part of the cut *number* runs.

        A piece of a stage is a file called <side>-c<number>-<stage>, or <side>-c<number> if there is one stage only.
        """
        stage, prefix = self.found.pipeline.stages[share.stage], f"{side}-c{number}"
        if self.found.pipeline.only is not None:
            emitter = self._emitter(0)
            part = head_part(emitter, cut) if side == "head" else tail_part(emitter, cut)
            return StageEntry(stage.name, (self._piece(share.stage, emitter, part, prefix),))
        if share.units is not None:
            if share not in self.pieces:
                emitter, part = self._inner_part(share, share.units, cut)
                self.pieces[share] = self._piece(share.stage, emitter, part, f"{prefix}-{stage.name}")
            return StageEntry(stage.name, (self.pieces[share],))
        calls = tuple(
            self._whole_call(stage, call, analysis)
            for call, analysis in zip(stage.calls, self.found.calls[share.stage], strict=True)
        )
        loop = None
        if stage.loop is not None:
            each = {value: self._array(share.stage, stage, stage.loop, value) for value in stage.loop.each}
            loop = LoopEntry(share.first, share.end, dict(stage.loop.carry), each)
        return StageEntry(stage.name, calls, loop)

    def _whole_call(self, stage: Stage, call: ModelCall, number: int) -> CallEntry:
        """The call of a whole model; its file is written when it is first needed."""
        model = self.found.analyses[number].model
        if model.sha256 not in self.whole:
            emitter = self._emitter(number)
            part = head_part(emitter, _inside(emitter, frozenset(range(len(emitter.graph.units)))))
            assert part is not None, "all units are in it"
            name = f"stage-{stage.name}" if len(stage.calls) == 1 else f"stage-{stage.name}-{model.name}"
            self.whole[model.sha256] = (self._write(emitter, part, name), part)
        file, part = self.whole[model.sha256]
        read = _read(stage) | {*self.unrolled.values}
        return CallEntry(
            file,
            {name: call.inputs[name] for name in part.inputs},
            {name: call.outputs[name] for name in part.outputs if call.outputs[name] in read},
        )

    def _inner_part(self, share: Share, units: frozenset[int], cut: Cut) -> tuple[Emitter, PartGraph | None]:
        """The part of one of several stages that is cut inside."""
        (number,) = self.found.calls[share.stage]
        emitter = self._emitter(number)
        is_head = units == _units_in(self.unrolled, share.stage, cut.head)
        inside = _inside(emitter, units if is_head else frozenset(range(len(emitter.graph.units))) - units)
        return emitter, head_part(emitter, inside) if is_head else tail_part(emitter, inside)

    def _piece(self, stage: int, emitter: Emitter, part: PartGraph | None, name: str) -> CallEntry:
        """The call of *part* of the model of a stage that runs once; the part gets a file of its own."""
        assert part is not None, "some of its units are in it"
        (call,) = self.found.pipeline.stages[stage].calls
        used = {*self.unrolled.values, *self.found.pipeline.outputs}

        def value(names: Mapping[str, str], tensor: str) -> str:
            return names[tensor] if tensor in names else self.unrolled.inner[stage, tensor]

        inputs = {**call.outputs, **call.inputs}
        takes = {tensor: value(inputs, tensor) for tensor in part.inputs}
        makes = {tensor: value(call.outputs, tensor) for tensor in part.outputs}
        file = self._write(emitter, part, name)
        return CallEntry(file, takes, {tensor: made for tensor, made in makes.items() if made in used})

    def _emitter(self, number: int) -> Emitter:
        if number not in self.emitters:
            found = self.found.analyses[number]
            self.emitters[number] = prepare(
                found.model, found.partition.graph, found.sources, found.sizes, self.pool
            )
        return self.emitters[number]

    def _write(self, emitter: Emitter, part: PartGraph, name: str) -> str:
        file = _unused(f"{_plain(name)}.onnx", self.models)
        write_part(emitter, part, self.folder / file)
        self.models.append(file)
        return file

    def _array(self, number: int, stage: Stage, loop: Loop, value: str) -> str:
        if (number, value) not in self.arrays:
            file = _unused(_plain(f"each-{stage.name}-{value}") + ".npy", self.arrays.values())
            np.save(self.folder / file, np.ascontiguousarray(loop.each[value]), allow_pickle=False)
            self.arrays[number, value] = file
        return self.arrays[number, value]


def _inside(emitter: Emitter, head: frozenset[int]) -> Cut:
    """The cut of a stage's own graph; its costs are not used."""
    nothing = (0.0,) * len(emitter.graph.units)
    return make_cut(Costs(emitter.graph, nothing, nothing), head)


def _units_in(unrolled: Unrolled, stage: int, members: Iterable[int]) -> frozenset[int]:
    places = (unrolled.places[unit] for unit in members)
    return frozenset(place.unit for place in places if place.stage == stage and place.unit is not None)


def _read(stage: Stage) -> set[str]:
    return {value for call in stage.calls for value in call.inputs.values()}


def _plain(text: str) -> str:
    """*text* as the name of a file on any disk."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)


def _unused(file: str, taken: Iterable[str]) -> str:
    known = {name.lower() for name in taken}  # some file systems ignore the case of letters
    while file.lower() in known:
        stem, _, ending = file.rpartition(".")
        file = f"{stem}_.{ending}"
    return file
