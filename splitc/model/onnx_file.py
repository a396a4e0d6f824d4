"""Read an ONNX file as a protobuf message and reject models that cannot be cut.

Sparse tensors are made dense, the standard domain gets one name, and each output is listed once.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from splitc.common.errors import ModelError
from splitc.common.files import is_unicode, resolved
from splitc.model.wellformed import (
    STANDARD,
    NotUsable,
    all_nodes,
    check_domains,
    check_names,
    graphs,
    import_assumed,
)

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file that was read and checked.

    Attributes:
        external: files with external data, sorted.
        declared: the declarations of inputs and outputs in the file, by name.
    """

    proto: onnx.ModelProto
    external: tuple[Path, ...]
    declared: dict[str, onnx.ValueInfoProto]


def read(path: Path) -> OnnxFile:
    """Read and check the ONNX file at *path*; of external data, only the file sizes are checked.

    Raises:
        ModelError: not an ONNX file, damaged, inconsistent, or external data missing or outside its folder.
    """
    if not is_unicode(path):
        raise ModelError(
            f"{path}: the path is not valid UTF-8, and ONNX Runtime opens no such files; rename it"
        )
    proto = _parse(path)
    try:
        _standardize(proto)
        external = _check_tensors(proto, path)
        declared = {info.name: info for info in _copies([*proto.graph.input, *proto.graph.output])}
        for graph in graphs(proto.graph):
            _densify(graph)
            _forget_maps(graph)
        _internalize(proto)
        _list_outputs_once(proto.graph)
        import_assumed(proto)
        check_domains(proto)
        check_names(proto)
    except NotUsable as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: the file is damaged ({first_line(error)}); export it again") from error
    return OnnxFile(proto, external, declared)


def without_links(proto: onnx.ModelProto, folder: Path) -> Path:
    """Make the external data of *proto*, read from *folder*, refer to the files behind links; return their folder.

    ONNX Runtime follows links out of the folder of a model that it opens by path, but not of one that it gets as bytes.
    """
    tensors = [tensor for tensor in _tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    entries = [entry for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    files = [(folder / entry.value).resolve() for entry in entries]
    if not files:
        return folder
    shared = Path(os.path.commonpath([file.parent for file in files]))
    for entry, file in zip(entries, files, strict=True):
        entry.value = file.relative_to(shared).as_posix()
    return shared


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the concatenated bytes of the files, in hexadecimal."""
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                sha.update(buffer[:count])
    return sha.hexdigest()


def first_line(error: BaseException) -> str:
    """Return the first line of the message of the innermost cause of *error*."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0][:200].rstrip(".") if text else type(error).__name__


def _parse(path: Path) -> onnx.ModelProto:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ModelError(f"{path}: is a pipe or a device, not a file; save the model to a file first")
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: is a folder; give the path of the .onnx file in it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise ModelError(f"{path}: cannot be read ({reason}); check the path and its permissions") from error
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or truncated; export or download it again") from error
    if not proto.HasField("graph") or not proto.ir_version or not proto.graph.output:
        raise ModelError(
            f"{path}: not an ONNX model (it has no graph with outputs), or truncated; export or download it again"
        )
    return proto


def _standardize(proto: onnx.ModelProto) -> None:
    """Rename the standard domain to "" everywhere."""
    imports = [proto.opset_import, *(function.opset_import for function in proto.functions)]
    for item in [opset for opsets in imports for opset in opsets] + list(all_nodes(proto)):
        if item.domain == STANDARD:
            item.domain = ""


# --- tensors ---


def _check_tensors(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Check that every tensor has all its bytes, in the model or in external files; return those files.

    The tensors then refer to the files by absolute paths without links: in download caches the model and its data are
    links, and libraries refuse data that is elsewhere than it seems.
    """
    files: dict[Path, int] = {}
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            data = _check_external(tensor, path, files)
            next(entry for entry in tensor.external_data if entry.key == "location").value = str(
                data.resolve()
            )
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != _nbytes(tensor):
            raise NotUsable(
                f"tensor '{tensor.name}' has {len(tensor.raw_data)} bytes of data, but its shape "
                f"{list(tensor.dims)} needs {_nbytes(tensor)}; export the model again"
            )
    return tuple(sorted(files))


def _check_external(tensor: onnx.TensorProto, path: Path, files: dict[Path, int]) -> Path:
    """Check that *tensor* has all its bytes in a file of the model; add it to *files* and return it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    data = path.parent / location
    # If the model is a symbolic link (as in download caches), its data may be beside the target of the link.
    folders = {path.parent.resolve(), path.resolve().parent}
    target = resolved(data)
    if target is None and "\0" not in location:
        raise NotUsable(
            f"external data file '{location}' of tensor '{tensor.name}' is a link to itself, or no name of a file; "
            "put the data beside the model"
        )
    inside = target is not None and any(target.is_relative_to(folder) for folder in folders)
    if not location or Path(location).is_absolute() or not inside or ".." in Path(location).parts:
        raise NotUsable(
            f"tensor '{tensor.name}' has external data outside the model's folder, at '{location}'; "
            "put the data beside the model and save the model with a relative location"
        )
    if not data.is_file():
        raise NotUsable(
            f"external data file '{location}' of tensor '{tensor.name}' is missing; put it beside the model"
        )
    if data.stat().st_nlink > 1:  # onnx_ir rejects hard links when it reads the data
        raise NotUsable(
            f"external data file '{location}' has {data.stat().st_nlink} hard links, and ONNX tools do not read "
            "such files; replace it with a copy"
        )
    numbers = [entries.get("offset", "0") or "0", entries.get("length", "") or str(_nbytes(tensor))]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise NotUsable(
            f"tensor '{tensor.name}' has external data with offset '{numbers[0]}' and length '{numbers[1]}', "
            "which are not both non-negative integers; save the model again"
        )
    offset, length = map(int, numbers)
    if length != _nbytes(tensor):
        raise NotUsable(
            f"tensor '{tensor.name}' has {length} bytes of external data, but its shape {list(tensor.dims)} "
            f"needs {_nbytes(tensor)}; save the model again"
        )
    size = files.setdefault(data, data.stat().st_size)
    if offset + length > size:
        raise NotUsable(
            f"external data file '{location}' is truncated: tensor '{tensor.name}' ends beyond its end; copy it again"
        )
    return data


def _nbytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise NotUsable(
                f"tensor '{tensor.name}' has a negative dimension in its shape {list(tensor.dims)}; "
                "export the model again"
            )
        count *= dim
    return (count * ir.DataType(tensor.data_type).bitwidth + 7) // 8


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in graphs(proto.graph):
        yield from graph.initializer
    yield from _attribute_tensors(all_nodes(proto))


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _internalize(proto: onnx.ModelProto) -> None:
    """Load external data of tensors that do not become initializers, because parts store these in the graph."""
    inner = [node for function in proto.functions for node in function.node]
    inner += [node for graph in graphs(proto.graph) for node in graph.node if node.op_type != "Constant"]
    for tensor in _attribute_tensors(inner):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with Path(entries["location"]).open("rb") as data:
                data.seek(int(entries.get("offset") or 0))
                tensor.raw_data = data.read(_nbytes(tensor))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def _densify(graph: onnx.GraphProto) -> None:
    """Replace sparse initializers and constants by dense ones, as ONNX Runtime does when it loads them.

    onnx_ir does not support sparse tensors and would drop them silently.
    """
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                dense = _dense(attribute.sparse_tensor)
                attribute.Clear()
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return onnx.numpy_helper.from_array(array, sparse.values.name)


# --- declarations ---


def _copies(infos: list[onnx.ValueInfoProto]) -> Iterator[onnx.ValueInfoProto]:
    for info in infos:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(info)
        yield copy


def _forget_maps(graph: onnx.GraphProto) -> None:
    """Clear map types, which onnx_ir does not support; emitted models use `OnnxFile.declared` for outputs."""
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if "map" in _kinds(info.type):
            info.ClearField("type")


def _kinds(kind: onnx.TypeProto) -> set[str]:
    """Return the constructors that a type consists of: tensor, sequence, optional, map."""
    found = set()
    while True:
        name = kind.WhichOneof("value")
        found.add((name or "").removesuffix("_type"))
        if name not in ("sequence_type", "optional_type"):
            return found
        kind = getattr(kind, name).elem_type


def _list_outputs_once(graph: onnx.GraphProto) -> None:
    """Forget that an output is listed twice: by its name, it is one."""
    last = {info.name: info for info in _copies(list(graph.output))}
    if len(last) < len(graph.output):
        del graph.output[:]
        graph.output.extend(last.values())
