"""A bundle is read only if it is whole, unchanged, and stays in its folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from splitc.bundle.folder import MANIFEST, file_entry, listed_files, read_bundle, write_manifest
from splitc.bundle.manifest import Manifest
from splitc.common.errors import BundleError
from splitc.common.records import decode, encode
from tests import manifests
from tests.conftest import Tiny


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a real bundle, to be damaged."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny.bundle.folder, copy)
    return copy


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((folder / MANIFEST).read_bytes())
    change(value)
    (folder / MANIFEST).write_text(json.dumps(value), encoding="utf-8")


def refusal(folder: Path) -> str:
    """Why the folder is refused: one line, with the place in it."""
    with pytest.raises(BundleError) as raised:
        read_bundle(folder)
    text = str(raised.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_reads_what_was_written(folder: Path) -> None:
    bundle = read_bundle(folder)
    assert bundle.folder == folder
    assert bundle.path("weights.bin").is_file()
    assert listed_files(folder) == {path.name for path in folder.iterdir()} - {MANIFEST}


def test_decode_is_the_inverse_of_encode(tmp_path: Path) -> None:
    manifest = manifests.manifest()
    assert decode(Manifest, encode(manifest), "test") == manifest
    write_manifest(tmp_path, manifest)
    first = (tmp_path / MANIFEST).read_bytes()
    write_manifest(tmp_path, decode(Manifest, json.loads(first), "test"))
    assert (tmp_path / MANIFEST).read_bytes() == first


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_refuses_another_version(folder: Path, version: object) -> None:
    edit(folder, lambda value: value.update(splitc_manifest=version))
    text = refusal(folder)
    assert "version" in text or "an integer" in text


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../weights.bin", "a/../../b", "sub/../../../etc/hostname", "with\0null"]
)
def test_refuses_paths_that_leave(folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    edit(folder, lambda value: value["files"].append({"path": path, "bytes": 0, "sha256": manifests.SHA}))
    assert "names a file outside the bundle" in refusal(folder)


def test_refuses_a_link_that_leaves(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "weights.bin", tmp_path / "elsewhere")
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere")
    assert "'weights.bin' is a link" in refusal(folder)


def test_refuses_a_link_that_stays(folder: Path) -> None:
    (folder / "weights.bin").rename(folder / "other.bin")
    (folder / "weights.bin").symlink_to("other.bin")
    assert "'weights.bin' is a link" in refusal(folder)


def test_refuses_a_folder_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    edit(
        folder,
        lambda value: value["files"].append(
            {"path": "sub/secret", "bytes": 0, "sha256": hashlib.sha256().hexdigest()}
        ),
    )
    assert "'sub' is a link" in refusal(folder)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_refuses_a_manifest_that_is_no_regular_file(folder: Path, make: Callable[[Path], object]) -> None:
    (folder / MANIFEST).unlink()
    make(folder / MANIFEST)
    refusal(folder)
    assert listed_files(folder) is None


def test_a_folder_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert read_bundle(tmp_path / "current").manifest == read_bundle(folder).manifest


def test_refuses_links_in_a_circle(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(folder / "weights.bin")
    refusal(folder)


def test_refuses_what_is_no_file(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")
    assert "'weights.bin' is not a regular file" in refusal(folder)


@pytest.mark.parametrize("name", ["weights.bin", "head-c0.onnx", "report.html"])
def test_refuses_missing_short_and_changed_files(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert f"'{name}' has {len(data) - 1} bytes instead of {len(data)}; copy or compile" in refusal(folder)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"'{name}' was changed" in refusal(folder)
    path.unlink()
    assert f"'{name}' is missing" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "\xff", "[1]", "null", "[" * 100_000],
    ids=["empty", "open", "latin", "list", "null", "deep"],
)
def test_refuses_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
    refusal(tmp_path)
    assert listed_files(tmp_path) is None


def test_refuses_a_folder_without_manifest(tmp_path: Path) -> None:
    assert f"there is no {MANIFEST} in it" in refusal(tmp_path)
    assert listed_files(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value.update(cuts=[]), "cuts: expected at least one item, found []"),
        (
            lambda value: value["cuts"][0].update(kind="all-tail"),
            "cuts[0]: expected a head, a tail, uploads and downloads that belong to its kind and direction",
        ),
        (lambda value: value["cuts"][0]["head"].update(file="other.onnx"), "not among the files"),
        (
            lambda value: value["cuts"][0]["head"].update(latency_s=-1.0),
            "cuts[0].head.latency_s: expected a number of at least 0, found -1.0",
        ),
        (
            lambda value: value["model"].update(sha256="abc"),
            "model.sha256: expected 64 hexadecimal digits, found 'abc'",
        ),
    ],
    ids=["no cuts", "kind", "file", "negative", "digest"],
)
def test_refuses_what_makes_no_sense(folder: Path, change: Callable[[Any], object], reason: str) -> None:
    edit(folder, change)
    assert reason in refusal(folder)


def test_file_entry(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    entry = file_entry(tmp_path, "a")
    assert (entry.path, entry.bytes) == ("a", 0)
    assert entry.sha256.startswith("e3b0c44298fc1c149afbf4c8996fb924")


@pytest.mark.parametrize("side", ["device", "cloud"])
def test_what_was_packed_for_a_side_lacks_the_other_side_only(side: Literal["device", "cloud"]) -> None:
    whole = manifests.manifest()
    own, foreign = ("head", "tail") if side == "device" else ("tail", "head")
    without = {
        part: tuple(entry for entry in whole.files if part not in entry.path) for part in (own, foreign)
    }
    assert replace(whole, side=side, files=without[foreign]).side == side
    with pytest.raises(ValueError, match="which is not among the files"):
        replace(whole, side=side, files=without[own])
