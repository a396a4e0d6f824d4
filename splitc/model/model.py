"""Load an ONNX file: check it and read its structure; external weights stay on disk."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from splitc.common.errors import ModelError
from splitc.common.values import Input
from splitc.model import onnx_file
from splitc.model.names import unique_names
from splitc.model.normalize import Changes, normalize
from splitc.model.shape_inference import TensorInfo, infer, name_of

_SHOWN = 8
_USUAL, _EMPTY = 128, 0  # sizes to suggest


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX model on disk and its structure.

    Attributes:
        path: the file that ONNX Runtime opens; external data is in files beside it.
        sha256: of that file followed by its external data files, sorted by name.
        ir: the structure after `normalize`; never changed.
        infos: type and declared (symbolic) shape of every top-level tensor, as far as they are known.
        external: files with external data.
        declared: the declarations of inputs and outputs in the file, by name.
        changes: what `normalize` did to names.
    """

    path: Path
    name: str
    sha256: str
    ir: ir.Model
    infos: Mapping[str, TensorInfo]
    external: tuple[Path, ...]
    declared: Mapping[str, onnx.ValueInfoProto]
    changes: Changes

    def inputs(self) -> tuple[Input, ...]:
        """Return the model's inputs, without initializers."""
        names = [name_of(value) for value in self.ir.graph.inputs]
        infos = ((name, self.infos[name]) for name in names)
        return tuple(Input(name, info.dtype, info.shape or (), info.kind) for name, info in infos)

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the model's outputs, in order."""
        return tuple(name_of(value) for value in self.ir.graph.outputs)

    def weight_bytes(self) -> int:
        """Return the bytes of all initializers."""
        tensors = (value.const_value for value in self.ir.graph.initializers.values())
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def load(path: Path, name: str | None = None) -> Model:
    """Read the ONNX file at *path*; weights in external data stay on disk.

    Args:
        name: of the model; by default the file name without its suffix.

    Raises:
        ModelError: not an ONNX file, truncated, or external data missing or outside its folder.
    """
    file = onnx_file.read(path)
    try:
        model = ir.from_proto(file.proto)
        changes = normalize(model)
        infos = infer(model, {}, file.declared)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise any type of exception
        reason = onnx_file.first_line(error)
        raise ModelError(f"{path}: not a valid ONNX model ({reason}); export it again") from error
    if not len(model.graph):
        raise ModelError(
            f"{path}: the model cannot be cut, because no output is computed by a node; choose another model"
        )
    sha256 = onnx_file.digest([path, *file.external])
    return Model(path, name or path.stem, sha256, model, infos, file.external, file.declared, changes)


def save_renamed(model: Model, path: Path) -> None:
    """Write *model* as it was given, but with unique names, to *path*; weights go into a file beside it.

    Raises:
        OSError: the disk is full or not writable.
    """
    again = ir.from_proto(onnx_file.read(model.path).proto)
    ir.external_data.set_base_dir(again.graph, model.path.parent.absolute())
    unique_names(again)
    ir.save(again, path, external_data=path.name + ".data")


def simplified(model: Model, path: Path) -> Model:
    """Load the simplified form of *model* from *path*; it keeps the name and declarations of *model*.

    Raises:
        ModelError: see `load`.
    """
    return replace(load(path, model.name), declared=model.declared)


def unranked(model: Model) -> tuple[str, ...]:
    """Return the names of inputs that are tensors, but of which the model does not even declare the rank."""
    named = ((name_of(value), model.infos[name_of(value)]) for value in model.ir.graph.inputs)
    return tuple(name for name, info in named if info.kind.startswith("tensor(") and info.shape is None)


def with_ranks(model: Model, ranks: Mapping[str, int]) -> Model:
    """Return *model* with inputs of the given ranks, whose dimensions are symbolic.

    Raises:
        ModelError: the rank of an input is neither declared nor given.
    """
    missing = next((name for name in unranked(model) if name not in ranks), None)
    if missing is not None:
        raise ModelError(
            f"{model.path}: input '{missing}' has no declared shape; declare one, with symbolic names for dimensions "
            "that vary, or give an input with --samples FILE.npz"
        )
    if not ranks:
        return model
    ranked = model.ir.clone()
    for value in ranked.graph.inputs:
        if name_of(value) in ranks:
            value.shape = ir.Shape([None] * ranks[name_of(value)])
    return replace(model, ir=ranked, infos=infer(ranked, {}, model.declared))


def infer_sized(model: Model, dims: Mapping[str, int]) -> Mapping[str, TensorInfo]:
    """Infer types and shapes of the model's tensors with its symbolic dimensions fixed to *dims*."""
    return infer(model.ir, dims, model.declared) if dims else model.infos


def fix_dims(model: Model, given: Mapping[str, int]) -> dict[str, int]:
    """Return a size for every symbolic dimension of the model's inputs; see `fix_input_dims`.

    Raises:
        ModelError: see `fix_input_dims`.
    """
    return fix_input_dims(model.inputs(), given)


def fix_input_dims(inputs: Sequence[Input], given: Mapping[str, int]) -> dict[str, int]:
    """Return a size for every symbolic dimension of *inputs*: as *given*, else 1 if it is a leading (batch) one.

    A size may be 0, as that of a decoder's past in its first step.

    Raises:
        ModelError: dimensions that are not leading have no given size, a given dimension does not exist,
            or a given size is below 0.
    """
    places: dict[str, tuple[str, int]] = {}
    for item in inputs:
        for axis, dim in enumerate(item.shape):
            if isinstance(dim, str):
                places.setdefault(dim, (item.name, axis))
    for name, size in given.items():
        if name not in places:
            known = ", ".join(sorted(places)) or "none"
            raise ModelError(
                f"the model has no symbolic dimension '{name}'; its symbolic dimensions: {known}"
            )
        if size < 0:
            raise ModelError(f"dimension '{name}' cannot be {size}; give at least 0 with --dim {name}=SIZE")
    leading = [item.shape[0] for item in inputs if item.shape]
    dims = {dim: 1 for dim in leading if isinstance(dim, str)} | dict(given)
    missing = {name: place for name, place in places.items() if name not in dims}
    if missing:
        raise ModelError(_missing_sizes(missing))
    return dims


def _missing_sizes(missing: Mapping[str, tuple[str, int]]) -> str:
    """Ask for the sizes of all dimensions at once, with an example of the options."""
    told = [
        f"'{name}' (axis {axis} of input '{reader}')"
        for name, (reader, axis) in list(missing.items())[:_SHOWN]
    ]
    more = f" and {len(missing) - len(told)} more" if len(missing) > len(told) else ""
    options = " ".join(
        f"--dim {shlex.quote(f'{name}={_EMPTY if _is_past(name) else _USUAL}')}" for name in missing
    )
    what = "a size for the symbolic dimension" if len(missing) == 1 else "sizes for the symbolic dimensions"
    return f"the model needs {what} {', '.join(told)}{more}; give yours as in `{options}`"


def _is_past(name: str) -> bool:
    """Whether a dimension counts what a decoder remembers: nothing, in its first step."""
    return "past" in name.lower()
