"""What users get: a wheel, installed away from the checkout, with the folders that are not Python."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    find_spec("hatchling") is None, reason="needs hatchling; install the extra 'dev'"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("install")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True
    )
    return target


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """Run the installed command from *folder*."""
    done = subprocess.run(
        [sys.executable, str(installed / "bin" / "splitc"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_all_of_it_and_no_more(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tracked = [
        path for path in (ROOT / "splitc").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {str(path.relative_to(ROOT)) for path in tracked} <= set(names)
    for name in ("profilers", "targets"):
        files = {
            path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".toml")
        }
        assert {f"splitc/_shipped/{path}" for path in files} <= set(names)
    assert all(name.startswith(("splitc/", "splitc-")) for name in names)


def test_the_folders_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "from splitc.common.resources import shipped; print(shipped('targets')); print(shipped('profilers'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [Path(line).parent for line in done.stdout.splitlines()] == [installed / "splitc" / "_shipped"] * 2


def test_it_works_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert "pixel7" in run(installed, tmp_path, "targets")
    run(installed, tmp_path, "sample", "tiny_cnn")
    assert "wrote artifacts/tiny_cnn-pixel7" in run(
        installed, tmp_path, "compile", "tiny_cnn.onnx", "--device", "pixel7", "--no-cache"
    )
    assert "cuts agree" in run(installed, tmp_path, "verify", "artifacts/tiny_cnn-pixel7")
