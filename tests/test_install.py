"""What users get: a wheel, installed away from the checkout, with the folders that are not Python."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling; install the extra 'dev'"),
]


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


PROGRAM = """
from pathlib import Path

from splitc import Conditions, Session, SplitcError, decide, read_bundle


def run(folder: Path, url: str | None) -> str:
    conditions = Conditions(uplink_bps=6.3e6, downlink_bps=21.3e6, rtt_s=0.084)
    try:
        manifest = read_bundle(folder).manifest
        with Session(folder, server=url, start=conditions) as session:
            outcome = session.request({}, deadline_s=0.5)
        latency_s: float = outcome.latency_s + decide(manifest, conditions, sla_s=0.1).latency_s
    except SplitcError as error:
        return str(error)
    return f"{manifest.cuts[0].id} {latency_s}"
"""


@pytest.fixture(scope="module")
def foreign_python(installed: Path) -> Path:
    """The Python of an environment that holds the wheel, and what this one holds for the rest."""
    folder = installed.parent / "venv"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "all.pth").write_text(f"{installed}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin" / "python"


def type_checked(program: str, python: Path, folder: Path) -> str:
    """What `mypy --strict` says of *program*, for which *python* will run."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "--python-executable", str(python)]
    cache = ["--cache-dir", str(python.parent / "mypy")]
    return subprocess.run(
        [*mypy, *cache, "program.py"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.skipif(find_spec("mypy") is None, reason="needs mypy; install the extra 'dev'")
def test_programs_are_checked_against_its_types(foreign_python: Path, tmp_path: Path) -> None:
    assert type_checked(PROGRAM, foreign_python, tmp_path).startswith("Success")
    for right, wrong, complaint in [
        ("rtt_s=0.084", 'rtt_s="84ms"', '"Conditions" has incompatible type "str"; expected "float"'),
        ("Session(folder,", "Session(1,", '"Session" has incompatible type "int"'),
        ("outcome.latency_s", "outcome.decision", "Unsupported operand types"),
        ("import Conditions, ", "import Condition as Conditions, ", 'has no attribute "Condition"'),
    ]:
        assert right in PROGRAM
        assert complaint in type_checked(PROGRAM.replace(right, wrong), foreign_python, tmp_path)


def test_it_works_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert "pixel7" in run(installed, tmp_path, "targets")
    run(installed, tmp_path, "sample", "tiny_cnn")
    assert "wrote artifacts/tiny_cnn-pixel7" in run(
        installed, tmp_path, "compile", "tiny_cnn.onnx", "--device", "pixel7", "--no-cache"
    )
    assert "cuts agree" in run(installed, tmp_path, "verify", "artifacts/tiny_cnn-pixel7")
