"""Size every tensor at the sizing dimensions: by shape inference, or by a run where inference cannot tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnxruntime import InferenceSession

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import FREE_DIM, Feeds, Value, value_bytes
from splitc.model.kinds import crossing_dtype, is_returned
from splitc.model.model import Model, infer_sized
from splitc.model.onnx_file import without_links
from splitc.model.shape_inference import TensorInfo


@dataclass(frozen=True, slots=True)
class Size:
    """A tensor at the sizing dimensions.

    Attributes:
        dtype: None if the value cannot cross.
        shape: the symbolic shape; "?" is a dimension that depends on the input values.
        sized: the shape at the sizing dimensions; None for sequences and maps.
        nbytes: bytes when sent unencoded.
        measured: found by running the model once, not by inference.
        kind: its type, see `kinds`.
    """

    dtype: str | None
    shape: tuple[int | str, ...]
    sized: tuple[int, ...] | None
    nbytes: int
    measured: bool
    kind: str = ""


def sizes(model: Model, dims: Mapping[str, int], feeds: Feeds | None) -> dict[str, Size]:
    """Return the size of every top-level tensor, by name; a tensor of unknown size is missing.

    Args:
        dims: sizes of symbolic dimensions.
        feeds: representative values for every input; None if the model cannot be run here.

    Raises:
        ModelError: ONNX Runtime cannot run the model on *feeds*.
    """
    inferred = infer_sized(model, dims)
    known = {name: size for name, info in inferred.items() if (size := _inferred(info, model.infos[name]))}
    unknown = [name for node in model.ir.graph for name in _outputs(node) if name not in known]
    if feeds is not None:
        known |= _of_inputs(model, {name: feed for name, feed in feeds.items() if name not in known})
    if unknown and feeds is not None:
        known |= _measure(model, unknown, feeds)
    elif unknown:
        known |= _declared(model, unknown, dims)
    for name in unknown:
        original = model.changes.copies.get(name)
        if name not in known and original in known:
            known[name] = known[original]
    return known


def _inferred(info: TensorInfo, declared: TensorInfo) -> Size | None:
    if info.bits is None or info.shape is None:
        return None
    sized = tuple(dim for dim in info.shape if isinstance(dim, int))
    if len(sized) != len(info.shape):
        return None
    shape = declared.shape if declared.shape is not None else (FREE_DIM,) * len(sized)
    nbytes = (int(np.prod(sized, dtype=np.int64)) * info.bits + 7) // 8
    return Size(info.dtype, shape, sized, nbytes, measured=False, kind=info.kind)


def _declared(model: Model, names: list[str], dims: Mapping[str, int]) -> dict[str, Size]:
    """Return the sizes that the model declares for outputs; unverified, so used only if it cannot be run."""
    found = {}
    for name in names:
        kind = model.declared[name].type.tensor_type if name in model.declared else None
        if kind is None or not kind.HasField("shape"):
            continue
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
        sized = tuple(dims.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)
        info = replace(model.infos[name], shape=sized)
        if all(isinstance(dim, int) for dim in sized) and (size := _inferred(info, model.infos[name])):
            found[name] = size
    return found


def _of_inputs(model: Model, feeds: Feeds) -> dict[str, Size]:
    """Return the sizes of inputs of other types than numbers, as they are in *feeds*."""
    found = {}
    for name, value in feeds.items():
        info, sized = model.infos[name], value.shape if isinstance(value, np.ndarray) else None
        found[name] = Size(None, info.shape or (), sized, value_bytes(value), measured=True, kind=info.kind)
    return found


def _measure(model: Model, names: list[str], feeds: Feeds) -> dict[str, Size]:
    """Run the model once with *names* as outputs."""
    values, kinds = _run_with_outputs(model, names, feeds)
    found = {}
    for name, value in values.items():
        kind, sized = kinds[name], value.shape if isinstance(value, np.ndarray) else None
        dtype = crossing_dtype(kind)
        if dtype is not None and sized is not None:
            declared = model.infos[name].shape
            known = declared is not None and len(declared) == value.ndim
            shape = declared if declared is not None and known else (FREE_DIM,) * value.ndim
            found[name] = Size(dtype, shape, sized, value.nbytes, measured=True, kind=kind)
        elif value is not None:  # an optional without a value has no size
            found[name] = Size(None, (), sized, value_bytes(value), measured=True, kind=kind)
    return found


def _run_with_outputs(
    model: Model, names: list[str], feeds: Feeds
) -> tuple[dict[str, Value], Mapping[str, str]]:
    """Return the values of the tensors *names*, and their types; of model outputs only, if the others fail.

    A value inside the model of a type that ONNX Runtime hands on as another, or not at all, is left out.

    The model runs without graph optimisation, because fused tensors do not exist otherwise.
    """
    proto = onnx.load_model(model.path, load_external_data=False)
    made = {output for node in proto.graph.node for output in node.output}
    outputs = {output.name for output in proto.graph.output}
    wanted = [name for name in names if name in made]
    try:
        opened = session_with_outputs(model, wanted)
        kinds = ort.output_kinds(opened)
        wanted = [name for name in wanted if name in outputs or is_returned(kinds[name])]
        return ort.run(opened, feeds, wanted), kinds
    except ModelError:
        opened = ort.session(model.path)
        values = ort.run(opened, feeds, [name for name in wanted if name in outputs])
        return values, ort.output_kinds(opened)


def session_with_outputs(model: Model, names: Iterable[str]) -> InferenceSession:
    """Open *model* so that it returns the tensors *names* as well, which its nodes make.

    Raises:
        ModelError: ONNX Runtime cannot return one of them.
    """
    proto = onnx.load_model(model.path, load_external_data=False)
    folder = without_links(proto, model.path.parent)
    outputs = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    return ort.session(proto.SerializeToString(), external_folder=folder, level=ort.UNCHANGED)


def _outputs(node: object) -> list[str]:
    return [output.name for output in node.outputs if output.name]  # type: ignore[attr-defined]
