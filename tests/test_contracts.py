"""What a device installs: reading a bundle and deciding needs the standard library only."""

import os
import shutil
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


CONTRACTS = "Imports go down this list, never up or sideways"


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("common/errors.py", "import splitc.protocol.fields", CONTRACTS),
        ("runtime/session.py", "import splitc.server.jobs", CONTRACTS),
        ("server/jobs.py", "import splitc.runtime.session", CONTRACTS),
        ("newroom/__init__.py", "import splitc.common.errors", CONTRACTS),
        ("compile/verify.py", "import splitc.runtime.pair", "A compile runs nothing of a device or a server"),
        (
            "bundle/decide.py",
            "import splitc.common.values",
            "Reading a bundle and deciding needs the standard library only",
        ),
        ("runtime/pair.py", "import click", "An app needs numpy and ONNX Runtime, and nothing else"),
        ("server/app.py", "import scipy", "Serving tails needs nothing of the compiler"),
        ("testbed/bed.py", "import numpy", "The test bed needs the standard library only"),
        ("solve/mincut.py", "import onnx", "The solver and the cost side hold no ONNX objects"),
        (
            "profile/measure/ssh.py",
            "import splitc.profile.measure.adb",
            "The ways of running a model know nothing of each other",
        ),
    ],
    ids=lambda value: value.removesuffix(".py") if value.endswith(".py") else "",
)
def test_a_contract_that_is_broken_is_named(file: str, line: str, contract: str, tmp_path: Path) -> None:
    """An import that a contract forbids, put into a copy of the package, is found there."""
    root = Path(__file__).parents[1]
    shutil.copytree(root / "splitc", tmp_path / "splitc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(root / "pyproject.toml", tmp_path / "pyproject.toml")
    broken = tmp_path / "splitc" / file
    broken.parent.mkdir(exist_ok=True)
    text = broken.read_text(encoding="utf-8") if broken.exists() else ""
    broken.write_text(f"{text}\n{line}\n", encoding="utf-8")
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert f"{contract} BROKEN" in said
