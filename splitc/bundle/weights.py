"""ONNX files whose weights lie in a file beside them: which bytes they use, and copies that share one file."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from splitc.common.errors import ModelError

WEIGHTS = "weights.bin"
# ONNX Runtime maps external data into memory by pages.
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the file *location*, which lies beside an ONNX file."""

    location: str
    offset: int
    bytes: int


def load(path: Path) -> onnx.ModelProto:
    """Read the ONNX file at *path* without its weights.

    Raises:
        ModelError: not an ONNX file, or its weights lie elsewhere than beside it.
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


def spans(proto: onnx.ModelProto) -> set[Span]:
    """What *proto* refers to outside itself."""
    found = set()

    def note(span: Span) -> int:
        found.add(span)
        return span.offset

    for tensor in _external(proto.graph):
        _refer(tensor, note)
    return found


def covers(used: set[Span], size_bytes: int) -> bool:
    """Whether *used* leaves nothing but padding between pages in a file of that size."""
    end = 0
    for span in sorted(used, key=lambda span: span.offset):
        if span.offset - end >= _PAGE_BYTES:
            return False
        end = max(end, span.offset + span.bytes)
    return end >= size_bytes


def collect(sources: Iterable[tuple[str, Path]], folder: Path) -> None:
    """Copy ONNX files into *folder* under the names given; all refer to one file of weights there.

    Equal bytes are written once, on pages of their own, and never held in memory whole. Where nothing
    is referred to, there is no such file.

    Raises:
        ModelError: see `load`.
    """
    with (folder / WEIGHTS).open("wb") as out:
        pool = _WeightPool(out)
        for name, source in sources:
            proto = load(source)
            for tensor in _external(proto.graph):
                _refer(tensor, partial(pool.place, source.parent))
                next(entry for entry in tensor.external_data if entry.key == "location").value = WEIGHTS
            (folder / name).write_bytes(proto.SerializeToString(deterministic=True))
            pool.files.clear()  # the source may go now
    if not (folder / WEIGHTS).stat().st_size:
        (folder / WEIGHTS).unlink()


@dataclass(slots=True)
class _WeightPool:
    """A file under construction, where in it which bytes lie, and the files that they come from."""

    out: BinaryIO
    placed: dict[bytes, int] = field(default_factory=dict)
    files: dict[Path, NDArray[np.uint8]] = field(default_factory=dict)

    def place(self, folder: Path, span: Span) -> int:
        """Return where the bytes of *span* lie; they are written if they are new."""
        path = folder / span.location
        if path not in self.files:
            self.files[path] = np.memmap(path, np.uint8, "r")
        content = self.files[path][span.offset : span.offset + span.bytes].data
        digest = hashlib.sha256(content).digest()
        if digest not in self.placed:
            self.out.write(bytes(-self.out.tell() % _PAGE_BYTES))
            self.placed[digest] = self.out.tell()
            self.out.write(content)
        return self.placed[digest]


def _external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers, of bodies too, that lie outside: neither splitc nor ONNX Runtime puts other tensors there."""
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _external(body)


def _refer(tensor: onnx.TensorProto, place: Callable[[Span], int]) -> None:
    """Let *tensor* refer to where *place* puts each of its spans.

    Beside the tensor itself there may be forms of it that ONNX Runtime packed for its kernels: entries
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
