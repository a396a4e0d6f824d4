"""A build gives the same bytes wherever it runs: folder, cache, locale, order of hashes, version of Python.

SPLITC_OTHER_PYTHON names another interpreter, with what splitc needs installed; without it, this one runs twice.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitc.bundle.folder import MANIFEST, read_bundle
from tests.running import save_tiny

OTHER = os.environ.get("SPLITC_OTHER_PYTHON", sys.executable)
CHECKOUT = Path(__file__).parents[2]


def built(python: str, model: Path, folder: Path, **env: str) -> dict[str, bytes]:
    """Compile *model* in *folder* for described machines; the files of the bundle."""
    folder.mkdir(parents=True)
    command = [python, "-m", "splitc", "compile", os.path.relpath(model, folder), "-o", "bundle"]
    command += ["--device", "pixel7", "--cloud", "a100", "--direction", "both"]
    done = subprocess.run(
        [*command, "--cache-dir", "cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "bundle").iterdir()}


@pytest.mark.parametrize("name", ["tiny_cnn", "diamond", "qdq_residual"])
def test_the_same_bytes_everywhere(name: str, tmp_path: Path) -> None:
    model = save_tiny(name, tmp_path)
    here = built(sys.executable, model, tmp_path / "a", PYTHONHASHSEED="1", LC_ALL="C.UTF-8", TZ="UTC")
    elsewhere = tmp_path / "another" / "folder"
    there = built(OTHER, model, elsewhere, PYTHONHASHSEED="2", LC_ALL="C", TZ="Asia/Kathmandu")
    assert here.keys() == there.keys()
    assert [key for key in here if here[key] != there[key]] == []
    assert read_bundle(tmp_path / "a" / "bundle").manifest.cuts
    assert str(tmp_path).encode() not in here[MANIFEST]
