"""`check_bundle` believes nothing: it runs every cut."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from splitc.bundle.folder import MANIFEST, file_entry
from splitc.bundle.pack import pack
from splitc.common.errors import BundleError, ModelError, VerifyError
from splitc.compile.check import Checked, check_bundle, open_to_check
from splitc.compile.limits import LimitOptions
from tests.conftest import Tiny
from tests.running import compile_here, save_tiny


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny.bundle.folder, copy)
    return copy


def checked(folder: Path, model: Path | None = None, *samples: Path) -> Checked:
    return check_bundle(open_to_check(folder), model, samples, lambda _: None)


def check(folder: Path, model: Path | None = None, *samples: Path) -> list[str]:
    return [key for key, _ in checked(folder, model, *samples).cuts]


def test_a_good_bundle(tiny: Tiny, folder: Path) -> None:
    keys = [cut.id for cut in tiny.bundle.manifest.cuts]
    stages: list[str] = []
    assert check(folder, tiny.model) == check(folder) == keys
    against = check_bundle(open_to_check(folder), None, (), stages.append).against
    assert against == "its own head-c0.onnx"
    assert stages == [
        "Running the whole model",
        *(f"Verifying cut {key}, {number} of {len(keys)}" for number, key in enumerate(keys, start=1)),
    ]


def test_a_wrong_tail_is_found_even_if_the_manifest_vouches_for_it(folder: Path) -> None:
    value = json.loads((folder / MANIFEST).read_bytes())
    number, cut = next((n, cut) for n, cut in enumerate(value["cuts"]) if cut["kind"] == "split")
    path = folder / cut["tail"]["file"]
    tail = onnx.load_model(path)
    bias = next(item for item in tail.graph.initializer if item.name == "head/bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save_model(tail, path)
    for entry in value["files"]:
        if entry["path"] == path.name:
            entry.update(
                bytes=file_entry(folder, path.name).bytes, sha256=file_entry(folder, path.name).sha256
            )
    (folder / MANIFEST).write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(VerifyError, match=f"^cut c{number}: output 'logits' differs from the whole model"):
        check(folder)


def test_a_damaged_bundle(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"'weights\.bin' has 0 bytes"):
        check(folder)


def test_another_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"was compiled from another model than .*; compile it again"):
        check(folder, save_tiny("chain", tmp_path))


def test_samples(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", image=np.ones((1, 3, 32, 32), np.float32))
    np.savez(tmp_path / "bad.npz", picture=np.ones((1, 3, 32, 32), np.float32))
    assert check(folder, None, tmp_path / "good.npz")
    with pytest.raises(ModelError, match="input"):
        check(folder, None, tmp_path / "bad.npz")


def test_half_precision_inside_is_judged_as_at_compile_time(tmp_path: Path) -> None:
    compiled = compile_here(save_tiny("fp16_chain", tmp_path), tmp_path / "bundle")
    checks = checked(compiled.folder).cuts
    assert {found.tolerance for _, found in checks} == {2e-2}


def test_unverified_cuts_are_judged_by_what_the_model_holds(tmp_path: Path) -> None:
    compiled = compile_here(save_tiny("qdq_residual", tmp_path), tmp_path / "bundle", verify=False)
    assert all(cut.check is None for cut in compiled.manifest.cuts)
    checks = checked(compiled.folder).cuts
    assert {found.tolerance for _, found in checks} == {2e-2}


def test_a_model_that_differs_from_itself(tmp_path: Path) -> None:
    compiled = compile_here(save_tiny("random_normal", tmp_path), tmp_path / "bundle")
    with pytest.raises(VerifyError, match="another result each time"):
        check(compiled.folder)


def test_one_side_of_a_bundle(folder: Path, tmp_path: Path) -> None:
    pack(folder, "cloud", tmp_path / "cloud")
    with pytest.raises(
        BundleError, match="holds only what the cloud needs; verify the bundle that it was packed from"
    ):
        check(tmp_path / "cloud")


def test_a_cloud_first_bundle(tmp_path: Path) -> None:
    path, limits = (
        save_tiny("tiny_cnn", tmp_path),
        LimitOptions(pin_device=("logits",), pin_cloud=("stem/conv",)),
    )
    compiled = compile_here(path, tmp_path / "bundle", directions=("cloud-first",), limits=limits)
    assert any(cut.is_cloud_first for cut in compiled.manifest.cuts)
    assert check(compiled.folder, path) == [cut.id for cut in compiled.manifest.cuts]
