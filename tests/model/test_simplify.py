"""Simplifying folds what is constant; a result that is not the same model is not used."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from splitc.common.errors import ModelError
from splitc.model import simplify as simplify_module
from splitc.model.model import load
from splitc.model.simplify import Simplified, simplify
from tests import models
from tests.running import compile_here, tree
from tests.splitting import save


def simplified(built: ModelProto, folder: Path) -> tuple[Simplified, int]:
    """The result, and the number of nodes before."""
    model = load(save(built, folder / "source"))
    (folder / "scratch").mkdir()
    return simplify(model, folder / "scratch", models.random_feeds(built)), len(model.ir.graph)


def test_constants_are_folded_and_the_name_and_interface_stay(tmp_path: Path) -> None:
    built = models.dynamic_batch()
    built.graph.node[-1].input[1] = "y_wt"
    built.graph.node.insert(0, models.op("Identity", "y_w", "y_wt"))
    built.graph.node.insert(3, models.op("Identity", "a", "a2"))
    built.graph.node[4].input[0] = "a2"
    result, before = simplified(built, tmp_path)
    assert result.kept_because is None
    assert len(result.model.ir.graph) < before
    assert result.model.name == "model"
    assert result.model.inputs()[0].shape == ("batch", 3, 32, 32)
    assert result.model.declared["y"] == built.graph.output[0]


def test_weights_of_the_simplified_model_stay_on_disk(tmp_path: Path) -> None:
    result, _ = simplified(models.chain(), tmp_path)
    assert [path.name for path in result.model.external] == ["simplified.onnx.data"]


def hub(built: ModelProto, root: Path, model: str = "model.onnx") -> Path:
    """The model as a download cache keeps it: links in one folder to files named by digest in another one."""
    (root / "blobs").mkdir(parents=True)
    copy = ModelProto()
    copy.CopyFrom(built)
    onnx.save_model(
        copy, root / model, save_as_external_data=True, location=f"{model}_data", size_threshold=0
    )
    folder = root / "snapshots" / "one" / "onnx"
    folder.mkdir(parents=True)
    for name, blob in ((model, "ab12"), (f"{model}_data", "cd34")):
        (root / name).rename(root / "blobs" / blob)
        (folder / name).symlink_to(f"../../../blobs/{blob}")
    return folder / model


def test_a_model_in_a_download_cache_is_simplified(tmp_path: Path) -> None:
    built = models.chain()
    model = load(hub(built, tmp_path / "hub"))
    (tmp_path / "scratch").mkdir()
    result = simplify(model, tmp_path / "scratch", models.random_feeds(built))
    assert result.kept_because is None
    assert result.model.weight_bytes() == model.weight_bytes()


def test_a_bundle_of_a_model_in_a_download_cache_is_that_of_a_plain_copy(tmp_path: Path) -> None:
    built = models.chain()
    linked = hub(built, tmp_path / "hub")
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in linked.parent.iterdir():
        shutil.copyfile(path, plain / path.name)
    bundles = [
        compile_here(path / "model.onnx", tmp_path / f"out-{path.name}") for path in (linked.parent, plain)
    ]
    first, second = (tree(found.folder) for found in bundles)
    assert {name: data for name, data in first.items() if name.endswith((".onnx", ".bin"))} == {
        name: data for name, data in second.items() if name.endswith((".onnx", ".bin"))
    }
    assert bundles[0].manifest.notes == bundles[1].manifest.notes
    assert bundles[0].manifest.model == bundles[1].manifest.model


def test_a_reason_holds_no_path_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(hub(models.chain(), tmp_path / "hub"))
    said = f"{model.path.resolve()} and {model.path} and {tmp_path / 'scratch'}/simplified.onnx at /model/a"
    monkeypatch.setattr(simplify_module, "_run_apart", lambda *_: said)
    reason = simplify(model, tmp_path / "scratch", models.random_feeds(models.chain())).kept_because
    assert reason == "onnxsim failed: ab12 and model.onnx and simplified.onnx at /model/a"


def test_a_model_that_grows_is_kept(tmp_path: Path) -> None:
    nodes = [
        models.op("ConstantOfShape", "shape", "zeros", value=models.value("one", [1.0])),
        models.op("MatMul", "x zeros", "a"),
        models.op("ReduceSum", "a axes", "y", keepdims=1),
    ]
    weights = [models.value("shape", [16, 40_000], "int64"), models.value("axes", [1], "int64")]
    result, before = simplified(
        models.model(nodes, [models.X], [models.floats("y", 2, 1)], weights), tmp_path
    )
    assert result.kept_because is not None
    assert result.kept_because.startswith("simplified, it would grow from ")
    assert len(result.model.ir.graph) == before


def test_inputs_that_a_model_does_not_accept_are_blamed(tmp_path: Path) -> None:
    nodes = [models.op("Gather", "table x", "y")]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [2])
    built = models.model(nodes, [x], [models.floats("y", 2, 4)], [models.weight("table", 1, 4)])
    model = load(save(built, tmp_path))
    with pytest.raises(ModelError, match=r"give inputs that it accepts with --samples FILE\.npz"):
        simplify(model, tmp_path, {"x": np.array([0, 1])})


def test_random_nodes_are_not_folded(tmp_path: Path) -> None:
    result, _ = simplified(models.random_normal(), tmp_path)
    assert "RandomNormal" in [node.op_type for node in result.model.ir.graph]


def test_a_result_that_differs_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of onnxsim writes a model that computes something else."""
    weights = models.dense_weights("a", "y")
    built = models.model([*models.dense("x", "a"), *models.dense("a", "y")], [models.X], [models.Y], weights)
    other = models.model([models.op("Neg", "x", "y")], [models.X], [models.Y])
    onnx.save_model(other, tmp_path / "other.onnx")
    program = tmp_path / "program.py"
    program.write_text(
        f"import shutil, sys\nshutil.copy({str(tmp_path / 'other.onnx')!r}, sys.argv[2])\n", encoding="utf-8"
    )
    monkeypatch.setattr("splitc.model.simplify._PROGRAM", program)
    result, _ = simplified(built, tmp_path)
    assert result.kept_because == "the simplified model gives a different result for output 'y'"


def test_a_model_with_random_operators_is_kept(tmp_path: Path) -> None:
    result, _ = simplified(models.random_normal(), tmp_path)
    assert result.kept_because == "it has random operators, so its results cannot be compared"


def test_what_onnxsim_cannot_read_is_kept(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, models.WIDTH]) for name in "xy"]
    node = models.op("com.microsoft.QuickGelu", "x", "y", alpha=1.0)
    built = models.model([node], ports[:1], ports[1:], com_microsoft=1)
    model = load(save(built, tmp_path))
    model.path.with_name("elsewhere").mkdir()
    # A working folder's name, and its length, would change the manifest's bytes.
    reasons = set()
    for missing in (tmp_path / "no such folder", tmp_path / ("long " * 40) / ("longer " * 10)):
        result = simplify(model, missing, {"x": np.zeros((2, models.WIDTH), np.float32)})
        assert result.model is model
        assert result.kept_because is not None
        assert result.kept_because.startswith("onnxsim failed: ")
        assert "simplified.onnx" in result.kept_because
        assert str(tmp_path) not in result.kept_because
        assert "\n" not in result.kept_because
        reasons.add(result.kept_because)
    assert len(reasons) == 1


def test_a_model_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    model = load(save(models.diamond(), tmp_path))
    with pytest.raises(ModelError, match="cannot run the model on these inputs"):
        simplify(model, tmp_path, {})
