"""The ONNX files of a bundle that the cloud runs, each once, and their inputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, StageEntry
from splitc.bundle.stacking import TOLERANCE, made_up_for, sent_inputs
from splitc.bundle.weights import load_part
from splitc.common.values import FREE_DIM, Feeds, Input

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class CloudFile:
    """An ONNX file that the cloud runs, for one cut or for several.

    Attributes:
        file: its name in the bundle.
        dims: what its symbolic dimensions were when the bundle was compiled.
        tolerance: how far another form of it may be from it, relative to the scale of an output.
    """

    file: str
    inputs: tuple[Input, ...]
    dims: Mapping[str, int]
    tolerance: float

    def made_up(self) -> Feeds:
        """A request to it.

        Raises:
            ModelError: an input is not a tensor of numbers, or its size is unknown.
        """
        return made_up_for(self.inputs, self.dims)


def in_cloud(bundle: Bundle) -> tuple[CutEntry, ...]:
    """The cuts of which the cloud runs a part."""
    return tuple(cut for cut in bundle.manifest.cuts if cut.cloud is not None)


def cloud_files(bundle: Bundle, cuts: Iterable[CutEntry]) -> tuple[CloudFile, ...]:
    """Those of *cuts*, in their order and that of what these do.

    Raises:
        ModelError: a file is damaged.
        BundleError: a file refers to weights that the manifest does not list.
    """
    found: dict[str, CloudFile] = {}
    for cut in cuts:
        for stage in cut.cloud.program if cut.cloud is not None else ():
            for call in stage.calls:
                if call.file not in found:
                    found[call.file] = _cloud_file(bundle, cut, stage, call.file)
    return tuple(found.values())


def _cloud_file(bundle: Bundle, cut: CutEntry, stage: StageEntry, file: str) -> CloudFile:
    graph = load_part(bundle, file).graph
    tolerance = cut.check.tolerance if cut.check is not None else TOLERANCE
    dims = bundle.manifest.model.dims
    if cut.cloud is not None and cut.cloud.file == file:
        return CloudFile(file, sent_inputs(cut, dims), dims, tolerance)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_input(port) for port in graph.input if port.name not in weights)
    return CloudFile(file, inputs, _named_in(stage, inputs, dims), tolerance)


def _named_in(stage: StageEntry, inputs: Iterable[Input], dims: Mapping[str, int]) -> dict[str, int]:
    """Sizes by the names that a file of *stage* has for them: where models clash, the stage's name is put before."""
    names = {dim for item in inputs for dim in item.shape if isinstance(dim, str)}
    found = {name: dims.get(f"{stage.name}.{name}", dims.get(name)) for name in names}
    return {name: size for name, size in found.items() if size is not None}


def _input(port: onnx.ValueInfoProto) -> Input:
    number = port.type.tensor_type.elem_type
    is_number = port.type.WhichOneof("value") == "tensor_type" and number != onnx.TensorProto.STRING
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number).name if is_number else None
    return Input(port.name, dtype, shape_of(port))


def shape_of(port: onnx.ValueInfoProto) -> Shape:
    """As *port* declares it: symbolic dimensions by name, "?" for unnamed ones."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or FREE_DIM
        for dim in port.type.tensor_type.shape.dim
    )
