"""The programs in examples/ run as their README says, as processes."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np

from splitc.common.values import Array
from splitc.runtime.session import Session
from tests.conftest import Tiny
from tests.running import tree

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LIMIT_S = 120.0


def environment(path: str = "") -> dict[str, str]:
    """That of the tests, whose home is a temporary folder; commands are looked for in *path* first."""
    paths = [*filter(None, [path]), os.environ["PATH"]]
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(paths)}


def run(*words: str | Path, cwd: Path, path: str = "") -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_build_pipeline_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    said = run("sh", EXAMPLES / "build" / "build.sh", "out", cwd=tmp_path, path=scripts)
    assert "both builds are identical" in said
    first, again = tree(tmp_path / "out" / "bundle"), tree(tmp_path / "out" / "again")
    assert "manifest.json" in first
    assert first == again
    manifest = json.loads(first["manifest.json"])
    assert manifest["targets"]["cloud"]["source"] == "measured"
    assert (tmp_path / "out" / "app.zip").is_file()
    assert (tmp_path / "out" / "cloud.zip").is_file()


def test_a_scheduler_of_ones_own_keeps_to_its_allowance(tiny: Tiny, tmp_path: Path) -> None:
    words = (EXAMPLES / "scheduler.py", tiny.bundle.folder, "--allowance", "30kB", "--device-slowdown", "3")
    wifi, *metered = run(sys.executable, *words, cwd=tmp_path).splitlines()
    assert wifi.startswith("wifi: ")
    assert "30000 bytes left; lowest latency" in wifi
    left = [int(found[1]) for line in metered if (found := re.search(r"(\d+) bytes left", line))]
    assert len(left) == len(metered) == 5
    assert left == sorted(left, reverse=True)
    assert 0 <= left[-1] < 30_000
    assert "all-head" in metered[-1], "there is nothing left that would pay for a transfer"
    assert "all-head" not in metered[0]


def test_a_scheduler_of_ones_own_needs_the_standard_library_only(tiny: Tiny, tmp_path: Path) -> None:
    script = (
        f"import runpy, sys; sys.argv = ['scheduler.py', {str(tiny.bundle.folder)!r}]; "
        f"runpy.run_path({str(EXAMPLES / 'scheduler.py')!r}, run_name='__main__'); "
        "print(sorted({'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert run(sys.executable, "-c", script, cwd=tmp_path).splitlines()[-1] == "[]"


def test_a_server_of_ones_own_serves_a_bundle_and_its_own_route(tiny: Tiny, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            str(EXAMPLES / "own_server.py"),
            str(tiny.bundle.folder),
            "--port",
            "0",
            "--cache-dir",
            "cache",
        ],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = next(found[1] for line in process.stdout if (found := re.match(r"serving at (\S+)", line)))
        assert answer(f"{url}/hello") == {"hello": "from your own route"}
        assert answer(f"{url}/v2/health/ready") == {"ready": True}
        split = next(cut for cut in tiny.bundle.manifest.cuts if cut.kind == "split")
        with Session(tiny.bundle.folder, server=url, cut=split.id) as session:
            shape = tuple(session.manifest.model.inputs[0].shape)
            outcome = session.request({"image": zeros(shape)})
        assert outcome.finished == "cloud"
        assert outcome.fallback is None
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert said == ""
    assert process.returncode in (0, -signal.SIGTERM)


def answer(url: str) -> object:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as reply:
        return json.load(reply)


def zeros(shape: tuple[int | str, ...]) -> Array:
    return np.zeros([1 if isinstance(dim, str) else dim for dim in shape], np.float32)
