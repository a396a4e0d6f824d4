"""The tensors in requests for a cut and in their answers."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import BoundaryEntry, CutEntry, TensorEntry
from splitc.bundle.weights import load_part
from splitc.common.errors import ProtocolError
from splitc.protocol.tensors import datatype
from splitc.server.tails.files import shape_of

_NO_NUMBERS = "object"  # the manifest does not know the shape of such a value

Tensors = tuple[TensorEntry, ...]


class NotOffered(Exception):  # noqa: N818 - the reason is told, and others are offered
    """The reason why the cloud part of a cut is not served."""


def declared(bundle: Bundle, cut: CutEntry, file: str) -> tuple[Tensors, Tensors]:
    """Inputs as *file*, all that the cloud runs of *cut*, declares them; outputs with the shapes in the manifest.

    Raises:
        NotOffered: the protocol cannot carry one.
    """
    graph = load_part(bundle, file).graph
    known = (*bundle.manifest.model.outputs, *cut.boundary, *(cut.downloads or ()), *cut.sent)
    sizes = {entry.name: entry.bytes for entry in known}
    shapes = {entry.name: entry.shape for entry in known if entry.dtype != _NO_NUMBERS}
    given = {entry.name for entry in cut.sent}
    inputs = [_entry(port, sizes) for port in graph.input if port.name in given]
    # Models may declare other shapes of outputs than they make, and ONNX Runtime only warns of that. The shapes in the
    # manifest were found without these declarations.
    outputs = [
        replace(entry, shape=shapes.get(entry.name, entry.shape))
        for entry in (_entry(port, sizes) for port in graph.output)
    ]
    return _checked(inputs), _checked(outputs)


def recorded(bundle: Bundle, cut: CutEntry, made: Iterable[str]) -> tuple[Tensors, Tensors]:
    """Inputs, and the outputs *made*, as the manifest has them: where files are only steps between the two.

    Raises:
        NotOffered: the protocol cannot carry one.
    """
    outputs = {entry.name: entry for entry in (*bundle.manifest.model.outputs, *(cut.downloads or ()))}
    return _checked(map(_plain, cut.sent)), _checked(outputs[name] for name in made)


def _checked(entries: Iterable[TensorEntry]) -> Tensors:
    found = tuple(entries)
    for entry in found:
        try:
            datatype(entry.dtype)
        except ProtocolError as error:
            raise NotOffered(f"'{entry.name}' is in its way: {error}") from error
    return found


def _plain(entry: TensorEntry | BoundaryEntry) -> TensorEntry:
    return TensorEntry(entry.name, entry.dtype, entry.shape, entry.bytes)


def _entry(port: onnx.ValueInfoProto, sizes: Mapping[str, int | None]) -> TensorEntry:
    kind = port.type.tensor_type
    if port.type.WhichOneof("value") != "tensor_type":
        raise NotOffered(f"'{port.name}' is not a tensor; the protocol carries tensors only")
    return TensorEntry(port.name, _dtype(kind.elem_type), shape_of(port), sizes.get(port.name))


def _dtype(number: int) -> str:
    if number == onnx.TensorProto.STRING:
        return "string"
    return onnx.helper.tensor_dtype_to_np_dtype(number).name
