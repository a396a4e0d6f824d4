"""Work on files that crash, never end, or take all memory: each ends with one sentence, and leaves nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.running import LAUNCH, hear_interrupts, splitc

ENDLESS = "endless.onnx"


def save(folder: Path, name: str, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / name)
    return folder / name


def endless(folder: Path) -> Path:
    """A Loop without a limit, whose condition stays true for every input that is a number."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["max"], keepdims=0),
        helper.make_node("IsNaN", ["max"], ["nan"]),
        helper.make_node("Not", ["nan"], ["true"]),
        helper.make_node("Loop", ["", "true", "x"], ["looped"], body=body),
        helper.make_node("Sigmoid", ["looped"], ["y"]),
    ]
    return save(folder, ENDLESS, nodes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda item: item.name)
def test_a_signal_ends_a_model_that_never_ends(number: signal.Signals, tmp_path: Path) -> None:
    command = [*LAUNCH, "compile", str(endless(tmp_path)), "--device", "pixel7", "--cloud", "a100"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    with process:
        assert process.stderr is not None
        said = [process.stderr.readline(), process.stderr.readline()]
        assert said[1].startswith("Simplifying"), said
        time.sleep(0.5)  # into the loop
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == [ENDLESS]


def endless_bundle(folder: Path) -> Path:
    """A bundle that was built with the one input for which the model ends."""
    model = endless(folder)
    np.savez(folder / "nan.npz", x=np.full((1, 4), np.nan, np.float32))
    options = ("--device", "pixel7", "--cloud", "a100", "--samples", "nan.npz", "-o", "bundle")
    done = splitc("compile", model, *options, cwd=folder)
    assert done.code == 0, done.err
    return folder / "bundle"


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_signal_ends_a_bundle_that_never_ends(command: str, tmp_path: Path) -> None:
    options = ["--port", "0"] if command == "serve" else []
    process = subprocess.Popen(
        [*LAUNCH, command, str(endless_bundle(tmp_path)), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    with process:
        time.sleep(4.0)  # into the loop
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (128 + signal.SIGINT, "interrupted")


def test_a_model_that_never_ends_is_ended_after_the_stated_time(tmp_path: Path) -> None:
    model = endless(tmp_path)
    done = splitc(
        "compile", model, "--device", "pixel7", "--cloud", "a100", "--build-timeout", "4s", cwd=tmp_path
    )
    assert done.code == 1
    assert done.sentence == (
        f"error: {model}: the work on it was ended after 4 s; allow more with --build-timeout"
    )
    assert [path.name for path in tmp_path.iterdir()] == [ENDLESS]


def test_the_work_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*LAUNCH, "inspect", str(endless(tmp_path))], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        process.stderr.readline()
        process.kill()
        process.stderr.read()  # ends once no process can write to it any more


def test_a_crash_is_one_sentence() -> None:
    """The compiled code of the model ends the process, as ONNX's shape inference does on some files."""
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom splitc.cli.apart import WorkLimits, run_apart\n"
        "try:\n    run_apart(lambda: os.kill(os.getpid(), signal.SIGSEGV), WorkLimits(Path('m.onnx')))\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "m.onnx: a library crashed on it (Segmentation fault); the file is damaged, or uses something that ONNX or "
        "ONNX Runtime does not support: check that ONNX Runtime runs it, or export it again\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_is_limited(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["max"], keepdims=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["zeros", "max"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    model = save(tmp_path, "large.onnx", nodes, shape=np.array([3 << 29], np.int64))
    done = splitc("inspect", model, "--build-memory", "100MB", cwd=tmp_path)
    assert done.code == 1
    assert "memory" in done.sentence
    assert done.err.count("error: ") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_values_are_not_followed_at_any_price(tmp_path: Path) -> None:
    """ONNX's shape inference would make a list of all values of the Range."""
    nodes = [
        helper.make_node("Range", ["first", "end", "step"], ["big"]),
        helper.make_node("Cast", ["big"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    numbers = {"first": 0, "end": 1 << 40, "step": 1}
    model = save(
        tmp_path, "range.onnx", nodes, **{key: np.array(value, np.int64) for key, value in numbers.items()}
    )
    done = splitc("inspect", model, cwd=tmp_path)
    assert done.code == 1
    assert "has not enough memory to run the model" in done.sentence


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_files_are_read_as_models(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe.onnx"
        os.mkfifo(path)
    done = splitc("inspect", path, cwd=tmp_path)
    assert done.code == 1
    assert done.sentence == (
        f"error: {path}: is a pipe or a device, not a file; save the model to a file first"
    )
