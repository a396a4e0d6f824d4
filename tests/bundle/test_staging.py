"""A folder appears whole or not at all, and nothing that is not ours is touched."""

import fcntl
import os
from pathlib import Path

import pytest

from splitc.bundle.folder import MANIFEST
from splitc.bundle.staging import new_folder
from splitc.common.errors import BundleError
from tests.running import tree

OLD = '{"splitc_manifest": 1, "files": [{"path": "a.onnx"}]}'


def make(folder: Path, name: str = "a.onnx") -> None:
    with new_folder(folder) as (staging, scratch):
        (scratch / "notes").touch()
        (staging / MANIFEST).write_text(OLD.replace("a.onnx", name), encoding="utf-8")
        (staging / name).touch()


def test_makes_parents_and_leaves_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "one" / "two" / "bundle")
    assert set(tree(tmp_path)) == {f"one/two/bundle/{MANIFEST}", "one/two/bundle/a.onnx"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "one" / "bundle") as (staging, _):
            (staging / "a.onnx").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_older_bundle_survives_a_failure_and_is_replaced_by_a_success(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    make(folder)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="no"), new_folder(folder):
        raise ValueError("no")
    assert tree(tmp_path) == before
    make(folder, "b.onnx")
    assert set(tree(tmp_path)) == {f"bundle/{MANIFEST}", "bundle/b.onnx"}


def test_an_older_bundle_comes_back_if_the_last_step_fails(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    make(folder)
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError), new_folder(folder) as (staging, _):
        staging.rmdir()
    assert tree(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    make(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "a.onnx").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"thesis.tex": "years of work"},
        {MANIFEST: '{"name": "my browser extension", "files": []}'},
        {MANIFEST: "not even JSON"},
        {MANIFEST: OLD, "a.onnx": "", "thesis.tex": "years of work"},
    ],
    ids=["other", "other manifest", "damaged", "bundle and more"],
)
def test_what_is_not_ours_is_never_touched(tmp_path: Path, content: dict[str, str]) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text, encoding="utf-8")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=r"choose another folder with -o$"):
        make(folder)
    assert tree(tmp_path) == before


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    make(tmp_path / "current", "b.onnx")
    assert (tmp_path / "current").is_symlink()
    assert set(tree(tmp_path / "v1")) == {MANIFEST, "b.onnx"}


@pytest.mark.parametrize("name", [".", "../bundle", ".."])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    if name == "..":
        make(tmp_path / "outer", "bundle")
        (tmp_path / "outer" / "bundle").unlink()
        folder = tmp_path / "outer" / "bundle"
        folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(BundleError, match="cannot be replaced while it is the current folder or contains it"):
        make(Path(name))
    assert Path.cwd().samefile(folder)


@pytest.mark.parametrize("way", ["direct", "link to it", "link in it", "folder itself"])
def test_what_is_read_is_not_replaced(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "bundle"
    make(folder)
    given = {"folder itself": folder, "link to it": tmp_path / "link"}.get(way, folder / "a.onnx")
    if way == "link to it":
        given.symlink_to(folder / "a.onnx")
    if way == "link in it":
        given.unlink()
        (tmp_path / "model").touch()
        given.symlink_to(tmp_path / "model")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="is read, but is in the folder"), new_folder(folder, [given]):
        pass
    assert tree(tmp_path) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "file", tmp_path / "dangling"):
        with pytest.raises(BundleError, match="exists and is not a bundle"):
            make(place)
    with pytest.raises(BundleError, match="is not a folder; choose another place"):
        make(tmp_path / "file" / "bundle")
    assert tree(tmp_path) == {"file": b"mine"}


def test_leftovers_go_unless_their_owner_lives(tmp_path: Path) -> None:
    for name in (".splitc-dead", ".splitc-alive", ".other"):
        (tmp_path / name / "bundle").mkdir(parents=True)
    lock = os.open(tmp_path / ".splitc-alive", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        make(tmp_path / "bundle")
    finally:
        os.close(lock)
    assert {path.name for path in tmp_path.iterdir()} == {".splitc-alive", ".other", "bundle"}


def test_an_error_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="bundle") as raised, new_folder(tmp_path / "bundle") as (staging, _):
        (staging / "missing" / "file").touch()
    assert raised.value.filename == str(tmp_path / "bundle")
