"""`check_bundle` believes nothing of a bundle: it runs the two programs of every cut."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from splitc.bundle.folder import MANIFEST, Bundle, file_entry, read_bundle
from splitc.common.errors import BundleError, ModelError, VerifyError
from splitc.compile.check import Checked, check_bundle, open_to_check
from splitc.compile.limits import LimitOptions
from tests.compile.pipeline.making import compiled, write_diffusion, write_long
from tests.models import WIDTH, floats, model, op

Damage = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(path: Path) -> Bundle:
    return read_bundle(compiled(path, path.parent / "bundle").folder)


@pytest.fixture
def folder(made: Bundle, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(made.folder, copy)
    return copy


def check(folder: Path, given: Path | None = None, *samples: Path) -> Checked:
    return check_bundle(open_to_check(folder), given, samples, lambda _: None)


def change(folder: Path, damage: Damage) -> None:
    value = json.loads((folder / MANIFEST).read_bytes())
    damage(value)
    (folder / MANIFEST).write_text(json.dumps(value), encoding="utf-8")


def first_split(value: dict[str, Any], direction: str) -> dict[str, Any]:
    splits = (cut for cut in value["cuts"] if cut["kind"] == "split")
    found: dict[str, Any] = next(
        cut for cut in splits if cut.get("direction", "device-first") == direction and cut["head"]["stages"]
    )
    return found


def test_a_good_bundle(made: Bundle, path: Path) -> None:
    keys = [cut.id for cut in made.manifest.cuts]
    own, given = check(made.folder), check(made.folder, path)
    assert [key for key, _ in own.cuts] == [key for key, _ in given.cuts] == keys
    assert own.against == "its own cut c0, which is all-head"
    assert given.against == str(path)
    assert own.notes == given.notes
    assert own.notes == (
        "cuts were verified with 3 of the 20 iterations of stage 'denoise', a hand-over inside the loop stays inside",
    )
    assert all(found.seeds == 3 and found.tolerance == 1e-4 for _, found in (*own.cuts, *given.cuts))


def test_given_inputs(made: Bundle, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        item.name: np.ones((2, WIDTH), np.float32) for item in made.manifest.model.inputs
    }
    np.savez(tmp_path / "good.npz", **values)
    np.savez(tmp_path / "bad.npz", prompt=values["prompt"])
    assert {found.seeds for _, found in check(made.folder, None, tmp_path / "good.npz").cuts} == {1}
    with pytest.raises(ModelError, match="lacks input"):
        check(made.folder, None, tmp_path / "bad.npz")


def test_another_pipeline(made: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"was compiled from another model than .*pipeline\.toml"):
        check(made.folder, write_diffusion(tmp_path))


def test_a_wrong_model_is_found_even_if_the_manifest_vouches_for_it(folder: Path, path: Path) -> None:
    file = folder / "stage-denoise-step.onnx"
    step = onnx.load_model(file)
    tenth = next(item for item in step.graph.initializer if item.name == "tenth")
    tenth.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tenth) * 2, tenth.name))
    onnx.save_model(step, file)

    def vouch(value: dict[str, Any]) -> None:
        entry = next(entry for entry in value["files"] if entry["path"] == file.name)
        found = file_entry(folder, file.name)
        entry.update(bytes=found.bytes, sha256=found.sha256)

    change(folder, vouch)
    with pytest.raises(VerifyError, match=r"^cut c0: output 'image' differs from the whole model"):
        check(folder, path)


def _skips_an_iteration(value: dict[str, Any]) -> None:
    cut = first_split(value, "cloud-first")
    loop = next(stage["loop"] for stage in cut["head"]["stages"] if "loop" in stage)
    loop["carry"] = {"latents": "negative"}


def _sends_too_little(value: dict[str, Any]) -> None:
    cut = first_split(value, "cloud-first")
    cut["uploads"] = cut["uploads"][1:]


def _hands_over_something_else(value: dict[str, Any]) -> None:
    first_split(value, "cloud-first")["boundary"][0]["name"] = "nothing"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_skips_an_iteration, "output 'image' differs from the whole model"),
        (_sends_too_little, "does not work: the stage '.*' reads '.*', which has no value"),
        (_hands_over_something_else, "nothing makes 'nothing', which it says crosses"),
    ],
    ids=["it begins with other values", "it sends too little", "it hands over something else"],
)
def test_a_wrong_manifest_is_found(folder: Path, damage: Damage, words: str) -> None:
    change(folder, damage)
    with pytest.raises(VerifyError, match=words):
        check(folder)


def test_a_damaged_bundle(folder: Path) -> None:
    (folder / "each-denoise-time.npy").unlink()
    with pytest.raises(BundleError, match="is missing"):
        check(folder)


def test_without_the_whole_on_one_side_it_must_be_given(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    limits = LimitOptions(pin_device=("text",), pin_cloud=("vae",))
    folder = compiled(path, tmp_path / "bundle", limits=limits).folder
    with pytest.raises(BundleError, match=r"no whole pipeline to compare with; give its \.toml with --model"):
        check(folder)
    assert check(folder, path).notes == ()


def test_unverified_cuts_are_judged_by_what_the_models_hold(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    folder = compiled(path, tmp_path / "bundle", verify=False).folder
    assert {found.tolerance for _, found in check(folder).cuts} == {1e-4}


def test_a_pipeline_that_differs_from_itself(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    nodes = [op("RandomNormalLike", "x", "r"), op("Add", "x r", "d"), op("Concat", "d d", "c", axis=1)]
    built = model([*nodes, op("Tanh", "c", "y")], [floats("x", 2, WIDTH)], [floats("y", 2, 2 * WIDTH)])
    onnx.save_model(built, tmp_path / "source" / "vae.onnx")
    with pytest.raises(VerifyError, match="another result each time"):
        check(compiled(path, tmp_path / "bundle").folder)
