"""Every failure gives one sentence and an exit code, and leaves no files behind."""

import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.bundle.folder import read_bundle
from splitc.cli.main import group
from tests import models
from tests.conftest import Tiny
from tests.running import LAUNCH, Done, fast_cloud, hear_interrupts, save_tiny, slow_device, splitc, tree


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    """Run a command in this process; it must exit."""
    with pytest.raises(SystemExit) as ended:
        group.main([str(argument) for argument in arguments], prog_name="splitc")
    said = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Done(code, said.out, said.err)


def assert_sentence(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done.err
    assert done.out == ""
    assert done.sentence.startswith("error: ")
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    assert not done.sentence.rstrip().endswith(".")
    for word in words:
        assert word in done.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sla", "100parsecs"], ["invalid duration '100parsecs'; write it like 100ms"]),
        (["--sla", "-1s"], ["invalid duration '-1s'"]),
        (["--max-payload", "3furlongs"], ["invalid size '3furlongs'; write it like 2.5MB"]),
        (["--max-energy", "nan"], ["invalid energy 'nan'; write it like 0.2J"]),
        (["--dim", "batch"], ["is not NAME=SIZE"]),
        (["--dim", "batch=-1"], ["is not NAME=SIZE"]),
        (["--max-cuts", "1"], ["--max-cuts"]),
        (["--regret", "-1"], ["--regret"]),
        (["--devise", "pixel7"], ["--devise", "--device"]),
        (["extra.onnx"], ["extra"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("-") else "",
)
def test_wrong_usage(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "compile", "model.onnx", "--device", "pixel7", *arguments)
    assert_sentence(done, 2, *words, "; see `splitc compile --help`")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile"], ["missing argument 'MODEL'"]),
        (["compile", "model.onnx"], ["missing option '--device'"]),
        (["compil"], ["no such command 'compil', did you mean 'compile'?"]),
        (["sample", "tiny"], ["tiny_cnn"]),
        (["profile"], ["missing argument 'MODEL'"]),
        (["calibrate"], ["missing argument 'TARGET'"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_incomplete_usage(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert_sentence(call(capsys, *arguments), 2, *words)


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys)
    assert done.code == 2
    assert "Commands:" in done.err


def truncated(folder: Path) -> list[str]:
    path = save_tiny("tiny_cnn", folder)
    path.write_bytes(path.read_bytes()[:1000])
    return [path.name]


def not_onnx(folder: Path) -> list[str]:
    (folder / "notes.txt").write_text("dear diary", encoding="utf-8")
    return ["notes.txt"]


def external(folder: Path, location: str, *, keep: bool) -> list[str]:
    onnx.save_model(
        models.diamond(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    proto = onnx.load_model(folder / "m.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    if not keep:
        (folder / "w.bin").unlink()
    return ["m.onnx"]


def sample_of_another_name(folder: Path) -> list[str]:
    np.savez(folder / "s.npz", picture=np.ones(1))
    return [save_tiny("tiny_cnn", folder).name, "--samples", "s.npz"]


def with_file(folder: Path, option: str, text: str) -> list[str]:
    (folder / "given").write_text(text, encoding="utf-8")
    return [save_tiny("tiny_cnn", folder).name, option, "given"]


def with_options(*options: str) -> Callable[[Path], list[str]]:
    return lambda folder: [save_tiny("tiny_cnn", folder).name, *options]


BAD: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    "not ONNX": (not_onnx, ["notes.txt"]),
    "truncated": (truncated, ["tiny_cnn.onnx", "truncated"]),
    "missing": (lambda _: ["nothing.onnx"], ["nothing.onnx: no such file"]),
    "missing external data": (lambda folder: external(folder, "w.bin", keep=False), ["w.bin", "missing"]),
    "climbing external data": (
        lambda folder: external(folder, "../w.bin", keep=True),
        ["outside the model's folder", "'../w.bin'"],
    ),
    "unknown device": (
        with_options("--device", "pixle7"),
        ["unknown target 'pixle7', did you mean 'pixel7'?"],
    ),
    "unknown cloud": (with_options("--cloud", "nowhere"), ["unknown target 'nowhere'"]),
    "unknown network": (
        with_options("--network", "ltte"),
        ["unknown network 'ltte', did you mean 'lte'?"],
    ),
    "impossible budget": (
        with_options("--max-payload", "1B", "--pin-cloud", "logits"),
        ["raise --max-payload"],
    ),
    "conflicting pins": (
        with_options("--pin-cloud", "stem/conv", "--pin-device", "logits"),
        ["--pin-device keeps 'logits' on the device", "drop one of the two"],
    ),
    "unknown pin": (with_options("--pin-device", "stem/con"), ["--pin-device", "did you mean 'stem/conv'?"]),
    "unknown private": (with_options("--private", "imag"), ["--private", "did you mean 'image'?"]),
    "malformed profile": (lambda folder: with_file(folder, "--cloud-profile", "{}"), ["given", "is missing"]),
    "no profile": (lambda folder: with_file(folder, "--device-profile", "x"), ["given: not a JSON profile"]),
    "energy without figures": (with_options("--max-energy", "1J"), ["--max-energy"]),
    "sample of another name": (sample_of_another_name, ["s.npz", "input"]),
    "sample that is none": (lambda folder: with_file(folder, "--samples", "x"), ["given", ".npz"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = BAD[name]
    monkeypatch.chdir(tmp_path)
    slow, fast = slow_device(tmp_path), fast_cloud(tmp_path)
    model, *options = make(tmp_path)
    before = tree(tmp_path)
    given: list[str | Path] = [
        "compile",
        model,
        "--device",
        slow,
        "--cloud",
        fast,
        "--no-cache",
        "--no-simplify",
        "-o",
        "out/b",
    ]
    done = call(capsys, *given, *options)
    assert_sentence(done, 1, *words)
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_failed_compile_keeps_the_older_bundle(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny.bundle.folder, tmp_path / "b")
    before = tree(tmp_path)
    done = call(
        capsys, "compile", tiny.model, "--device", tiny.device, "--private", "imag", "-o", tmp_path / "b"
    )
    assert_sentence(done, 1)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", ["folder", "file/b", "/proc/b"])
def test_an_output_folder_that_cannot_be_used(
    place: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    done = call(capsys, "compile", tiny.model, "--device", tiny.device, "-o", tmp_path / place)
    assert_sentence(done, 1, place.removesuffix("/b"))
    assert tree(tmp_path) == before


def test_a_full_disk(tiny: Tiny, tmp_path: Path) -> None:
    """A limit on file sizes stops the write of weights.bin halfway, as a full disk does."""
    done = splitc(
        *(
            "compile",
            tiny.model,
            "--device",
            tiny.device,
            "--cloud",
            tiny.device,
            "--no-cache",
            "--no-simplify",
        ),
        *("-o", tmp_path / "out" / "b"),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert_sentence(done, 1, str(tmp_path / "out" / "b"), "write to another place")
    assert not list(tmp_path.iterdir())


def test_a_full_or_closed_stdout(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*LAUNCH, "targets"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard output: No space left on device; free some disk space, or write to another place\n",
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*LAUNCH, "targets"], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def start(tiny: Tiny, folder: Path) -> subprocess.Popen[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*LAUNCH, "compile", tiny.model, "--device", tiny.device, "--no-cache", "-o", "out/b"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda item: item.name
)
def test_killed_at_any_moment(number: signal.Signals, tiny: Tiny, tmp_path: Path) -> None:
    """The bundle is absent or complete, and the input unchanged, whenever the process is stopped."""
    digest = hashlib.sha256(tiny.model.read_bytes()).hexdigest()
    began = time.monotonic()
    with start(tiny, tmp_path) as process:
        assert process.wait() == 0
    run_s = time.monotonic() - began
    moments = random.Random(number)
    for attempt in range(4):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with start(tiny, tmp_path) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(run_s * (attempt + moments.random()) / 4)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # child processes that it could not stop
        out = tmp_path / "out"
        present = {path.name for path in out.iterdir()} if out.is_dir() else set()
        if "b" in present:
            read_bundle(out / "b")
        if number is not signal.SIGKILL:
            assert present <= {"b"}
            assert not list((tmp_path / "tmp").iterdir())
        if process.returncode == 128 + number:
            assert said.splitlines()[-1] == "interrupted"
            assert "Traceback" not in said
        assert hashlib.sha256(tiny.model.read_bytes()).hexdigest() == digest


def test_the_next_compile_removes_what_a_killed_one_left(tiny: Tiny, tmp_path: Path) -> None:
    with start(tiny, tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Timing the cloud"):
                break
        process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".splitc-")
    done = splitc(
        *(
            "compile",
            tiny.model,
            "--device",
            tiny.device,
            "--cloud",
            tiny.device,
            "--no-simplify",
            "-o",
            "out/b",
        ),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
