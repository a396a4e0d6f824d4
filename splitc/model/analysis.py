"""Analyse a model before anything is timed: simplify it, size its tensors, divide it into units."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from splitc.common.cache import Cache
from splitc.common.memory import memory_shortage
from splitc.common.ort import RUNTIME_VERSION, blaming_inputs
from splitc.common.records import RecordError, decode, encode
from splitc.common.values import Feeds
from splitc.model.feeds import make_feeds, sample_shapes
from splitc.model.graph import Graph
from splitc.model.kinds import shown
from splitc.model.model import Model, fix_dims, load, unranked, with_ranks
from splitc.model.nodes import Sources, sources
from splitc.model.simplify import simplify
from splitc.model.sizes import Size, sizes
from splitc.model.units import Partition, partition, surviving_tensors

Progress = Callable[[str], None]
"""Called with a short description when each stage begins."""


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """Options of `analyse`.

    Attributes:
        dims: sizes of symbolic dimensions; a leading dimension that is not given has size 1.
        samples: .npz files with one array per input, used instead of random inputs.
        build_memory_bytes: memory that may be used to run the model here; None for all free memory.
    """

    dims: Mapping[str, int]
    samples: tuple[Path, ...] = ()
    simplify: bool = True
    build_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """A model and its units.

    Attributes:
        original: the model as given.
        model: the model that is cut: the simplified one, or the original.
        dims: the size of each symbolic dimension of the inputs.
        feeds: inputs to size, profile and verify with; empty when the model is too large to run here.
        sizes: the size of each top-level tensor, by name; a tensor of unknown size is missing.
        notes: messages for the user about this analysis, one sentence each.
    """

    original: Model
    model: Model
    dims: Mapping[str, int]
    feeds: tuple[Feeds, ...]
    sizes: Mapping[str, Size]
    sources: Sources
    partition: Partition
    notes: tuple[str, ...]


# How many names a note lists.
_SHOWN = 5
# Raised when what is kept, or the way it is found, changes within a version.
_KEPT_FORM = 1


@dataclass(frozen=True, slots=True)
class _Kept:
    """The cached part of an analysis: what was found by running ONNX Runtime."""

    survivors: tuple[str, ...]
    measured: dict[str, Size]


def analyse(path: Path, options: AnalysisOptions, folder: Path, cache: Cache, progress: Progress) -> Analysis:
    """Load, simplify (into *folder*), size and divide the model at *path*.

    Raises:
        ModelError: the model cannot be read, run or sized.
    """
    progress("Loading")
    return analyse_model(load(path), options, folder, cache, progress)


def analyse_model(
    original: Model,
    options: AnalysisOptions,
    folder: Path,
    cache: Cache,
    progress: Progress,
    names: Mapping[str, str] | None = None,
) -> Analysis:
    """Simplify (into *folder*), size and divide the model *original*.

    Args:
        names: the names of the inputs in sample files, by their names in the model; None if they are the same.

    Raises:
        ModelError: the model cannot be run or sized.
    """
    sample_names = {
        item.name: names[item.name] if names is not None else item.name for item in original.inputs()
    }
    original, found_dims = _ranked(original, options, sample_names)
    inputs = original.inputs()
    dims = fix_dims(original, {**found_dims, **options.dims})
    notes = [
        f"sized for one request ({name}={size}); choose another size with --dim {name}=SIZE"
        for name, size in dims.items()
        if name not in options.dims and name not in found_dims
    ]
    notes += _fixed(original)
    shortage = memory_shortage(original.weight_bytes(), options.build_memory_bytes)
    renamed = tuple(replace(item, name=sample_names[item.name]) for item in inputs)
    samples = () if shortage else make_feeds(renamed, dims, options.samples)
    feeds = tuple({name: sample[given] for name, given in sample_names.items()} for sample in samples)
    if shortage:
        notes.append(f"the model was neither simplified nor run: {shortage}")
    with blaming_inputs(are_random=not options.samples):
        found = examine(original, dims, feeds, folder, cache, progress, clean=options.simplify)
    return replace(found, notes=(*notes, *found.notes))


def examine(
    original: Model,
    dims: Mapping[str, int],
    feeds: tuple[Feeds, ...],
    folder: Path,
    cache: Cache,
    progress: Progress,
    *,
    clean: bool,
) -> Analysis:
    """Size and divide the model *original*, running it on *feeds*.

    Args:
        feeds: inputs at the sizes *dims*; empty if the model cannot be run here.
        folder: where the simplified model is written.
        clean: simplify the model first; ignored if *feeds* is empty.

    Raises:
        ModelError: the model cannot be run or sized.
    """
    notes = []
    model = original
    if clean and feeds:
        progress("Simplifying")
        simplified = simplify(original, folder, feeds[0])
        model = simplified.model
        if simplified.kept_because:
            notes.append(f"the model was not simplified: {simplified.kept_because}")
    progress("Finding units")
    found = sources(model)
    survivors, sized = _survivors_and_sizes(model, dims, feeds, cache)
    parts = partition(model, found, survivors, sized)
    notes += _staying(model, parts.graph, sized)
    return Analysis(original, model, dims, feeds, sized, found, parts, tuple(notes))


def _ranked(
    model: Model, options: AnalysisOptions, sample_names: Mapping[str, str]
) -> tuple[Model, dict[str, int]]:
    """Give inputs of unknown rank that of the first sample; return the sizes of their dimensions, too."""
    inputs = tuple(replace(item, name=sample_names[item.name]) for item in model.inputs())
    names = unranked(model)
    shapes = sample_shapes(inputs, [sample_names[name] for name in names], options.samples)
    found = {name: shapes[sample_names[name]] for name in names if shapes}
    ranked = with_ranks(model, {name: len(shape) for name, shape in found.items()})
    declared = {item.name: item.shape for item in ranked.inputs()}
    dims = {
        dim: size
        for name, shape in found.items()
        for dim, size in zip(declared[name], shape, strict=True)
        if isinstance(dim, str)
    }
    return ranked, dims


def _fixed(model: Model) -> list[str]:
    """Say which inputs have a default that an app cannot replace."""
    names = [f"'{name}'" for name in model.changes.fixed]
    shown = ", ".join([*names[:_SHOWN], *["..."][: len(names) - _SHOWN]])
    if len(names) > 1:
        return [
            f"{len(names)} inputs ({shown}) have a default in the model and are fixed to it in the bundle"
        ]
    return [f"input {shown} has a default in the model and is fixed to it in the bundle"] if names else []


def _staying(model: Model, graph: Graph, sized: Mapping[str, Size]) -> list[str]:
    """Say which inputs and outputs cannot be sent."""
    notes = []
    for tensor in graph.tensors:
        kind = shown(sized[tensor.name].kind if tensor.name in sized else model.infos[tensor.name].kind)
        if tensor.nbytes is None:
            notes.append(f"input '{tensor.name}' ({kind}) is not sent: the device runs what reads it")
        if not tensor.is_sendable:
            notes.append(f"output '{tensor.name}' ({kind}) cannot be sent: the device makes it")
    return notes


def _survivors_and_sizes(
    model: Model, dims: Mapping[str, int], feeds: tuple[Feeds, ...], cache: Cache
) -> tuple[frozenset[str], dict[str, Size]]:
    """Ask the cache or ONNX Runtime. Only measured sizes are cached; the others are quick to infer."""
    key = (_KEPT_FORM, model.sha256, RUNTIME_VERSION, version("splitc"), dict(dims))
    try:
        kept = decode(_Kept, cache.get("units", key), "cache")
    except RecordError:
        kept = None
    if kept is not None:
        return frozenset(kept.survivors), sizes(model, dims, None) | kept.measured
    survivors = surviving_tensors(model)
    sized = sizes(model, dims, feeds[0] if feeds else None)
    measured = {name: size for name, size in sized.items() if size.measured}
    cache.put("units", key, encode(_Kept(tuple(sorted(survivors)), measured)))
    return survivors, sized
