"""Handle ONNX files with weights in a separate file: find the bytes they use, and copy them into one shared file."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from splitc.bundle.folder import WEIGHTS, Bundle
from splitc.common.errors import BundleError, ModelError

# ONNX Runtime maps external data into memory by pages.
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the file *location*, which is in the same folder as an ONNX file."""

    location: str
    offset: int
    bytes: int


def load(path: Path) -> onnx.ModelProto:
    """Read the ONNX file at *path* without its weights.

    Raises:
        ModelError: the file is not an ONNX file, or its weights are in another folder.
    """
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
        found = spans(proto)
    except (DecodeError, LookupError, ValueError) as error:
        raise ModelError(f"{path}: is damaged, or no ONNX file; compile the bundle again") from error
    for span in found:
        if Path(span.location).name != span.location or span.location in ("", ".."):
            raise ModelError(
                f"{path}: has weights in '{span.location}', which is not beside it; compile the bundle again"
            )
    return proto


def load_part(bundle: Bundle, file: str) -> onnx.ModelProto:
    """Read an ONNX file of *bundle* without its weights, which must be in files that the manifest lists.

    Raises:
        ModelError: see `load`.
        BundleError: it refers to a file that the manifest does not list, or to bytes beyond the end of one.
    """
    proto = load(bundle.path(file))
    sizes = {entry.path: entry.bytes for entry in bundle.manifest.files}
    for span in sorted(spans(proto), key=lambda span: (span.location, span.offset)):
        if span.location not in sizes:
            raise BundleError(
                f"{bundle.folder}: '{file}' has weights in '{span.location}', which the manifest does not list; "
                "copy or compile the bundle again"
            )
        if min(span.offset, span.bytes) < 0 or span.offset + span.bytes > sizes[span.location]:
            raise BundleError(
                f"{bundle.folder}: '{file}' has weights beyond the end of '{span.location}'; "
                "copy or compile the bundle again"
            )
    return proto


def spans(proto: onnx.ModelProto) -> set[Span]:
    """Return the bytes in other files that *proto* refers to."""
    found = set()

    def note(span: Span) -> int:
        found.add(span)
        return span.offset

    for tensor in _external(proto):
        _refer(tensor, note)
    return found


def contents_sha256(path: Path, weights: Mapping[int, bytes]) -> str:
    """SHA-256 of what the ONNX file at *path* computes: the same wherever its weights lie, whoever wrote it.

    Args:
        weights: the digests of the weights that it refers to, by offset.

    Raises:
        ModelError: see `load`.
    """
    proto = load(path)
    for field_name in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        proto.ClearField(field_name)
    proto.graph.ClearField("name")
    for tensor in _external(proto):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        del tensor.external_data[:]
        tensor.external_data.add(key="sha256", value=weights[int(entries["offset"])].hex())
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def covers(used: set[Span], size_bytes: int) -> bool:
    """Return whether *used* covers a file of that size, except for padding between pages."""
    end = 0
    for span in sorted(used, key=lambda span: span.offset):
        if span.offset - end >= _PAGE_BYTES:
            return False
        end = max(end, span.offset + span.bytes)
    return end >= size_bytes


def collect(sources: Iterable[tuple[str, Path]], folder: Path) -> None:
    """Copy ONNX files into *folder* under the names given; all refer to one file of weights there.

    Raises:
        ModelError: see `load`.
    """
    with weight_pool(folder) as pool:
        for name, source in sources:
            proto = load(source)
            _move_weights(proto, source.parent, pool)
            (folder / name).write_bytes(proto.SerializeToString(deterministic=True))


def _move_weights(proto: onnx.ModelProto, folder: Path, pool: "WeightPool") -> None:
    """Copy the bytes that *proto* uses from files in *folder* to *pool*, and make *proto* refer to the copies."""
    mapped: dict[str, NDArray[np.uint8]] = {}

    def place(span: Span) -> int:
        if span.location not in mapped:
            mapped[span.location] = np.memmap(folder / span.location, np.uint8, "r")
        return pool.place([mapped[span.location][span.offset : span.offset + span.bytes].data])

    for tensor in _external(proto):
        _refer(tensor, place)
        next(entry for entry in tensor.external_data if entry.key == "location").value = WEIGHTS


@contextmanager
def weight_pool(folder: Path) -> Iterator["WeightPool"]:
    """Create the file of weights in *folder*. It is complete when the block ends, and removed if it is empty."""
    path = folder / WEIGHTS
    with path.open("wb") as out:
        yield WeightPool(out)
        is_empty = not out.tell()
    if is_empty:
        path.unlink()


@dataclass(slots=True)
class WeightPool:
    """A file of weights under construction: equal bytes are written once, on pages of their own.

    Attributes:
        placed: the offset of bytes, by their digest.
    """

    out: BinaryIO
    placed: dict[bytes, int] = field(default_factory=dict)

    def digests(self) -> dict[int, bytes]:
        """The digests of what was placed so far, by offset."""
        return {offset: digest for digest, offset in self.placed.items()}

    def place(self, chunks: Iterable[bytes | memoryview]) -> int:
        """Return the offset of the bytes *chunks*; they are written if they are new.

        The digest is computed while the bytes are written, so that weights are read once and are never completely
        in memory. If the file already contains the same bytes, the new copy is removed.
        """
        end = self.out.tell()
        self.out.write(bytes(-end % _PAGE_BYTES))
        start, sha = self.out.tell(), hashlib.sha256()
        for chunk in chunks:
            self.out.write(chunk)
            sha.update(chunk)
        known = self.placed.setdefault(sha.digest(), start)
        if known != start:
            self.out.seek(end)
            self.out.truncate()
        return known


def _external(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors that are stored in other files, wherever they are in *proto*."""
    found = chain(_tensors(proto.graph), *(_attributes(body.node) for body in proto.functions))
    return (tensor for tensor in found if tensor.data_location == onnx.TensorProto.EXTERNAL)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attributes(graph.node)


def _attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in chain.from_iterable(node.attribute for node in nodes):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from _tensors(body)


def _refer(tensor: onnx.TensorProto, place: Callable[[Span], int]) -> None:
    """Make *tensor* refer to the offsets that *place* returns for its spans.

    In addition to the tensor itself there may be copies that ONNX Runtime packed for its kernels: entries
    "prepacked_0", "prepacked_1" ... with the value "<kernel's key>|<offset>;<bytes>;0|<offset>;<bytes>;0"
    (onnxruntime/core/framework/tensor_external_data_info.cc).
    """
    entries = {entry.key: entry for entry in tensor.external_data}
    location = entries["location"].value

    def moved(offset: str, length: str) -> str:
        return str(place(Span(location, int(offset), int(length))))

    entries["offset"].value = moved(entries["offset"].value, entries["length"].value)
    for key, entry in entries.items():
        if key.startswith("prepacked"):
            kernel, *parts = entry.value.split("|")
            fields = [part.split(";") for part in parts]
            places = [";".join([moved(offset, length), length, *rest]) for offset, length, *rest in fields]
            entry.value = "|".join([kernel, *places])
