"""Find by experiment whether several requests to an ONNX file may run as one batch, and the best batch size."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnx

from splitc.bundle.manifest import BoundaryEntry, CutEntry, TensorEntry
from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import FREE_DIM, Array, Feeds, Input, Value, difference, random_feeds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# The share of time per request that a batch must save compared with a batch of half its size.
_WORTHWHILE = 0.05
_TIMED_S = 0.6
_MIN_ROUNDS, _MAX_ROUNDS = 5, 40
# After this time, fewer rounds are enough, because the times of long runs vary little.
_LONG_S, _FEW_ROUNDS = 10.0, 2
TOLERANCE = 1e-4
"""The largest allowed difference between two forms of a part that was not compared with the whole model."""
_SYMBOL = "splitc_batch"
# Around zero, large, only positive, only negative, zero, small.
_CHANGES = (
    lambda x: x,
    lambda x: 4 * x + 1,
    np.abs,
    lambda x: -np.abs(x) - 1,
    np.zeros_like,
    lambda x: x / 64,
)
# The requests of each tried batch, as indices into these six.
_STACKS = ((0, 1), (3, 2), (1, 4, 0), (4, 5, 2), (5, 3, 1))


@dataclass(frozen=True, slots=True)
class Trial:
    """Six different requests to an ONNX file, the outputs for each, and the allowed difference from these outputs."""

    feeds: tuple[Feeds, ...]
    wanted: tuple[Mapping[str, Value], ...]
    tolerance: float


def sent_inputs(cut: CutEntry, dims: Mapping[str, int]) -> tuple[Input, ...]:
    """Return the inputs of the cloud's part of *cut*; a single unnamed size is computed from the bytes."""
    return tuple(Input(entry.name, entry.dtype, _sized(entry, dims)) for entry in cut.sent)


def _sized(entry: TensorEntry | BoundaryEntry, dims: Mapping[str, int]) -> tuple[int | str, ...]:
    known = [dims.get(dim) if isinstance(dim, str) else dim for dim in entry.shape]
    rest = math.prod(size for size in known if size is not None)
    if known.count(None) != 1 or FREE_DIM not in entry.shape or not entry.bytes or not rest:
        return entry.shape
    size = entry.bytes // (rest * np.dtype(entry.dtype).itemsize)
    return tuple(size if dim == FREE_DIM else dim for dim in entry.shape)


def made_up(cut: CutEntry, dims: Mapping[str, int], index: int = 0) -> Feeds:
    """Return one of six different requests to the cloud's part of *cut*; *dims* gives the symbolic sizes.

    Raises:
        ModelError: *dims* does not define the size of an input.
    """
    return made_up_for(sent_inputs(cut, dims), dims, index)


def made_up_for(inputs: Iterable[Input], dims: Mapping[str, int], index: int = 0) -> Feeds:
    """Do the same as `made_up` for an ONNX file with the given *inputs*."""
    return {name: _vary(array, index) for name, array in random_feeds(inputs, dims, index).items()}


def trial(path: Path, cut: CutEntry, dims: Mapping[str, int], threads: int) -> Trial:
    """Run the cloud's part of *cut*, which is the file at *path*, on made-up requests.

    Raises:
        ModelError: the file cannot run on them, or *dims* does not define the size of an input.
    """
    allowed = cut.check.tolerance if cut.check is not None else TOLERANCE
    return trial_for(path, sent_inputs(cut, dims), dims, threads, allowed)


def trial_for(
    path: Path, inputs: Iterable[Input], dims: Mapping[str, int], threads: int, tolerance: float
) -> Trial:
    """Do the same as `trial` for any ONNX file with the given *inputs*."""
    taken = tuple(inputs)
    feeds = tuple(made_up_for(taken, dims, index) for index in range(len(_CHANGES)))
    opened = ort.session(path, threads=threads)
    return Trial(feeds, tuple(ort.run(opened, feed) for feed in feeds), tolerance)


def _vary(array: Array, index: int) -> Array:
    if array.dtype in (np.int8, np.uint8):  # quantized: any value will do; larger integers may be indices
        span = np.iinfo(array.dtype)
        random = np.random.default_rng(index)
        return random.integers(span.min, span.max, array.shape, array.dtype, endpoint=True)
    if array.dtype.kind in "iub":
        return array
    changed: Array = np.asarray(_CHANGES[index](array)).astype(array.dtype)
    return changed


def has_batch(proto: onnx.ModelProto) -> bool:
    """Whether the first axis of all inputs and outputs is the same symbolic size."""
    sizes = [_first_axis(port) for port in ports(proto)]
    names = {size.dim_param for size in sizes if size is not None}
    return None not in sizes and len(names) == 1 and "" not in names


def give_batch(proto: onnx.ModelProto) -> bool:
    """Make the first axis of all inputs and outputs symbolic if it is 1 everywhere; return whether it was 1.

    Use `agrees` and `separates` to check that the model still computes the same.
    """
    sizes = [_first_axis(port) for port in ports(proto)]
    if any(size is None or size.dim_value != 1 for size in sizes):
        return False
    for size in filter(None, sizes):
        size.dim_param = _SYMBOL
    del proto.graph.value_info[:]
    return True


def ports(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return all outputs, and all inputs except those that only replace weights."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [*(port for port in proto.graph.input if port.name not in weights), *proto.graph.output]


def _first_axis(port: onnx.ValueInfoProto) -> onnx.TensorShapeProto.Dimension | None:
    dims = port.type.tensor_type.shape.dim  # also empty if the port is not a tensor
    return dims[0] if dims else None


def agrees(opened: "InferenceSession", tried: Trial) -> bool:
    """Return whether *opened* gives the wanted outputs for each request."""
    return all(
        _same(ort.run(opened, feed), want, tried.tolerance)
        for feed, want in zip(tried.feeds, tried.wanted, strict=True)
    )


def separates(opened: "InferenceSession", tried: Trial) -> bool:
    """Return whether each request in a batch that *opened* runs gets the same outputs as when it runs alone."""
    try:
        return all(_separates(opened, tried, places) for places in _STACKS)
    except ModelError:
        return False


def _separates(opened: "InferenceSession", tried: Trial, places: Sequence[int]) -> bool:
    feeds = [tried.feeds[place] for place in places]
    outputs = ort.run(opened, stack(feeds))
    ends = list(accumulate(_rows(feed) for feed in feeds))
    if any(np.shape(value)[:1] != (ends[-1],) for value in outputs.values()):
        return False
    return all(
        _same(
            {name: value[start:end] for name, value in outputs.items()}, tried.wanted[place], tried.tolerance
        )
        for place, start, end in zip(places, [0, *ends], ends, strict=False)
    )


def _same(got: Mapping[str, Value], want: Mapping[str, Value], allowed: float) -> bool:
    return all(difference(got[name], value).max_rel <= allowed for name, value in want.items())


def _rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def stack(feeds: Sequence[Feeds]) -> Feeds:
    """Join several requests along axis 0; a single request is returned unchanged and may contain scalars."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def time_batches(
    opened: "InferenceSession", tried: Trial, most: int
) -> tuple[int, tuple[tuple[int, float], ...]]:
    """Time batches of 1, 2, 4, 8 ... requests, up to *most*, until doubling no longer saves time per request.

    Returns:
        The largest batch that is worthwhile, and the median seconds of a run by batch size.
    """
    run_s: dict[int, float] = {}
    best, size = 1, 2
    while size <= most:
        rounds = _rounds(opened, _cycle(tried, size // 2), _cycle(tried, size))
        run_s[size // 2], run_s[size] = (median(runs) for runs in zip(*rounds, strict=True))
        # Other load on this machine is similar within a round, but differs between rounds.
        if median(whole_s / (2 * half_s) for half_s, whole_s in rounds) > 1 - _WORTHWHILE:
            break
        best, size = size, 2 * size
    return best, tuple(sorted(run_s.items()))


def time_alone(opened: "InferenceSession", tried: Trial) -> float:
    """Return the median seconds of a run of one request."""
    feeds = _cycle(tried, 1)
    return median(chain.from_iterable(_rounds(opened, feeds, feeds)))


def _cycle(tried: Trial, count: int) -> Feeds:
    return stack([tried.feeds[place % len(tried.feeds)] for place in range(count)])


def _rounds(opened: "InferenceSession", half: Feeds, whole: Feeds) -> list[tuple[float, float]]:
    """Run both batches in turn, repeatedly, and return the seconds of each run."""
    rounds: list[tuple[float, float]] = []
    began = time.perf_counter()
    for turn in range(1 + _MAX_ROUNDS):
        taken = _run_s(opened, half), _run_s(opened, whole)
        rounds += [taken] if turn else []  # the first is slower
        elapsed_s = time.perf_counter() - began
        if len(rounds) >= (_MIN_ROUNDS if elapsed_s < _LONG_S else _FEW_ROUNDS) and elapsed_s > _TIMED_S:
            break
    return rounds


def _run_s(opened: "InferenceSession", feeds: Feeds) -> float:
    start = time.perf_counter()
    ort.run(opened, feeds)
    return time.perf_counter() - start
