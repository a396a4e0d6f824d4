"""What a device installs: reading a bundle and deciding needs the standard library only."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import click
import pytest

from splitc.cli.main import group

COMPILER = {"onnx", "onnx_ir", "onnxruntime", "onnxsim", "scipy", "numpy", "ml_dtypes"}
COMPILER |= {"click", "rich", "jinja2", "psutil", "platformdirs"}
OF_EXTRAS = COMPILER - {"click", "platformdirs"} | {"uvicorn", "uvloop", "httptools", "prometheus_client"}
"""What the command line imports only when a command runs; numpy and ONNX Runtime are always installed."""


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


def run_without(
    hidden: Collection[str], folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `splitc ARGUMENTS` where no *hidden* package is installed."""
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {set(hidden)!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"sys.argv = {['splitc', *arguments]!r}\n"
        "from splitc.__main__ import main\n"
        "main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


USES = {
    "compile": ["x.onnx", "--device", "pixel7"],
    "inspect": ["x.onnx"],
    "verify": ["x"],
    "profile": ["x.onnx"],
    "calibrate": ["pixel7"],
    "sample": ["tiny_cnn"],
    "targets": [],
    "pack": ["x", "--side", "device", "-o", "y"],
    "serve": ["x"],
    "run": ["x"],
    "demo": [],
    "simulate": ["x", "--fleet", "y.toml"],
}
"""A call of each command."""


def test_every_command_is_listed() -> None:
    assert list(USES) == group.list_commands(click.Context(group))


@pytest.mark.parametrize("command", [None, *USES])
def test_help_needs_no_extra(command: str | None, tmp_path: Path) -> None:
    """Also not numpy, which takes long to import."""
    arguments = [command, "--help"] if command is not None else ["--help"]
    done = run_without(OF_EXTRAS, tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: splitc {command or '[OPTIONS] COMMAND'} ")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["splitc", ""], list(USES)),
        (["splitc", "comp"], ["compile"]),
        (["splitc", "compile", "--de"], ["--device", "--device-profile"]),
        (["splitc", "compile", "m.onnx", "--device", "pixel"], ["pixel6", "pixel7", "pixel8", "pixel9"]),
        (["splitc", "compile", "m.onnx", "--network", "lt"], ["lte"]),
        (["splitc", "sample", "tiny"], ["tiny_cnn", "tiny_diffusion"]),
    ],
    ids=lambda value: " ".join(value) if value[0] == "splitc" else "",
)
def test_completion_needs_no_extra(words: list[str], offered: list[str], tmp_path: Path) -> None:
    done = run_without(
        OF_EXTRAS,
        tmp_path,
        _SPLITC_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(words),
        COMP_CWORD=str(len(words) - 1),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"plain,{word}" for word in offered]


def test_a_hint_at_a_typo_needs_no_extra(tmp_path: Path) -> None:
    done = run_without(OF_EXTRAS, tmp_path, "compil")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no such command 'compil', did you mean 'compile'?")


@pytest.mark.parametrize("command", USES)
def test_a_command_names_the_extra_that_it_needs(command: str, tmp_path: Path) -> None:
    done = run_without(OF_EXTRAS - {"numpy", "onnxruntime"}, tmp_path, command, *USES[command])
    extra = "serve" if command in ("serve", "run") else "compile"
    assert (done.returncode, done.stdout) == (1, "")
    told = re.fullmatch(
        rf"error: `splitc {command}` needs (\w+); install it with `pip install 'splitc\[{extra}\]'`\n",
        done.stderr,
    )
    assert told is not None, done.stderr
    assert told[1] in OF_EXTRAS


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
    done = run_without({missing}, tmp_path, command, *USES.get(command, []))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{sentence}\n")


CONTRACTS = "Imports go down this list, never up or sideways"


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("common/errors.py", "import splitc.protocol.fields", CONTRACTS),
        ("runtime/session.py", "import splitc.server.jobs", CONTRACTS),
        ("server/jobs.py", "import splitc.runtime.session", CONTRACTS),
        ("newroom/__init__.py", "import splitc.common.errors", CONTRACTS),
        (
            "compile/verification/verify.py",
            "import splitc.runtime.pair",
            "A compile runs nothing of a device or a server",
        ),
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
