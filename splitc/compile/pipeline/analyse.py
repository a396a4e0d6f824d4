"""What is known of a pipeline before anything is timed: the units of its models, and the sizes of its values.

Sizes follow from the inputs: every model runs once, in the order of the pipeline (of a loop, only the first iteration),
on what the models before it made. So each model is sized, simplified, profiled and timed on inputs like those that it
gets in use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from splitc.common import ort
from splitc.common.cache import Cache
from splitc.common.errors import ModelError
from splitc.common.memory import memory_shortage
from splitc.common.ort import usable_cores
from splitc.common.values import Feeds, Input, Value, random_feeds, value_bytes
from splitc.compile.pipeline.ports import declared_inputs, described, fits, renamed, shown
from splitc.compile.pipeline.stages import Loop, ModelCall, Pipeline, Stage
from splitc.model.analysis import Analysis, AnalysisOptions, Progress, analyse_model, examine
from splitc.model.feeds import make_feeds
from splitc.model.graph import Graph
from splitc.model.model import Model, fix_input_dims, with_ranks
from splitc.model.sizes import Size
from splitc.solve.costs import Costs
from splitc.solve.cuts import make_cut

# A pipeline with more weights than this takes minutes for one request: it is verified on one, unless samples are given.
LARGE_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class PipelineAnalysis:
    """A pipeline, the units of its models, and its values.

    Attributes:
        analyses: of each model, at each size of its inputs that occurs.
        calls: for every stage, for every call of it, which of `analyses` it is.
        dim_names: likewise, what the model's symbolic dimensions are called in `dims`.
        inputs: what the pipeline takes.
        sizes: of every value, as far as known; shapes as its maker declares them, with the names of `dims`.
        dims: what symbolic dimensions were: of inputs by their own names, others with their stage's where they clash.
        feeds: inputs to verify with; empty when the models are too large to be run together here.
        notes: what a user should know of how this was done, a sentence each.
    """

    pipeline: Pipeline
    analyses: tuple[Analysis, ...]
    calls: tuple[tuple[int, ...], ...]
    dim_names: tuple[tuple[Mapping[str, str], ...], ...]
    inputs: tuple[Input, ...]
    sizes: Mapping[str, Size]
    dims: Mapping[str, int]
    feeds: tuple[Feeds, ...]
    notes: tuple[str, ...]

    def analysis(self, stage: int, call: int = 0) -> Analysis:
        """The analysis of one call of a stage."""
        return self.analyses[self.calls[stage][call]]


def analyse_pipeline(
    pipeline: Pipeline, options: AnalysisOptions, folder: Path, cache: Cache, progress: Progress
) -> PipelineAnalysis:
    """Size the values of *pipeline* and analyse its models; what is simplified goes into *folder*.

    Raises:
        ModelError: a model cannot be run or sized, or the values do not fit.
    """
    if pipeline.only is not None:
        return _one_model(pipeline, pipeline.only, options, folder, cache, progress)
    for model in pipeline.models:
        with_ranks(model, {})  # stages may not take what has no rank
    inputs = declared_inputs(pipeline)
    dims = fix_input_dims(inputs, options.dims)
    notes = [
        f"sized for one request ({name}={size}); choose another size with --dim {name}=SIZE"
        for name, size in dims.items()
        if name not in options.dims
    ]
    feeds = make_feeds(inputs, dims, options.samples)
    walk = _Walk(pipeline, options, folder, cache, progress, dict(feeds[0]), dict(dims))
    for item in inputs:
        walk.size_input(item, feeds[0][item.name])
    calls = [walk.stage(stage) for stage in pipeline.stages]
    weights = sum(model.weight_bytes() for model in pipeline.models)
    # All models are open at once, and each keeps what it once needed; Stable Diffusion needs more than its weights.
    alive = sum(peak_bytes(analysis.partition.graph) for analysis in walk.analyses.values())
    shortage = memory_shortage(weights + alive, options.build_memory_bytes)
    if weights > LARGE_BYTES and not options.samples:
        feeds = feeds[:1]
    return PipelineAnalysis(
        pipeline,
        tuple(walk.analyses.values()),
        tuple(tuple(number for number, _ in stage) for stage in calls),
        tuple(tuple(dim_names for _, dim_names in stage) for stage in calls),
        inputs,
        walk.sizes,
        walk.dims,
        () if shortage else feeds,
        tuple(dict.fromkeys([*notes, *walk.notes])),
    )


def _one_model(
    pipeline: Pipeline,
    call: ModelCall,
    options: AnalysisOptions,
    folder: Path,
    cache: Cache,
    progress: Progress,
) -> PipelineAnalysis:
    """The analysis of the only model is that of the whole pipeline."""
    found = analyse_model(call.model, options, folder, cache, progress, call.inputs)
    values = {**call.outputs, **call.inputs}
    return PipelineAnalysis(
        pipeline,
        (found,),
        ((0,),),
        (({},),),
        _of_known_rank(declared_inputs(pipeline), found.original, call),
        {values[name]: size for name, size in found.sizes.items() if name in values},
        found.dims,
        tuple({call.inputs[name]: value for name, value in feeds.items()} for feeds in found.feeds),
        found.notes,
    )


def _of_known_rank(inputs: tuple[Input, ...], model: Model, call: ModelCall) -> tuple[Input, ...]:
    """*inputs* with the shapes that they have in *model*, in which samples have told what the file does not."""
    shapes = {call.inputs[item.name]: item.shape for item in model.inputs()}
    return tuple(replace(item, shape=shapes[item.name]) for item in inputs)


def peak_bytes(graph: Graph) -> int:
    """The most that is alive at once in a run of the whole model, weights aside."""
    nothing = (0.0,) * len(graph.units)
    cut = make_cut(Costs(graph, nothing, nothing), frozenset(range(len(graph.units))))
    return cut.device_peak_bytes - cut.device_weight_bytes


@dataclass(slots=True)
class _Walk:
    """A run of everything (of loops, the first iteration), and what it has shown so far."""

    pipeline: Pipeline
    options: AnalysisOptions
    folder: Path
    cache: Cache
    progress: Progress
    values: dict[str, Value]
    dims: dict[str, int]
    sizes: dict[str, Size] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # By digest of the model and sizes of its inputs; and where each lies among them.
    analyses: dict[tuple[object, ...], Analysis] = field(default_factory=dict)

    def size_input(self, item: Input, value: Value) -> None:
        nbytes = value_bytes(value)
        sized = value.shape if item.dtype is not None else None
        self.sizes[item.name] = Size(item.dtype, item.shape, sized, nbytes, measured=False)

    def stage(self, stage: Stage) -> list[tuple[int, Mapping[str, str]]]:
        """For every call, which of the analyses it is, and what its dimensions are called."""
        loop = stage.loop
        if loop is not None:
            self._begin(loop)
        found = [self._call(stage, call) for call in stage.calls]
        if loop is not None:
            for value, begin in loop.carry.items():
                self._check_carried(stage, value, begin)
        return found

    def _begin(self, loop: Loop) -> None:
        for value, begin in loop.carry.items():
            self.values[value], self.sizes[value] = self.values[begin], self.sizes[begin]
        for value, rows in loop.each.items():
            row = np.asarray(rows[0])
            self.values[value] = row
            self.sizes[value] = Size(row.dtype.name, row.shape, row.shape, row.nbytes, measured=False)

    def _call(self, stage: Stage, call: ModelCall) -> tuple[int, Mapping[str, str]]:
        feeds = {name: self.values[value] for name, value in call.inputs.items()}
        dims = self._bound(stage, call, feeds)
        shortage = memory_shortage(call.model.weight_bytes(), self.options.build_memory_bytes)
        key = (call.model.sha256, tuple(sorted(dims.items())))
        if key not in self.analyses:
            self.analyses[key] = self._analysis(stage, call.model, dims, feeds, shortage)
        dim_names = {dim: self._name(stage, dim, size) for dim, size in dims.items()}
        made = self._outputs(call, feeds, self.analyses[key], runs=shortage is None)
        for name, value in call.outputs.items():
            size = self.analyses[key].sizes[name]
            if size.dtype is None:
                raise ModelError(
                    f"{self.pipeline.path}: stage '{stage.name}': '{name}' of {call.model.path.name} is not a "
                    "numeric tensor; stages can exchange numeric tensors only"
                )
            shape = renamed(size.shape, dim_names)
            self.values[value] = made[name]
            self.sizes[value] = Size(
                size.dtype, shape, made[name].shape, made[name].nbytes, measured=size.measured
            )
        return list(self.analyses).index(key), dim_names

    def _analysis(
        self, stage: Stage, model: Model, dims: Mapping[str, int], feeds: Feeds, shortage: str | None
    ) -> Analysis:
        if shortage:
            self.notes.append(f"{model.path.name} was neither simplified nor run: {shortage}")
        folder = self.folder / str(len(self.analyses))
        folder.mkdir()
        with ort.blaming_inputs(are_random=not self.options.samples):
            found = examine(
                model,
                dims,
                () if shortage else (feeds,),
                folder,
                self.cache,
                lambda words: self.progress(f"{words}: stage {stage.name}, {model.path.name}"),
                clean=self.options.simplify,
            )
        self.notes += [f"{model.path.name}: {note}" for note in found.notes]
        return found

    def _outputs(self, call: ModelCall, feeds: Feeds, found: Analysis, *, runs: bool) -> dict[str, Any]:
        """What the model makes of *feeds*; random values of the same sizes where it cannot be run here."""
        if runs:
            opened = ort.session(call.model.path, threads=usable_cores())
            with ort.blaming_inputs(are_random=not self.options.samples):
                return ort.run(opened, feeds)
        unknown = next((name for name in call.outputs if name not in found.sizes), None)
        if unknown is not None:
            raise ModelError(
                f"{call.model.path}: the size of output '{unknown}' is unknown, because the model is too large to be "
                "run here; allow more with --build-memory"
            )
        sized = {name: found.sizes[name] for name in call.outputs}
        made = [Input(name, size.dtype, size.sized or ()) for name, size in sized.items()]
        return dict(random_feeds(made, {}, 0))

    def _bound(self, stage: Stage, call: ModelCall, feeds: Feeds) -> dict[str, int]:
        """The model's symbolic dimensions, from the values that it takes.

        Rows of arrays decide only where no value does: their author chose their width.
        """
        rows = stage.loop.each if stage.loop is not None else {}
        dims: dict[str, int] = {}
        for item in sorted(call.model.inputs(), key=lambda item: call.inputs[item.name] in rows):
            value, name = feeds[item.name], call.inputs[item.name]
            if item.dtype is None:
                continue
            where = (
                f"{self.pipeline.path}: stage '{stage.name}': {call.model.path.name} takes '{item.name}' as "
                f"{shown(item.dtype, item.shape)}, but '{name}' is "
            )
            if not fits(value, item):
                raise ModelError(f"{where}{described(value)}")
            for dim, size in zip(item.shape, value.shape, strict=True):
                if isinstance(dim, str) and dims.setdefault(dim, size) != size and name not in rows:
                    raise ModelError(f"{where}{described(value)}, and '{dim}' is {dims[dim]} elsewhere")
        return dims

    def _name(self, stage: Stage, dim: str, size: int) -> str:
        """The pipeline's name of a dimension: the model's own, unless that stands for another size."""
        name = dim
        while self.dims.get(name, size) != size:
            name = f"{stage.name}.{name}"
        self.dims[name] = size
        return name

    def _check_carried(self, stage: Stage, value: str, begin: str) -> None:
        first, later = self.values[begin], self.values[value]
        if first.dtype != later.dtype or first.shape != later.shape:
            raise ModelError(
                f"{self.pipeline.path}: stage '{stage.name}' carries '{value}', which begins as {described(first)}, "
                f"but is {described(later)} after an iteration; it must keep its type and shape"
            )
