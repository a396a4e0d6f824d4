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
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from splitc.profile.document import decode_profile
from tests import models
from tests.running import hear_interrupts

PROGRAM = Path(__file__).parents[2] / "profilers" / "onnxruntime_cpu.py"
KEYS = {"threads", "dims", "warmup", "whole_s", "profiled_whole_s", "fixed_s", "nodes"}


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
    decode_profile(document, "what the program printed")
    return document


def measured(folder: Path, model: Path, *options: str) -> dict[str, Any]:
    """Return the only measurement."""
    (measurement,) = profile(folder, model, *options)["measurements"]
    assert set(measurement) == KEYS
    return dict(measurement)


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
    document = measured(tmp_path, model, "--runs", "2", *dims)
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
    assert document["splitc_profile"] == 1
    assert document["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (document["source"], document["units"]) == ("measured", None)
    assert (document["runtime"], document["runtime_version"]) == ("onnxruntime", ort.__version__)
    assert document["provider"] == "CPUExecutionProvider"
    assert set(document["machine"]) == {"system", "machine", "processor", "cores", "python"}
    (measurement,) = document["measurements"]
    assert (measurement["threads"], measurement["warmup"], measurement["dims"]) == (2, 1, {"batch": 3})
    runs = [measurement[key] for key in ("whole_s", "profiled_whole_s", "fixed_s")]
    assert [len(samples) for samples in runs] == [7, 7, 7]
    assert all(0 < sample < 60 for samples in runs for sample in samples)
    for node in measurement["nodes"]:
        assert len(node["seconds"]) == 7
        assert all(math.isfinite(sample) and sample >= 0 for sample in node["seconds"])


def test_one_document_for_every_thread_count_and_size(tmp_path: Path) -> None:
    sizes = ["--dim", "height=8,16", "--dim", "width=9", "--dim", "batch=1,2"]
    document = profile(tmp_path, write(tmp_path, "named_dims"), "--runs", "1", "--threads", "2,1", *sizes)
    assert [(item["threads"], item["dims"]) for item in document["measurements"]] == [
        (threads, {"batch": batch, "height": height, "width": 9})
        for threads in (2, 1)
        for height in (8, 16)
        for batch in (1, 2)
    ]


def test_each_file_of_inputs_is_measured(tmp_path: Path) -> None:
    options = ["--runs", "1"]
    for batch in (2, 4):
        np.savez(tmp_path / f"{batch}.npz", x=np.ones((batch, 3, 32, 32), np.float32))
        options += ["--inputs", f"{batch}.npz"]
    document = profile(tmp_path, write(tmp_path, "dynamic_batch"), *options)
    assert [item["dims"] for item in document["measurements"]] == [{"batch": 2}, {"batch": 4}]


@pytest.mark.parametrize("name", ["chain", "nested_if", "loop_captures"])
def test_node_times_stay_within_the_profiled_run(name: str, tmp_path: Path) -> None:
    """A body's nodes counted beside the If or Loop that runs them would exceed the run."""
    document = measured(tmp_path, write(tmp_path, name), "--runs", "20")
    total_s = [sum(samples) for samples in zip(*(node["seconds"] for node in document["nodes"]), strict=True)]
    assert all(0 < total < whole for total, whole in zip(total_s, document["profiled_whole_s"], strict=True))
    assert sum(median(node["seconds"]) for node in document["nodes"]) > 0


@pytest.mark.parametrize(
    ("name", "op", "least"), [("chain", None, 1), ("if_captures", "If", 3), ("loop_captures", "Loop", 5)]
)
def test_events_inside_bodies_are_counted(name: str, op: str | None, least: int, tmp_path: Path) -> None:
    """Writing an event down takes time, also inside a body, and that time is in the node's."""
    nodes = measured(tmp_path, write(tmp_path, name), "--runs", "2")["nodes"]
    inside = [node["events"] for node in nodes if node["op"] == op]
    assert all(node["events"] == 1 for node in nodes if node["op"] != op)
    assert all(events >= least for events in inside)
    assert bool(inside) == (op is not None)


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
    document = measured(tmp_path, tmp_path / "branches.onnx", "--runs", "10")
    time_s = {node["outputs"][0]: median(node["seconds"]) for node in document["nodes"]}
    assert min(time_s["long_m"], time_s["long2_m"]) > 3 * max(time_s["short_m"], time_s["short2_m"])
    assert min(time_s["long_m_s"], time_s["long2_m_s"]) > 3 * max(time_s["short_m_s"], time_s["short2_m_s"])


def test_number_of_runs_adapts(tmp_path: Path) -> None:
    document = profile(tmp_path, write(tmp_path, "chain"), "--model-id", "any text")
    assert 5 <= len(document["measurements"][0]["whole_s"]) <= 1000
    assert document["model"] == "any text"


@pytest.mark.parametrize("name", ["chain", "nested_if", "loop_captures"])
def test_times_of_several_sessions_are_joined(name: str, tmp_path: Path) -> None:
    """A session keeps all its events in memory, so another one takes its place."""
    program: Any = imported()
    sessions = 0

    class Counted(program.Tracer):  # type: ignore[misc]
        def read(self) -> None:
            nonlocal sessions
            sessions += 1
            super().read()

    model, runs = write(tmp_path, name), 30
    options = Namespace(
        model=model,
        threads=[1],
        runs=runs,
        warmup=2,
        dim=[],
        inputs=None,
        seed=0,
        model_id=None,
        custom_ops=[],
    )
    nodes = program.profile(options)["measurements"][0]["nodes"]
    program.MAX_EVENTS, program.Tracer = 60, Counted
    (measurement,) = program.profile(options)["measurements"]
    assert sessions > 3
    assert [len(node["seconds"]) for node in measurement["nodes"]] == [runs] * len(nodes)
    assert len(measurement["profiled_whole_s"]) == runs
    fixed = ("name", "op", "inputs", "outputs", "events")
    assert [[node[key] for key in fixed] for node in measurement["nodes"]] == [
        [node[key] for key in fixed] for node in nodes
    ]


def test_events_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text(
        '[\n{"name": "a", "args": {"x": [1]}},\n\n{"name": "b [", "args": {}}\n]\n', encoding="utf-8"
    )
    events = imported().read_events(path)
    assert next(events) == {"name": "a", "args": {"x": [1]}}
    assert next(events) == {"name": "b [", "args": {}}
    assert list(events) == []


def test_noisy_runs_are_repeated_more_often() -> None:
    program = imported()
    steady, noisy = [1.0, 1.001] * 10, [1.0, 2.0] * 10
    assert program.enough(steady, None, 100, 2.0)
    assert not program.enough(steady, None, 100, 0.5)  # nor too soon
    assert not program.enough(noisy, None, 100, 2.0)
    assert program.enough(noisy, None, 100, 20.0)  # patience has an end
    assert program.enough(noisy, None, 20, 2.0)
    assert not program.enough(noisy[:4], None, 1, 99.0)  # nor fewer than five
    assert program.enough(noisy[:1], 1, 1, 0.0)  # unless told
    assert not program.enough(steady, 21, 1, 99.0)


def test_the_model_that_does_nothing_is_a_model() -> None:
    built = onnx.load_model_from_string(imported().does_nothing())
    onnx.checker.check_model(built, full_check=True)
    assert [node.op_type for node in built.graph.node] == ["Identity"]


def test_free_batch_is_one(tmp_path: Path) -> None:
    assert measured(tmp_path, write(tmp_path, "dynamic_batch"), "--runs", "1")["dims"] == {"batch": 1}


def test_inputs_come_from_a_file(tmp_path: Path) -> None:
    words = tmp_path / "words.npz"
    np.savez(words, word=np.full((2, 16), "a"))
    assert measured(tmp_path, write(tmp_path, "string_input"), "--inputs", str(words), "--runs", "1")["nodes"]


@pytest.mark.parametrize("given", [None, "V2", "u2"])
def test_bfloat16_goes_in_and_out(given: str | None, tmp_path: Path) -> None:
    """numpy has no such type: files hold its bits."""
    kind = onnx.TensorProto.BFLOAT16
    x, y = (onnx.helper.make_tensor_value_info(name, kind, [2, 3]) for name in "xy")
    built = models.model([models.op("Identity", "x", "y")], [x], [y])
    onnx.save(built, tmp_path / "bf16.onnx")
    options = ["--runs", "1"]
    if given is not None:
        np.savez(tmp_path / "x.npz", x=np.full((2, 3), 0x3F80, np.uint16).view(given))
        options += ["--inputs", "x.npz"]
    assert measured(tmp_path, tmp_path / "bf16.onnx", *options)["nodes"]


def test_inputs_settle_free_dimensions(tmp_path: Path) -> None:
    image = tmp_path / "image.npz"
    np.savez(image, x=np.zeros((2, 3, 5, 6), np.float32))
    document = measured(tmp_path, write(tmp_path, "named_dims"), "--inputs", str(image), "--runs", "1")
    assert document["dims"] == {"batch": 2, "height": 5, "width": 6}


def test_external_weights_are_found(tmp_path: Path) -> None:
    model = tmp_path / "external.onnx"
    onnx.save(models.chain(), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert measured(tmp_path, model, "--runs", "1")["nodes"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "named_dims",
            [],
            "input 'x' has a symbolic dimension 'height'; give its size with --dim height=SIZE",
        ),
        ("string_input", [], r"input 'word' has type tensor\(string\), .*; give its value with --inputs"),
        ("chain", ["--dim", "batch=1"], "--dim names 'batch', but the model does not have it; it has none"),
        (
            "chain",
            ["--dim", "batch"],
            r"invalid --dim 'batch'; write NAME=SIZE\[,SIZE...\] with whole numbers as sizes",
        ),
        ("chain", ["--dim", "batch=1,"], "invalid --dim 'batch=1,'; write NAME=SIZE"),
        ("chain", ["--dim", "batch=-1"], "invalid --dim 'batch=-1'; write NAME=SIZE"),
        ("chain", ["--inputs", "absent.npz"], "cannot read --inputs absent.npz"),
        (
            "chain",
            ["--inputs", "other.npz"],
            "--inputs names 'other', but the model does not have it; it has x",
        ),
        ("chain", ["--inputs", "wrong.npz"], "the model cannot run with these inputs: "),
        ("chain", ["--inputs", "bare.npy"], "cannot read --inputs bare.npy"),
        ("absent", [], r"absent.onnx: cannot be read \(No such file"),
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
    lines = [line for line in err.splitlines() if not line.startswith(("loading ", "timing "))]
    assert len(lines) == 1
    assert re.match(message, lines[0])


def test_a_sequence_has_no_file_form(tmp_path: Path) -> None:
    given = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    length = onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [])
    onnx.save(models.model([models.op("SequenceLength", "s", "n")], [given], [length]), tmp_path / "s.onnx")
    status, out, err = run(tmp_path, tmp_path / "s.onnx")
    assert (status, out) == (1, "")
    assert "input 's' has type seq(tensor(float)), which this program does not support" in err


@pytest.mark.parametrize("threads", ["0", "1,0", "", "two"])
def test_wrong_usage_exits_with_two(threads: str, tmp_path: Path) -> None:
    assert run(tmp_path, write(tmp_path, "chain"), "--threads", threads)[0] == 2


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
    built = models.ALL[name]()
    expected = [(n.name, n.op_type, list(n.input), list(n.output)) for n in built.graph.node]
    assert imported().read_nodes(built.SerializeToString()) == expected


def imported() -> ModuleType:
    """The program as a module: some of its parts are worth a test of their own."""
    spec = spec_from_file_location("onnxruntime_cpu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = module_from_spec(spec)
    spec.loader.exec_module(program)
    return program
