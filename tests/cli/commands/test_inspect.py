"""`splitc inspect` and `splitc verify`."""

import json
from pathlib import Path

import pytest

from splitc.bundle.folder import MANIFEST
from splitc.cli.main import group
from tests.cli.printed import printed
from tests.conftest import Tiny
from tests.running import save_tiny, splitc

COMMANDS = (
    "compile",
    "inspect",
    "verify",
    "profile",
    "calibrate",
    "sample",
    "targets",
    "pack",
    "serve",
    "run",
    "demo",
    "simulate",
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command in this process, and return what it printed."""
    with pytest.raises(SystemExit) as ended:
        group.main([str(argument) for argument in arguments], prog_name="splitc")
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return said.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        group.main([str(argument) for argument in arguments], prog_name="splitc")
    assert ended.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, command, "--help")
    assert f"\n    splitc {command}" in text.partition("Examples:")[2]
    assert run(capsys, command, "-h") == text


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "--help")
    assert "\n    splitc compile " in text
    listed = [
        line.split()[0]
        for line in text.partition("Commands:")[2].partition("Examples:")[0].splitlines()
        if line.strip()
    ]
    assert tuple(listed) == COMMANDS
    name, number = run(capsys, "--version").split()
    assert name == "splitc"
    assert number[0].isdecimal()


def test_inspect_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny("tiny_cnn", tmp_path)
    options = ("inspect", model, "--no-simplify", "--cache-dir", tmp_path / "cache")
    short = run(capsys, *options)
    assert "tiny_cnn" in short
    full = run(capsys, *options, "--tensors")
    assert "cannot cross: stem/conv: fused" in full
    facts = printed("inspect-model", run(capsys, *options, "--json"))
    names = {tensor["name"] for tensor in facts["tensors"]}
    assert {"image", "stem/conv/relu", "logits"} <= names
    assert all(name in full for name in names - {"logits"})
    assert "stem/conv" in facts["fused"]
    assert facts["nodes"] == sum(len(unit["nodes"]) for unit in facts["units"])


def test_inspect_says_what_cannot_cross(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny("dynamic_batch", tmp_path)
    text = run(capsys, "inspect", model, "--no-simplify", "--dim", "batch=2")
    assert "note: " not in text
    assert "note: sized for one request (batch=1)" in run(capsys, "inspect", model, "--no-simplify")
    assert refused(capsys, "inspect", tmp_path / "none.onnx").endswith(
        "none.onnx: no such file; check the path"
    )


def test_inspect_a_bundle(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "inspect", tiny.bundle.folder)
    for cut in tiny.bundle.manifest.cuts:
        assert any(line.split()[:2] == [cut.id, cut.kind] for line in text.splitlines())
    facts = printed("inspect-bundle", run(capsys, "inspect", tiny.bundle.folder, "--json"))
    assert facts == json.loads(tiny.bundle.path(MANIFEST).read_bytes())


def test_inspect_a_folder_without_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}: not a bundle, there is no manifest.json in it" in refused(
        capsys, "inspect", tmp_path
    )


def test_verify(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "verify", tiny.bundle.folder, "--model", tiny.model)
    count = len(tiny.bundle.manifest.cuts)
    assert text.splitlines()[-1] == f"{count} cuts agree with {tiny.model}"
    assert [line.split(":")[0] for line in text.splitlines()[:-1]] == [
        f"c{number}" for number in range(count)
    ]
    facts = printed("verify", run(capsys, "verify", tiny.bundle.folder, "--json"))
    assert len(facts["cuts"]) == count
    other = save_tiny("diamond", tmp_path)
    assert "was compiled from another model" in refused(
        capsys, "verify", tiny.bundle.folder, "--model", other
    )
    assert "not a bundle" in refused(capsys, "verify", tmp_path)


def test_brackets_in_names_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny("diamond", tmp_path).rename(tmp_path / "net[bold].onnx")
    assert "net[bold]" in run(capsys, "inspect", model, "--no-simplify")


def test_python_m_splitc(tmp_path: Path) -> None:
    done = splitc("--version", cwd=tmp_path)
    assert done.code == 0
    assert done.out.startswith("splitc ")
