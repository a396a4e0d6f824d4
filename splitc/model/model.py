"""Load an ONNX file: check it, read its structure, leave its weights on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from splitc.common.errors import ModelError
from splitc.common.values import Input
from splitc.model import onnx_file
from splitc.model.normalize import normalize
from splitc.model.shape_inference import TensorInfo, infer, name_of


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX model on disk and its structure.

    Attributes:
        path: the file that ONNX Runtime opens; external data lies beside it.
        sha256: of that file and of its external data, in order of their names.
        ir: the normalised structure: constants are initializers, nothing is dead; never changed.
        infos: type and declared (symbolic) shape of every top-level tensor, as far as inference tells.
        external: files with external data.
        declared: the model's own declarations of inputs and outputs, by name.
    """

    path: Path
    name: str
    sha256: str
    ir: ir.Model
    infos: Mapping[str, TensorInfo]
    external: tuple[Path, ...]
    declared: Mapping[str, onnx.ValueInfoProto]

    def inputs(self) -> tuple[Input, ...]:
        """The model's inputs, initializers excluded."""
        names = [name_of(value) for value in self.ir.graph.inputs]
        return tuple(Input(name, self.infos[name].dtype, self.infos[name].shape or ()) for name in names)

    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        return tuple(name_of(value) for value in self.ir.graph.outputs)

    def weight_bytes(self) -> int:
        """Bytes of all initializers."""
        tensors = (value.const_value for value in self.ir.graph.initializers.values())
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def load(path: Path, name: str | None = None) -> Model:
    """Read the ONNX file at *path*; weights in external data stay on disk.

    Raises:
        ModelError: not an ONNX file, truncated, or external data missing or outside its folder.
    """
    file = onnx_file.read(path)
    try:
        model = ir.from_proto(file.proto)
        ir.external_data.set_base_dir(model.graph, path.parent.absolute())
        normalize(model)
        infos = infer(model, {})
    except Exception as error:  # a damaged file fails anywhere in here, with any type; the cause is kept
        reason = onnx_file.first_line(error)
        raise ModelError(f"{path}: not a valid ONNX model ({reason}); export it again") from error
    if not len(model.graph):
        raise ModelError(f"{path}: the model has no nodes that lead to an output; there is nothing to cut")
    sha256 = onnx_file.digest([path, *file.external])
    return Model(path, name or path.stem, sha256, model, infos, file.external, file.declared)


def simplified(model: Model, path: Path) -> Model:
    """The simplified *model* at *path*, under its name and with its own declarations.

    Raises:
        ModelError: as of `load`.
    """
    return replace(load(path, model.name), declared=model.declared)


def infer_sized(model: Model, dims: Mapping[str, int]) -> Mapping[str, TensorInfo]:
    """The model's tensors with its symbolic dimensions fixed to *dims*."""
    return infer(model.ir, dims) if dims else model.infos


def fix_dims(model: Model, given: Mapping[str, int]) -> dict[str, int]:
    """Sizes for every symbolic dimension of the model's inputs; see `fix_input_dims`.

    Raises:
        ModelError: a dimension that is not leading is not given, or a given name does not exist.
    """
    return fix_input_dims(model.inputs(), given)


def fix_input_dims(inputs: Sequence[Input], given: Mapping[str, int]) -> dict[str, int]:
    """Sizes for every symbolic dimension of *inputs*: *given*, and 1 for a leading (batch) dimension.

    Raises:
        ModelError: a dimension that is not leading is not given, or a given name does not exist.
    """
    places = {
        dim: (item.name, axis)
        for item in inputs
        for axis, dim in enumerate(item.shape)
        if isinstance(dim, str)
    }
    for name, size in given.items():
        if name not in places:
            have = ", ".join(sorted(places)) or "none"
            raise ModelError(f"the model has no symbolic dimension '{name}'; it has: {have}")
        if size < 1:
            raise ModelError(f"dimension '{name}' cannot be {size}; give at least 1 with --dim {name}=SIZE")
    leading = [item.shape[0] for item in inputs if item.shape]
    dims = {dim: 1 for dim in leading if isinstance(dim, str)} | dict(given)
    for name, (reader, axis) in places.items():
        if name not in dims:
            raise ModelError(
                f"input '{reader}' has a symbolic dimension '{name}' at axis {axis}; "
                f"fix it for sizing with --dim {name}=SIZE"
            )
    return dims
