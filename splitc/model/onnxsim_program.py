"""Simplify one ONNX file: `python onnxsim_program.py SOURCE TARGET`. Started by `simplify.py`.

Weights are written to a file beside TARGET, so that they need not be loaded with the model.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import onnx
import onnxsim

# Smaller tensors stay in the model: shape inference needs small constants and does not read external data.
_INLINE_BYTES = 1024


def main(source: str, target: str) -> None:
    """Write the simplified model; an exception ends the process, and its text goes to stderr."""
    model = onnx.load_model(source, load_external_data=False)
    for tensor in chain(tensors(model.graph), *(attributes(body.node) for body in model.functions)):
        load(tensor, Path(source).parent)
    proto, _ = onnxsim.simplify(model)
    onnx.save_model(
        proto,
        target,
        save_as_external_data=True,
        location=Path(target).name + ".data",
        size_threshold=_INLINE_BYTES,
    )


def load(tensor: onnx.TensorProto, folder: Path) -> None:
    """Read the data of *tensor* if it is in a file, which may be a link: in download caches onnx itself refuses it.

    `onnx_file.read` has checked that the file belongs to the model.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    where = onnx.external_data_helper.ExternalDataInfo(tensor)
    with (folder / where.location).open("rb") as data:
        data.seek(where.offset or 0)
        tensor.raw_data = data.read(where.length) if where.length else data.read()
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of *graph* and of its subgraphs; sparse ones are never in files."""
    yield from graph.initializer
    yield from attributes(graph.node)


def attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Yield the tensors in attributes of *nodes*."""
    for attribute in chain.from_iterable(node.attribute for node in nodes):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from tensors(body)


if __name__ == "__main__":
    main(*sys.argv[1:])
