"""The manifest says what was found and solved, in the model's own words."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from splitc.bundle.folder import read_bundle
from splitc.bundle.manifest import Manifest, part_files
from tests.conftest import Tiny
from tests.running import compile_here, save_tiny


def test_a_compiled_bundle(tiny: Tiny) -> None:
    manifest = tiny.bundle.manifest
    assert manifest.generator == {"splitc": version("splitc"), "onnxruntime": onnxruntime.__version__}
    assert manifest.model.name == "tiny_cnn"
    assert [(item.name, item.dtype, item.shape, item.bytes) for item in manifest.model.inputs] == [
        ("image", "float32", (1, 3, 32, 32), 12288)
    ]
    assert [(item.name, item.shape) for item in manifest.model.outputs] == [("logits", (1, 10))]
    head, tail = manifest.targets.device, manifest.targets.cloud
    assert (head.name, head.source, head.interval) == ("slow", "predicted", (0.5, 2.0))
    assert (tail.name, tail.source, tail.calibration_runs) == ("local", "measured", 0)
    assert tail.interval is not None
    assert tail.interval[0] <= 1 <= tail.interval[1]
    assert tail.runtime_version == onnxruntime.__version__
    assert manifest.regret.shipped_cuts == len(manifest.cuts)
    assert 0 <= manifest.regret.certified <= manifest.regret.limit
    assert [cut.id for cut in manifest.cuts] == [f"c{number}" for number in range(len(manifest.cuts))]


def test_every_cut_adds_up(tiny: Tiny) -> None:
    for cut in tiny.bundle.manifest.cuts:
        assert cut.uplink_bytes == sum(tensor.bytes for tensor in cut.boundary)
        assert cut.check is not None
        assert cut.check.max_rel <= cut.check.tolerance
        for part in (cut.head, cut.tail):
            if part is not None:
                held = onnx.load_model(
                    tiny.bundle.path(part_files(part)[0]), load_external_data=False
                ).graph.initializer
                assert len(held) == (10 if cut.kind != "split" else len(held))
        assert cut.head is None or (cut.head.peak_bytes or 0) >= cut.head.weight_bytes
    names = [entry.path for entry in tiny.bundle.manifest.files]
    assert sorted(names) == sorted({path.name for path in tiny.bundle.folder.iterdir()} - {"manifest.json"})


def manifest_of(name: str, folder: Path, **options: Any) -> Manifest:
    compile_here(save_tiny(name, folder), folder / "bundle", **options)
    return read_bundle(folder / "bundle").manifest


def test_symbolic_dimensions_stay(tmp_path: Path) -> None:
    manifest = manifest_of("dynamic_batch", tmp_path)
    assert manifest.model.inputs[0].shape[0] == "batch"
    assert manifest.model.dims == {"batch": 1}
    assert all(tensor.shape[0] == "batch" for cut in manifest.cuts for tensor in cut.boundary)


def test_what_is_no_tensor_of_numbers_is_an_object(tmp_path: Path) -> None:
    manifest = manifest_of("string_output", tmp_path)
    label = manifest.model.outputs[1]
    assert (label.name, label.dtype) == ("label", "object")


@pytest.mark.parametrize("simplify", [True, False])
def test_says_whether_the_model_was_simplified(simplify: bool, tmp_path: Path) -> None:
    assert manifest_of("diamond", tmp_path, simplify=simplify).model.simplified is simplify
