"""A pack holds what one side needs, is read as a bundle, and is the same each time."""

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import part_files
from splitc.bundle.pack import Side, pack, pack_triton
from splitc.bundle.weights import covers, load, spans
from splitc.common import ort
from splitc.common.errors import BundleError
from splitc.common.values import difference
from splitc.compile.limits import LimitOptions
from tests import bundles, textproto
from tests.bundles import request, results, tails, wanted
from tests.running import tree

SIDES: list[Side] = ["device", "cloud"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.compiled("chain", tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Each side has layers of its own, and weights that the other does not need."""
    limits = LimitOptions(pin_device=("a",), pin_cloud=("y",))
    return bundles.compiled("diamond", tmp_path_factory.mktemp("diamond"), limits=limits)


def names(bundle: Bundle, side: Side) -> set[str]:
    parts = [cut.head if side == "device" else cut.tail for cut in bundle.manifest.cuts]
    return {file for part in parts if part is not None for file in part_files(part)}


@pytest.mark.parametrize("side", SIDES)
def test_a_pack_is_the_bundle_of_one_side(side: Side, bundle: Bundle, tmp_path: Path) -> None:
    pack(bundle.folder, side, tmp_path / "pack")
    packed = read_bundle(tmp_path / "pack")
    assert packed.manifest.side == side
    assert packed.manifest.cuts == bundle.manifest.cuts
    assert packed.digest == bundle.digest
    assert set(tree(tmp_path)) == {
        f"pack/{name}" for name in {"manifest.json", "weights.bin", *names(bundle, side)}
    }


@pytest.mark.parametrize("side", SIDES)
def test_what_uses_all_weights_is_copied_as_it_is(side: Side, bundle: Bundle, tmp_path: Path) -> None:
    pack(bundle.folder, side, tmp_path / "pack")
    for name in {"weights.bin", *names(bundle, side)}:
        assert (tmp_path / "pack" / name).read_bytes() == bundle.path(name).read_bytes()


@pytest.mark.parametrize("side", SIDES)
def test_weights_of_the_other_side_stay_behind(side: Side, inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, side, tmp_path / "pack")
    packed = read_bundle(tmp_path / "pack")
    assert packed.digest == inner.digest
    weights = tmp_path / "pack" / "weights.bin"
    assert weights.stat().st_size < inner.path("weights.bin").stat().st_size
    used = {span for name in names(inner, side) for span in spans(load(packed.path(name)))}
    assert all(span.offset % 4096 == 0 for span in used)
    assert max(span.offset + span.bytes for span in used) == weights.stat().st_size
    cut = tails(inner)[0]
    feeds = {"x": np.ones((2, 16), np.float32)} if side == "device" else request(inner, cut)
    for name in names(inner, side):
        onnx.checker.check_model(packed.path(name))
        got, want = results(packed.path(name), feeds), results(inner.path(name), feeds)
        assert all(np.array_equal(got[key], want[key]) for key in want)


@pytest.mark.parametrize("packer", [lambda folder, out: pack(folder, "cloud", out), pack_triton])
def test_a_link_beside_the_files_of_a_bundle_is_not_read(
    packer: Callable[[Path, Path], None], bundle: Bundle, tmp_path: Path
) -> None:
    copy, secret = tmp_path / "bundle", tmp_path / "secret"
    shutil.copytree(bundle.folder, copy)
    secret.write_bytes(b"secret" * 1000)
    (copy / "more.bin").symlink_to(secret)
    name = next(file for file in names(bundle, "cloud") if spans(load(copy / file)))
    proto = load(copy / name)
    tensor = next(item for item in proto.graph.initializer if item.external_data)
    next(item for item in tensor.external_data if item.key == "location").value = "more.bin"
    (copy / name).write_bytes(proto.SerializeToString())
    entries = (file_entry(copy, entry.path) for entry in bundle.manifest.files)
    write_manifest(copy, replace(bundle.manifest, files=tuple(entries)))
    with pytest.raises(BundleError, match=r"has weights in 'more\.bin', which the manifest does not list"):
        packer(copy, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "secret"}


@pytest.mark.parametrize("side", SIDES)
def test_a_zip_is_the_folder_not_compressed(side: Side, inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, side, tmp_path / "pack")
    pack(inner.folder, side, tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as zipped:
        members = zipped.infolist()
        assert zipped.testzip() is None
        found = {member.filename: zipped.read(member) for member in members}
    assert found == tree(tmp_path / "pack")
    assert [member.filename for member in members] == sorted(found)
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("name", ["pack", "pack.zip"])
def test_same_bundle_same_bytes(name: str, inner: Bundle, tmp_path: Path) -> None:
    for turn in ("one", "two"):
        old = os.umask(0o022 if turn == "one" else 0o077)
        try:
            pack(inner.folder, "device", tmp_path / turn / name)
        finally:
            os.umask(old)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("name", ["pack", "pack.zip"])
def test_an_older_pack_is_replaced_and_nothing_else_is_left(
    name: str, bundle: Bundle, inner: Bundle, tmp_path: Path
) -> None:
    pack(bundle.folder, "cloud", tmp_path / name)
    pack(inner.folder, "device", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    pack(inner.folder, "device", tmp_path / "new" / name)
    assert tree(tmp_path / "new") == {
        key: data for key, data in tree(tmp_path).items() if not key.startswith("new")
    }


def test_a_pack_of_a_pack_is_the_same(inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, "cloud", tmp_path / "one")
    pack(tmp_path / "one", "cloud", tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_other_side_cannot_be_packed_from_a_pack(inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, "device", tmp_path / "pack")
    with pytest.raises(BundleError, match="was packed for the device, and lacks what the cloud needs"):
        pack(tmp_path / "pack", "cloud", tmp_path / "other")
    with pytest.raises(BundleError, match="pack the whole bundle"):
        pack_triton(tmp_path / "pack", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_bundle_is_not_replaced_by_its_own_pack(inner: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(inner.folder, tmp_path / "bundle")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="is read, but is in the folder"):
        pack(copy, "cloud", copy)
    assert tree(tmp_path) == before


def test_a_zip_of_something_else_is_not_replaced(inner: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as photos:
        photos.writestr("one.jpg", b"years")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="is not a packed bundle"):
        pack(inner.folder, "cloud", tmp_path / "photos.zip")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_link_stays_and_its_target_is_replaced(name: str, inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, "device", tmp_path / f"old-{name}")
    (tmp_path / name).symlink_to(f"old-{name}")
    pack(inner.folder, "cloud", tmp_path / name)
    pack(inner.folder, "cloud", tmp_path / f"new-{name}")
    assert (tmp_path / name).is_symlink()
    found = tree(tmp_path)
    old = {path.removeprefix("old-"): data for path, data in found.items() if path.startswith("old-")}
    assert old == {path.removeprefix("new-"): data for path, data in found.items() if path.startswith("new-")}


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_is_no_pack_is_never_replaced(name: str, inner: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / name).write_text("years of work", encoding="utf-8")
    (tmp_path / "folder" / name).mkdir(parents=True)
    (tmp_path / "folder" / name / "thesis.tex").write_text("years of work", encoding="utf-8")
    before = tree(tmp_path)
    for place in ("file", "folder"):
        with pytest.raises(BundleError, match="choose another"):
            pack(inner.folder, "cloud", tmp_path / place / name)
        with pytest.raises(BundleError, match="choose another"):
            pack_triton(inner.folder, tmp_path / place / name)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_failure_leaves_nothing(name: str, inner: Bundle, tmp_path: Path) -> None:
    pack(inner.folder, "cloud", tmp_path / "bundle")
    (tmp_path / "bundle" / "weights.bin").unlink()
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=r"weights\.bin"):
        pack(tmp_path / "bundle", "cloud", tmp_path / name)
    assert tree(tmp_path) == before


def test_without_external_weights_there_is_no_file_of_them(tmp_path: Path) -> None:
    bundle = bundles.compiled("named_dims", tmp_path)
    pack(bundle.folder, "cloud", tmp_path / "pack")
    assert set(tree(tmp_path / "pack")) == {"manifest.json", *names(bundle, "cloud")}
    assert read_bundle(tmp_path / "pack").digest == bundle.digest


# --- Triton ---


def test_a_repository_holds_a_model_for_each_tail(bundle: Bundle, tmp_path: Path) -> None:
    pack_triton(bundle.folder, tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    expected = {f"chain.{cut.id}" for cut in tails(bundle)}
    assert {path.name for path in (tmp_path / "models").iterdir()} == expected
    for cut in tails(bundle):
        folder = tmp_path / "models" / f"chain.{cut.id}"
        weights = {"1/weights.bin"} if spans(load(folder / "1" / "model.onnx")) else set()
        assert set(tree(folder)) == {"config.pbtxt", "1/model.onnx"} | weights
        got = results(folder / "1" / "model.onnx", request(bundle, cut))
        want = wanted(bundle, cut)
        assert all(difference(got[key], want[key]).max_rel <= 1e-4 for key in want)


def test_its_configuration_is_what_the_model_declares(bundle: Bundle, tmp_path: Path) -> None:
    pack_triton(bundle.folder, tmp_path / "models")
    for cut in tails(bundle):
        config = textproto.read(tmp_path / "models" / f"chain.{cut.id}" / "config.pbtxt")
        assert (config.name, config.backend, config.max_batch_size) == (f"chain.{cut.id}", "onnxruntime", 0)
        described = [(entry.name, list(entry.shape)) for entry in cut.boundary]
        assert [(item.name, list(item.dims)) for item in config.input] == described
        assert [item.name for item in config.output] == ["y"]


def test_onnx_and_onnx_runtime_load_every_model(bundle: Bundle, tmp_path: Path) -> None:
    """onnx refuses weights in a file with several hard links."""
    pack_triton(bundle.folder, tmp_path / "models")
    found = sorted((tmp_path / "models").glob("*/1/model.onnx"))
    assert len(found) == len(tails(bundle))
    for path in found:
        onnx.checker.check_model(path, full_check=True)
        onnx.load_model(path)
        ort.session(path)
    weights = [path.stat() for path in (tmp_path / "models").glob("*/1/weights.bin")]
    assert len(weights) > 1
    assert all(stat.st_nlink == 1 for stat in weights)


def test_each_model_has_its_own_weights_only(bundle: Bundle, inner: Bundle, tmp_path: Path) -> None:
    pack_triton(bundle.folder, tmp_path / "chain")
    for path in (tmp_path / "chain").glob("*/1/weights.bin"):
        assert covers(spans(load(path.with_name("model.onnx"))), path.stat().st_size)
    pack_triton(inner.folder, tmp_path / "models")
    for weights in (tmp_path / "models").glob("*/1/weights.bin"):
        assert weights.stat().st_size < inner.path("weights.bin").stat().st_size


def test_requests_are_batched_where_that_is_safe(tmp_path: Path) -> None:
    bundle = bundles.compiled("dynamic_batch", tmp_path)
    pack_triton(bundle.folder, tmp_path / "models")
    for cut in tails(bundle):
        config = textproto.read(tmp_path / "models" / f"dynamic_batch.{cut.id}" / "config.pbtxt")
        assert config.max_batch_size > 1
        assert config.HasField("dynamic_batching")
        assert list(config.output[0].dims) == [10]
        assert list(config.input[0].dims) == list(cut.boundary[0].shape[1:])


def test_a_symbolic_axis_that_is_no_batch_stays_an_axis(tmp_path: Path) -> None:
    bundle = bundles.compiled("recurrent", tmp_path)
    pack_triton(bundle.folder, tmp_path / "models")
    config = textproto.read(tmp_path / "models" / f"recurrent.{tails(bundle)[-1].id}" / "config.pbtxt")
    assert config.max_batch_size == 0
    assert [list(item.dims) for item in config.input][:2] == [[-1, -1, 16], [1, -1, 8]]


def test_an_older_repository_is_replaced(bundle: Bundle, inner: Bundle, tmp_path: Path) -> None:
    pack_triton(bundle.folder, tmp_path / "models")
    pack_triton(inner.folder, tmp_path / "models")
    assert {path.name.partition(".")[0] for path in (tmp_path / "models").iterdir()} == {"diamond"}
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_models_of_others_are_never_lost(inner: Bundle, tmp_path: Path) -> None:
    pack_triton(inner.folder, tmp_path / "models")
    other = tmp_path / "models" / "other"
    other.mkdir()
    (other / "config.pbtxt").write_text('name: "other"\n', encoding="utf-8")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="holds files that splitc pack did not write"):
        pack_triton(inner.folder, tmp_path / "models")
    assert tree(tmp_path) == before
