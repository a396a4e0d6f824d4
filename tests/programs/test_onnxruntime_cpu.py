"""The profiler runs as a process, as it does on a target."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests import models
from tests.running import hear_interrupts

PROGRAM = Path(__file__).parents[2] / "profilers" / "onnxruntime_cpu.py"
KEYS = {"splitc_profile", "model", "runtime", "runtime_version", "provider", "threads", "machine", "dims"}
KEYS |= {"warmup", "runs", "whole_s", "profiled_whole_s", "nodes"}


def start(folder: Path, model: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the program with a temporary folder of its own, where nothing may remain."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(model), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=hear_interrupts,
    )


def run(folder: Path, model: Path, *options: str) -> tuple[int, str, str]:
    before = set(folder.iterdir()) | {folder / "temporary"}
    process = start(folder, model, options)
    out, err = process.communicate(timeout=120)
    assert not list((folder / "temporary").iterdir())
    assert set(folder.iterdir()) == before
    return process.returncode, out, err


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(models.ALL[name](), path)
    return path


def profile(folder: Path, model: Path, *options: str) -> dict[str, Any]:
    status, out, err = run(folder, model, "--warmup", "1", *options)
    assert status == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def optimized(folder: Path, model: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


@pytest.mark.parametrize("name", sorted(set(models.ALL) - {"string_input"}))
def test_every_node_of_the_optimised_graph_has_a_time(name: str, tmp_path: Path) -> None:
    model = write(tmp_path, name)
    dims = ["--dim", "batch=1"] if name in ("recurrent", "named_dims") else []
    dims += {"recurrent": ["--dim", "time=3"], "named_dims": ["--dim", "height=8", "--dim", "width=9"]}.get(
        name, []
    )
    document = profile(tmp_path, model, "--runs", "2", *dims)
    # Two sessions may order branches differently; outputs are unique.
    expected = {tuple(node.output): node for node in optimized(tmp_path, model).graph.node}
    found = {tuple(node["outputs"]): node for node in document["nodes"]}
    assert len(found) == len(document["nodes"])
    assert {key: (node["op"], node["inputs"]) for key, node in found.items()} == {
        key: (node.op_type, list(node.input)) for key, node in expected.items()
    }
    assert all(node["name"] for node in document["nodes"])
    assert all(len(node["seconds"]) == 2 for node in document["nodes"])


def test_document_has_all_fields(tmp_path: Path) -> None:
    model = write(tmp_path, "dynamic_batch")
    document = profile(tmp_path, model, "--runs", "7", "--threads", "2", "--dim", "batch=3")
    assert set(document) == KEYS
    assert document["splitc_profile"] == 1
    assert document["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (document["runtime"], document["runtime_version"]) == ("onnxruntime", ort.__version__)
    assert (document["provider"], document["threads"]) == ("CPUExecutionProvider", 2)
    assert (document["warmup"], document["runs"], document["dims"]) == (1, 7, {"batch": 3})
    assert set(document["machine"]) == {"system", "machine", "processor", "cores", "python"}
    assert len(document["whole_s"]) == len(document["profiled_whole_s"]) == 7
    assert all(0 < sample < 60 for sample in document["whole_s"] + document["profiled_whole_s"])
    assert all(
        math.isfinite(sample) and sample >= 0 for node in document["nodes"] for sample in node["seconds"]
    )


@pytest.mark.parametrize("name", ["chain", "nested_if", "loop_captures"])
def test_node_times_stay_within_the_profiled_run(name: str, tmp_path: Path) -> None:
    """A body's nodes counted beside the If or Loop that runs them would exceed the run."""
    document = profile(tmp_path, write(tmp_path, name), "--runs", "20")
    total_s = [sum(samples) for samples in zip(*(node["seconds"] for node in document["nodes"]), strict=True)]
    assert all(0 < total < whole for total, whole in zip(total_s, document["profiled_whole_s"], strict=True))
    assert sum(median(node["seconds"]) for node in document["nodes"]) > 0


def test_unnamed_branches_are_not_confused(tmp_path: Path) -> None:
    """Nodes without a name are found by position: the long branch must get the long times."""
    wide, narrow = 2048, 2
    nodes = [
        models.op("MatMul", f"x {branch}_w", f"{branch}_m", name="")
        for branch in ("long", "short", "long2", "short2")
    ]
    joined = [models.op("Softmax", node.output[0], f"{node.output[0]}_s", name="") for node in nodes]
    total = models.op("Concat", [node.output[0] for node in joined], "y", axis=1, name="")
    widths = [wide, narrow, wide, narrow]
    weights = [models.weight(node.input[1], 256, width) for node, width in zip(nodes, widths, strict=True)]
    built = models.model(
        [*nodes, *joined, total],
        [models.floats("x", 64, 256)],
        [models.floats("y", 64, sum(widths))],
        weights,
    )
    onnx.save(built, tmp_path / "branches.onnx")
    document = profile(tmp_path, tmp_path / "branches.onnx", "--runs", "10")
    time_s = {node["outputs"][0]: median(node["seconds"]) for node in document["nodes"]}
    assert min(time_s["long_m"], time_s["long2_m"]) > 3 * max(time_s["short_m"], time_s["short2_m"])
    assert min(time_s["long_m_s"], time_s["long2_m_s"]) > 3 * max(time_s["short_m_s"], time_s["short2_m_s"])


def test_number_of_runs_adapts(tmp_path: Path) -> None:
    document = profile(tmp_path, write(tmp_path, "chain"), "--model-id", "any text")
    assert 5 <= document["runs"] <= 50
    assert document["model"] == "any text"


def test_free_batch_is_one(tmp_path: Path) -> None:
    assert profile(tmp_path, write(tmp_path, "dynamic_batch"), "--runs", "1")["dims"] == {"batch": 1}


def test_inputs_come_from_a_file(tmp_path: Path) -> None:
    words = tmp_path / "words.npz"
    np.savez(words, word=np.full((2, 16), "a"))
    document = profile(tmp_path, write(tmp_path, "string_input"), "--inputs", str(words), "--runs", "1")
    assert document["nodes"]


def test_inputs_settle_free_dimensions(tmp_path: Path) -> None:
    image = tmp_path / "image.npz"
    np.savez(image, x=np.zeros((2, 3, 5, 6), np.float32))
    document = profile(tmp_path, write(tmp_path, "named_dims"), "--inputs", str(image), "--runs", "1")
    assert document["dims"] == {"batch": 2, "height": 5, "width": 6}


def test_external_weights_are_found(tmp_path: Path) -> None:
    model = tmp_path / "external.onnx"
    onnx.save(models.chain(), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert profile(tmp_path, model, "--runs", "1")["nodes"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("named_dims", [], "input 'x' has the free dimension 'height': give --dim height=VALUE"),
        ("string_input", [], r"input 'word' is a tensor\(string\): give its value with --inputs"),
        ("chain", ["--dim", "batch=1"], "--dim names 'batch', which the model lacks; it has none"),
        ("chain", ["--dim", "batch"], "--dim wants NAME=VALUE"),
        ("chain", ["--inputs", "absent.npz"], "cannot read --inputs absent.npz"),
        ("chain", ["--inputs", "other.npz"], "--inputs names 'other', which the model lacks; it has x"),
        ("chain", ["--inputs", "wrong.npz"], "the model does not run on these inputs: "),
        ("chain", ["--inputs", "bare.npy"], "cannot read --inputs bare.npy"),
        ("absent", [], "cannot read absent.onnx: No such file"),
        ("damaged", [], "ONNX Runtime .* cannot load damaged.onnx"),
    ],
)
def test_failure_is_one_sentence(name: str, options: list[str], message: str, tmp_path: Path) -> None:
    if name in models.ALL:
        write(tmp_path, name)
    (tmp_path / "damaged.onnx").write_bytes(b"not a model")
    np.savez(tmp_path / "other.npz", other=np.zeros(1, np.float32))
    np.savez(tmp_path / "wrong.npz", x=np.zeros(1, np.float32))
    np.save(tmp_path / "bare.npy", np.zeros(1, np.float32))
    status, out, err = run(tmp_path, Path(f"{name}.onnx"), *options)
    assert (status, out) == (1, "")
    lines = [line for line in err.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert re.match(message, lines[0])


def test_wrong_usage_exits_with_two(tmp_path: Path) -> None:
    assert run(tmp_path, write(tmp_path, "chain"), "--threads", "0")[0] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, write(tmp_path, "chain"), ["--runs", "1000000"])
    temporary = tmp_path / "temporary"
    deadline = time.monotonic() + 60
    while not list(temporary.rglob("optimized.onnx")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", models.ALL)
def test_wire_reader_agrees_with_onnx(name: str) -> None:
    spec = spec_from_file_location("onnxruntime_cpu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = module_from_spec(spec)
    spec.loader.exec_module(program)
    built = models.ALL[name]()
    expected = [(n.name, n.op_type, list(n.input), list(n.output)) for n in built.graph.node]
    assert program.read_nodes(built.SerializeToString()) == expected
