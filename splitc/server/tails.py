"""Every tail of some bundles, open at once, on one copy of the weights."""

import ctypes
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import psutil
from numpy.typing import NDArray

from splitc import inference
from splitc.bundle import Bundle, CutEntry, TensorEntry, read_bundle
from splitc.errors import BundleError, ModelError, RuntimeFailure
from splitc.server.prepare import PreparedTail, Settings, prepare
from splitc.stacking import made_up, stack
from splitc.text import format_bytes
from splitc.weights import load

Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], dict[str, NDArray[Any]]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tail:
    """A tail that is ready to run.

    Attributes:
        name: "<model>.<cut id>", what clients ask for.
        bundle: `Bundle.digest` of the bundle that it is of.
        inputs, outputs: as its file declares them, symbolic dimensions by name, "?" for unnamed ones; bytes of
            one request at the sizes that the manifest fixes, where they are known.
        max_batch: how many requests may run as one along axis 0; 1 where none can, or it does not pay.
        run: (inputs by name, names of wanted outputs) -> outputs; thread-safe, raises ModelError.
        run_s: median seconds of a run by batch size, of the sizes that were tried when it was prepared.
    """

    name: str
    bundle: str
    cut: CutEntry
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    max_batch: int
    run: Run
    run_s: tuple[tuple[int, float], ...] = ()


def open_tails(
    folders: Sequence[Path],
    *,
    threads: int,
    max_batch: int,
    memory_limit_bytes: int | None,
    cache_folder: Path,
    say: Say,
) -> tuple[Tail, ...]:
    """Open the tails of the bundles in *folders*, in the order of their manifests, while they fit into the limit.

    What counts is by how much the memory of this process has grown since the call, a page that other
    processes map too counting in part; each tail has then run once, the largest batch. What the
    preparation of tails takes before that is not limited.

    Args:
        say: told what is prepared, which tails are not offered, and why.

    Raises:
        BundleError: a bundle is damaged, packed for the device, or of the same model as another one.
        ModelError: ONNX Runtime refuses a tail.
        RuntimeFailure: there is no tail, or none fits.
        OSError: the cache folder cannot be written.
    """
    bundles = [_read(folder) for folder in folders]
    _refuse_namesakes(bundles)
    settings = Settings(threads, max_batch)
    prepared = [prepare(bundle, cache_folder, settings, say) for bundle in bundles]
    memory = _Memory(memory_limit_bytes)
    tails: list[Tail] = []
    reasons: list[str] = []
    for bundle, (folder, found) in zip(bundles, prepared, strict=True):
        for item in found.tails:
            try:
                tails.append(_open(bundle, folder, item, threads, memory))
            except _NotOffered as reason:
                reasons.append(f"{_name(bundle, item.cut)} is not offered: {reason}")
                say(reasons[-1])
    if not tails:
        raise RuntimeFailure(memory.verdict(reasons))
    return tuple(tails)


def _read(folder: Path) -> Bundle:
    bundle = read_bundle(folder)
    if bundle.manifest.side == "device":
        raise BundleError(f"{folder}: holds only what the device needs; pack it again with --side cloud")
    return bundle


def _refuse_namesakes(bundles: Iterable[Bundle]) -> None:
    folders: dict[str, Path] = {}
    for bundle in bundles:
        name = bundle.manifest.model.name
        if name in folders:
            raise BundleError(
                f"{bundle.folder}: its model is called '{name}', as the one in {folders[name]}, so clients could "
                "not tell them apart; serve one of them"
            )
        folders[name] = bundle.folder


class _NotOffered(Exception):  # noqa: N818 - the reason is told, and others are offered
    """Why a tail is left out."""


class _Memory:
    """By how much this process may grow, and has grown."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.limited = limit_bytes is not None
        self._limit_bytes = limit_bytes
        self._before_bytes = 0 if limit_bytes is None else _memory_bytes()
        self._too_large_bytes: list[int] = []

    def check(self) -> None:
        """See that what is open fits.

        Raises:
            _NotOffered: it does not.
        """
        if self._limit_bytes is None:
            return
        taken = _memory_bytes() - self._before_bytes
        if taken > self._limit_bytes:
            self._too_large_bytes.append(taken)
            raise _NotOffered(
                f"with it the open tails take {format_bytes(taken)}, and {format_bytes(self._limit_bytes)} are allowed"
            )

    def verdict(self, reasons: Sequence[str]) -> str:
        """Why there is no tail at all, *reasons* being those of each."""
        if self._limit_bytes is not None and self._too_large_bytes:
            return (
                f"no tail fits into {format_bytes(self._limit_bytes)}: the smallest takes "
                f"{format_bytes(min(self._too_large_bytes))}; allow more with --memory-limit"
            )
        return f"there is nothing to serve: {reasons[0] if reasons else 'all cuts run on the device alone'}"


def _memory_bytes() -> int:
    """What this process takes: its own pages, and its part of those that other processes map too."""
    gc.collect()
    with suppress(OSError, AttributeError):  # no glibc: then what was freed may count as well
        ctypes.CDLL(None).malloc_trim(0)
    taken: int = psutil.Process().memory_full_info().pss
    return taken


def _name(bundle: Bundle, cut: str) -> str:
    return f"{bundle.manifest.model.name}.{cut}"


def _open(bundle: Bundle, folder: Path, item: PreparedTail, threads: int, memory: _Memory) -> Tail:
    cut = next(cut for cut in bundle.manifest.cuts if cut.id == item.cut)
    inputs, outputs = _interface(bundle, cut, item)
    level = inference.UNCHANGED if item.optimised else inference.FASTEST
    opened = inference.session(folder / item.file, threads=threads, level=level)
    with suppress(ModelError):  # nothing can be made up for it
        one = made_up(cut, bundle.manifest.model.dims)
        inference.run(opened, stack([one] * (item.max_batch if memory.limited else 1)))
    memory.check()
    return Tail(
        name=_name(bundle, item.cut),
        bundle=bundle.digest,
        cut=cut,
        inputs=inputs,
        outputs=outputs,
        max_batch=item.max_batch,
        run=partial(inference.run, opened),
        run_s=item.run_s,
    )


def _interface(
    bundle: Bundle, cut: CutEntry, item: PreparedTail
) -> tuple[tuple[TensorEntry, ...], tuple[TensorEntry, ...]]:
    """Inputs and outputs as the tail's file in the bundle declares them."""
    graph = load(bundle.path(item.file)).graph
    sizes: dict[str, int | None] = {entry.name: entry.bytes for entry in bundle.manifest.model.outputs}
    sizes |= {entry.name: entry.bytes for entry in cut.boundary}
    given = {entry.name for entry in cut.boundary}
    inputs = [port for port in graph.input if port.name in given]
    return tuple(_entry(port, sizes) for port in inputs), tuple(_entry(port, sizes) for port in graph.output)


def _entry(port: onnx.ValueInfoProto, sizes: Mapping[str, int | None]) -> TensorEntry:
    kind = port.type.tensor_type
    if port.type.WhichOneof("value") != "tensor_type":
        raise _NotOffered(f"'{port.name}' is no tensor, and the protocol carries nothing else")
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or inference.FREE_DIM
        for dim in kind.shape.dim
    )
    return TensorEntry(port.name, _dtype(kind.elem_type), shape, sizes.get(port.name))


def _dtype(number: int) -> str:
    if number == onnx.TensorProto.STRING:
        return "string"
    return onnx.helper.tensor_dtype_to_np_dtype(number).name
