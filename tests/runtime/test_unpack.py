"""A .zip is unpacked once, whole or not at all, and never outside its folder."""

import multiprocessing
import os
import signal
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from splitc.bundle.folder import MANIFEST
from splitc.common.errors import BundleError
from splitc.runtime import unpack
from splitc.runtime.unpack import unpacked
from tests.conftest import Tiny
from tests.running import tree


def packed(tiny: Tiny, path: Path, more: Iterable[tuple[str | zipfile.ZipInfo, bytes]] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(tiny.bundle.folder.iterdir()):
            archive.write(file, file.name)
        for name, data in more:
            archive.writestr(name, data)
    return path


def refusal(archive: Path, cache: Path) -> str:
    """Why it is refused; nothing of it may be left."""
    with pytest.raises(BundleError) as raised:
        unpacked(archive, cache)
    assert not cache.is_dir() or not list(cache.iterdir())
    assert str(archive) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_is_unpacked_once(tiny: Tiny, tmp_path: Path) -> None:
    archive, cache = packed(tiny, tmp_path / "app.zip"), tmp_path / "cache" / "below"
    bundle = unpacked(archive, cache)
    assert bundle.manifest == tiny.bundle.manifest
    assert tree(bundle.folder) == tree(tiny.bundle.folder)
    made = (bundle.folder / MANIFEST).stat().st_mtime_ns
    assert unpacked(archive, cache) == bundle
    assert (bundle.folder / MANIFEST).stat().st_mtime_ns == made
    assert list(cache.iterdir()) == [bundle.folder]


def test_the_users_cache_folder_is_the_default(tiny: Tiny, tmp_path: Path) -> None:
    bundle = unpacked(packed(tiny, tmp_path / "app.zip"))
    assert bundle.folder.is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_a_copy_that_was_changed_is_unpacked_again(tiny: Tiny, tmp_path: Path) -> None:
    archive, cache = packed(tiny, tmp_path / "app.zip"), tmp_path / "cache"
    bundle = unpacked(archive, cache)
    (bundle.folder / "weights.bin").write_bytes(b"changed")
    assert tree(unpacked(archive, cache).folder) == tree(tiny.bundle.folder)


def test_whoever_is_second_takes_what_the_first_made(tiny: Tiny, tmp_path: Path) -> None:
    bundle = unpacked(packed(tiny, tmp_path / "app.zip"), tmp_path / "cache")
    (tmp_path / "late").mkdir()
    unpack._move(tmp_path / "late", bundle.folder, tmp_path / "old")
    assert tree(bundle.folder) == tree(tiny.bundle.folder)


def test_what_a_killed_process_left_is_removed(tiny: Tiny, tmp_path: Path) -> None:
    archive, cache = packed(tiny, tmp_path / "app.zip"), tmp_path / "cache"
    child = os.fork()
    if child == 0:
        unpack._move = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        unpacked(archive, cache)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert any(cache.iterdir())
    bundle = unpacked(archive, cache)
    assert list(cache.iterdir()) == [bundle.folder]


def test_several_processes_repair_one_copy(tiny: Tiny, tmp_path: Path) -> None:
    archive, cache = packed(tiny, tmp_path / "app.zip"), tmp_path / "cache"
    bundle = unpacked(archive, cache)
    for _ in range(5):
        (bundle.folder / "weights.bin").write_bytes(b"changed")
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            waiting = [pool.apply_async(unpacked, (archive, cache)) for _ in range(8)]
            found = [item.get(timeout=120) for item in waiting]
        assert all(item == bundle for item in found)
        assert list(cache.iterdir()) == [bundle.folder]
    assert tree(bundle.folder) == tree(tiny.bundle.folder)


def test_a_process_that_takes_too_long_is_not_waited_for(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "_PATIENCE_S", 0)
    archive, cache = packed(tiny, tmp_path / "app.zip"), tmp_path / "cache"
    cache.mkdir()
    with unpack._alone_in(cache), pytest.raises(BundleError, match="another process has been unpacking"):
        unpacked(archive, cache)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_of_any_kind_is_one_sentence(tiny: Tiny, tmp_path: Path, method: int) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", method) as archive:
        for file in sorted(tiny.bundle.folder.iterdir()):
            archive.write(file, file.name)
    data, damaged = whole.read_bytes(), tmp_path / "damaged.zip"
    unpacked(whole, tmp_path / "cache")
    random = np.random.default_rng(method)
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 20)):
            changed[place] = random.integers(256)
        damaged.write_bytes(changed)
        try:
            unpacked(damaged, tmp_path / "other")
        except BundleError as error:
            refused += str(error).count("\n") == 0
    assert refused > 30


@pytest.mark.parametrize(
    "name",
    ["../outside", "/outside", "a/../../outside", "C:/outside", "C:outside", "..\\outside", "//host/outside"],
)
def test_names_that_leave_the_folder_are_refused(tiny: Tiny, tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo()
    entry.filename = entry.orig_filename = name
    archive = packed(tiny, tmp_path / "app.zip", [(entry, b"x")])
    assert "does not belong in a bundle" in refusal(archive, tmp_path / "cache")
    assert not list(tmp_path.rglob("outside"))


def test_links_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = packed(tiny, tmp_path / "app.zip", [(entry, b"/etc")])
    assert "'link' does not belong in a bundle" in refusal(archive, tmp_path / "cache")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_given_twice_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    archive = packed(tiny, tmp_path / "app.zip", [(MANIFEST, b"{}")])
    assert f"'{MANIFEST}' does not belong in a bundle" in refusal(archive, tmp_path / "cache")


def test_what_grows_without_measure_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    archive = packed(tiny, tmp_path / "app.zip", [("bomb", bytes(1 << 26))])
    assert "would unpack to over" in refusal(archive, tmp_path / "cache")


def test_a_size_that_lies_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    archive = packed(tiny, tmp_path / "app.zip", [("bomb", bytes(1 << 26))])
    data = archive.read_bytes().replace((1 << 26).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    archive.write_bytes(data)
    assert "cannot be read as a .zip file" in refusal(archive, tmp_path / "cache")


def test_what_is_damaged_or_no_bundle_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    archive = packed(tiny, tmp_path / "app.zip")
    data = bytearray(archive.read_bytes())
    cut, flipped, other = tmp_path / "cut.zip", tmp_path / "flipped.zip", tmp_path / "other.zip"
    cut.write_bytes(data[: len(data) // 2])
    data[len(data) // 3] ^= 0xFF
    flipped.write_bytes(data)
    with zipfile.ZipFile(other, "w") as opened:
        opened.writestr("readme.txt", "hello")
    assert "cannot be read as a .zip file" in refusal(cut, tmp_path / "cache")
    refusal(flipped, tmp_path / "cache")
    assert "not a bundle" in refusal(other, tmp_path / "cache")


def test_a_folder_that_cannot_be_written_is_named(tiny: Tiny, tmp_path: Path) -> None:
    archive = packed(tiny, tmp_path / "app.zip")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BundleError, match="cache_folder"):
        unpacked(archive, tmp_path / "file" / "cache")
