"""What a device installs: reading a bundle and deciding needs the standard library only."""

import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = {"onnx", "onnx_ir", "onnxruntime", "onnxsim", "scipy", "numpy", "ml_dtypes"}
COMPILER |= {"click", "rich", "jinja2", "psutil", "platformdirs"}


def imported(statement: str, folder: Path) -> set[str]:
    """The top-level packages that a fresh interpreter holds after *statement*."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["splitc", "splitc.bundle.manifest", "splitc.bundle.decide", "splitc.common.records"]
)
def test_the_run_time_needs_no_compiler(module: str, tmp_path: Path) -> None:
    found = imported(f"import {module}", tmp_path)
    assert "splitc" in found
    assert not found.intersection(COMPILER)


def test_the_command_line_starts_without_what_reads_models(tmp_path: Path) -> None:
    found = imported("import splitc.cli.main", tmp_path)
    assert "click" in found
    assert not found.intersection({"onnx", "onnx_ir", "onnxruntime", "onnxsim", "scipy", "numpy"})


@pytest.mark.parametrize(
    "module",
    [
        "splitc.model.analysis",
        "splitc.compile.compile",
        "splitc.profile.record",
        "splitc.cli.commands.inspect",
    ],
)
def test_onnx_runtime_never_reports_home(module: str, tmp_path: Path) -> None:
    """ONNX Runtime reads the switch when it is imported, whichever module imports it first."""
    code = (
        "import os, sys\nos.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        f"sys.meta_path.insert(0, Watch())\nimport {module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("missing", "command", "sentence"),
    [
        (
            "click",
            "--help",
            "error: the command line needs click; install it with `pip install 'splitc[compile]'`",
        ),
        (
            "scipy",
            "compile",
            "error: `splitc compile` needs scipy; install it with `pip install 'splitc[compile]'`",
        ),
        (
            "uvicorn",
            "serve",
            "error: `splitc serve` needs uvicorn; install it with `pip install 'splitc[serve]'`",
        ),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    missing: str, command: str, sentence: str, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"sys.argv = ['splitc', {command!r}, 'x', '--help']\n"
        "from splitc.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{sentence}\n")
