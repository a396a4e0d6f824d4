"""Whatever happens, a person reads one sentence: never a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from splitc.cli.main import group
from splitc.common.errors import BundleError
from splitc.common.files import write_files
from splitc.runtime.unpack import unpacked
from tests import models
from tests.running import LAUNCH, hear_interrupts


def shell(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run *line*, in which `$S` is splitc."""
    return subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env={**os.environ, "S": " ".join(LAUNCH), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    done = shell(f"$S sample tiny_cnn -o t.onnx {closed} && $S targets {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "t.onnx").stat().st_size > 10_000
    assert shell(f"$S targets nothing {closed}", tmp_path).returncode == 1


@pytest.mark.parametrize("arguments", ["targets", "targets --json", "--help"])
def test_a_full_stdout(arguments: str, tmp_path: Path) -> None:
    done = shell(f"$S {arguments} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: standard output: No space left on device; free some disk space, or write to another place\n"
    )
    assert shell("$S targets nothing 2> /dev/full", tmp_path).returncode == 1


def test_letters_that_the_terminal_lacks(tmp_path: Path) -> None:
    done = shell("$S targets && $S inspect 模.onnx", tmp_path, PYTHONIOENCODING="ascii:strict")
    assert done.stdout.isascii()
    assert done.stderr.splitlines()[-1] == "error: \\u6a21.onnx: no such file; check the path"


def test_a_locale_without_letters(tmp_path: Path) -> None:
    strict = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = shell("$S targets", tmp_path, **strict)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.parametrize("module", ["splitc.cli.streams", "click.core", "rich.console", "numpy"])
def test_interrupted_while_it_starts(module: str, tmp_path: Path) -> None:
    """Python tells which module it has just imported; then Ctrl-C arrives."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "splitc", "inspect", "nothing.onnx"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=hear_interrupts,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.split("|")[-1].strip() == module:
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
    own = [line for line in said.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, own[-1:]) == (130, ["interrupted"]), own
    assert "Traceback" not in said


def raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None:
        raise error

    monkeypatch.setattr("splitc.cli.commands.targets.run", run)


def fail(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        group.main(["targets"], prog_name="splitc")
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raises(TypeError("secret \ud800 detail"), monkeypatch)
    said = fail(capsys)
    (kept,) = tmp_path.iterdir()
    assert said.startswith("error: splitc met a fault of its own: TypeError at splitc.cli.options:")
    assert said.endswith(f"; details are in {kept}; please report it\n")
    assert "secret \\ud800 detail" in kept.read_text(encoding="utf-8")
    monkeypatch.setenv("SPLITC_DEBUG", "1")
    said = fail(capsys)
    assert "TypeError: secret \\ud800 detail\n" in said
    assert said.splitlines()[-1].endswith("; details are above; please report it")
    monkeypatch.delenv("SPLITC_DEBUG")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "; SPLITC_DEBUG=1 shows details; please report it" in fail(capsys)


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raises(MemoryError("cannot allocate 8 TiB"), monkeypatch)
    assert fail(capsys).startswith("error: there is not enough memory (cannot allocate 8 TiB); use smaller")


def test_a_full_disk_at_an_unknown_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raises(OSError(28, "No space left on device"), monkeypatch)
    assert "a temporary one in /" in fail(capsys)


def test_links_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "b.onnx").symlink_to("a.onnx")
    (tmp_path / "p.toml").symlink_to("p.toml")
    for arguments in (
        ["inspect", "a.onnx"],
        ["inspect", "p.toml"],
        ["verify", "a.onnx"],
        ["serve", "a.onnx"],
        ["targets", "check", "p.toml"],
        ["run", "a.onnx"],
        ["profile", "a.onnx", "--target", "local"],
        ["pack", "a.onnx", "--side", "cloud", "-o", "z.zip"],
    ):
        with pytest.raises(SystemExit) as ended:
            group.main(arguments, prog_name="splitc")
        said = capsys.readouterr().err
        assert ended.value.code == 1, said
        assert "fault of its own" not in said
        assert said.splitlines()[-1].startswith("error: "), said
        assert "a.onnx" in said or "p.toml" in said


def test_a_user_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    advice = "the home folder of this user is not known; set HOME, or "
    assert fail(capsys) == f"error: {advice}choose a folder with --cache-dir\n"
    with pytest.raises(SystemExit) as ended:
        group.main(["targets", "--cache-dir", "cache"], prog_name="splitc")
    assert ended.value.code == 0
    with pytest.raises(BundleError, match=f"^{advice}cache_folder"):
        unpacked(tmp_path / "bundle.zip")
    assert not list(tmp_path.iterdir())


def test_external_data_that_is_a_link_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save_model(
        models.diamond(), "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    Path("w.bin").unlink()
    Path("w.bin").symlink_to("w.bin")
    Path("p.toml").write_text(
        'name = "p"\noutputs = ["y"]\n[[stage]]\nname = "s"\nmodel = "w.bin"\n', encoding="utf-8"
    )
    for name in ("m.onnx", "p.toml"):
        with pytest.raises(SystemExit) as ended:
            group.main(["inspect", name], prog_name="splitc")
        assert ended.value.code == 1
        assert "link to itself" in capsys.readouterr().err


def test_a_pipe_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As root, a file renamed to /dev/null would take its place."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit) as ended:
        group.main(["sample", "tiny_cnn", "-o", str(tmp_path / "pipe")], prog_name="splitc")
    assert ended.value.code == 1
    assert "pipe: a device or a pipe, which is not replaced" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="not replaced"):
        write_files({tmp_path / "pipe": b""})
