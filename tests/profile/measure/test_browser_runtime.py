"""Fetching ONNX Runtime for browsers: once, whole or not at all; npm stands in as a script here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from splitc.common.errors import ProfileError
from splitc.common.resources import shipped
from splitc.profile.measure.browser_runtime import BINARY, SCRIPT, locked_version, runtime_files
from tests.profile.measure.browsing import fake_npm
from tests.running import tree

PAGE = shipped("profilers") / "browser"
GOOD = f"""
echo "$@" > "{{0}}"
/bin/cat package-lock.json > /dev/null || exit 1
/bin/mkdir -p node_modules/onnxruntime-web/dist
/bin/sleep 0.2
echo script > node_modules/onnxruntime-web/dist/{SCRIPT}
echo binary > node_modules/onnxruntime-web/dist/{BINARY}
"""
PROGRAM = """
import sys
from pathlib import Path
from splitc.profile.measure.browser_runtime import BINARY, runtime_files
folder = runtime_files(Path(sys.argv[1]), Path(sys.argv[2]), lambda _: None, 60)
assert (folder / BINARY).read_text() == "binary\\n"
"""


def fetch(cache: Path, said: list[str] | None = None) -> Path:
    return runtime_files(PAGE, cache, (said if said is not None else []).append, 60)


def test_it_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", GOOD.format(log))))
    said: list[str] = []
    folder = fetch(tmp_path / "cache", said)
    assert tree(folder) == {SCRIPT: b"script\n", BINARY: b"binary\n"}
    assert said == [f"installing onnxruntime-web {locked_version(PAGE)} with npm (only the first time)"]
    assert log.read_text(encoding="utf-8").startswith("ci --ignore-scripts ")
    log.unlink()
    assert fetch(tmp_path / "cache", said) == folder
    assert (log.exists(), len(said)) == (False, 1)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_half_of_it_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", GOOD.format(tmp_path / "log"))))
    folder = fetch(tmp_path / "cache")
    (folder / BINARY).unlink()
    fetch(tmp_path / "cache")
    assert tree(folder) == {SCRIPT: b"script\n", BINARY: b"binary\n"}


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProfileError, match=r"there is no npm; install Node\.js"):
        fetch(tmp_path / "cache")


def test_npm_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
/bin/mkdir -p node_modules/onnxruntime-web/dist
echo half > node_modules/onnxruntime-web/dist/x
echo "npm error code ENOTFOUND" >&2
echo "npm error network request to the registry failed." >&2
exit 1"""
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", script)))
    with pytest.raises(ProfileError) as caught:
        fetch(tmp_path / "cache")
    assert str(caught.value) == (
        "npm cannot install onnxruntime-web: network request to the registry failed; check the network and npm's settings"
    )
    assert tree(tmp_path / "cache") == {}


def test_npm_that_brings_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", "exit 0")))
    with pytest.raises(ProfileError, match="cannot write onnxruntime-web to"):
        fetch(tmp_path / "cache")
    assert tree(tmp_path / "cache") == {}


def test_npm_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", "exec /bin/sleep 60")))
    with pytest.raises(ProfileError, match=r"npm did not install onnxruntime-web within 0\.2 s"):
        runtime_files(PAGE, tmp_path / "cache", lambda _: None, 0.2)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", GOOD.format(tmp_path / "log"))))
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"cannot write onnxruntime-web to .*--cache-dir"):
        fetch(tmp_path / "cache")


def test_two_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_npm(tmp_path / "bin", GOOD.format(tmp_path / "log"))))
    command = [sys.executable, "-c", PROGRAM, str(PAGE), str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=60)[1] for process in started] == [b""] * 3
    assert [process.returncode for process in started] == [0] * 3
    (folder,) = (tmp_path / "cache" / "onnxruntime-web").iterdir()
    assert tree(folder) == {SCRIPT: b"script\n", BINARY: b"binary\n"}


def test_the_lock_file_pins_and_names_no_host() -> None:
    lock = json.loads((PAGE / "package-lock.json").read_bytes())
    wanted = json.loads((PAGE / "package.json").read_bytes())["dependencies"]
    assert wanted == {"onnxruntime-web": locked_version(PAGE)}
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())
