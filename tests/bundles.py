"""Compiled bundles of tiny models, and what their tails make of a request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CutEntry, part_files
from splitc.bundle.stacking import made_up
from splitc.common.values import Feeds
from tests.running import compile_here, save_tiny


def compiled(name: str, folder: Path, **options: Any) -> Bundle:
    """The tiny model *name*, compiled below *folder*; its free dimensions are 2."""
    folder.mkdir(parents=True, exist_ok=True)
    path = save_tiny(name, folder)
    ports = onnx.load_model(path).graph.input
    dims = {dim.dim_param: 2 for port in ports for dim in port.type.tensor_type.shape.dim if dim.dim_param}
    return read_bundle(compile_here(path, folder / "bundle", dims=dims, **options).folder)


def tails(bundle: Bundle) -> list[CutEntry]:
    return [cut for cut in bundle.manifest.cuts if cut.tail is not None]


def request(bundle: Bundle, cut: CutEntry, index: int = 0) -> Feeds:
    return made_up(cut, bundle.manifest.model.dims, index)


def results(model: Path, feeds: Feeds) -> Mapping[str, Any]:
    """What ONNX Runtime makes of *feeds* with the file as it lies there."""
    session = ort.InferenceSession(str(model))
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def wanted(bundle: Bundle, cut: CutEntry, index: int = 0) -> Mapping[str, Any]:
    assert cut.tail is not None
    return results(bundle.path(part_files(cut.tail)[0]), request(bundle, cut, index))
