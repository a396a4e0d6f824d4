"""Times of units come from real runs, and sum to what the whole model took."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest

from splitc.analysis import Analysis, AnalysisOptions, analyse
from splitc.cache import Cache
from splitc.errors import ProfileError
from splitc.profiles import (
    NodeTimes,
    Profile,
    measure_here,
    measured_times,
    predicted_times,
    read_profile,
    write_profile,
)
from splitc.records import encode
from splitc.shipped import shipped
from splitc.targets import load_target
from tests import models
from tests.running import compile_here, save_tiny

PROGRAM = shipped("profilers") / "onnxruntime_cpu.py"


def look(path: Path) -> Analysis:
    return analyse(path, AnalysisOptions({}, (), simplify=False), path.parent, Cache(None), lambda _: None)


def run_by_hand(model: Path, *options: str) -> Path:
    """Run the program as a user would on a board, and keep what it prints."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(model), "--runs", "5", *options], capture_output=True, check=True
    )
    path = model.with_suffix(".profile.json")
    path.write_bytes(done.stdout)
    return path


def units_of(found: Analysis, profile: Profile) -> tuple[float, ...]:
    return measured_times(profile, "here", found.model, found.sources, found.partition, here=True).seconds


def made_up(found: Analysis, nodes: list[NodeTimes], whole_s: float = 1.0) -> Profile:
    return Profile(
        1,
        found.model.sha256,
        "onnxruntime",
        "1.0",
        "CPU",
        1,
        {},
        {},
        1,
        1,
        (whole_s,),
        (whole_s,),
        tuple(nodes),
    )


@pytest.mark.parametrize("name", ["tiny_cnn", "fp16_chain", "qdq_residual", "if_captures", "unused_outputs"])
def test_a_profile_by_hand_sums_to_the_whole_run(name: str, tmp_path: Path) -> None:
    model = save_tiny(name, tmp_path)
    found = look(model)
    profile = read_profile(run_by_hand(model), found.original, {found.original.sha256})
    times = measured_times(profile, "here", found.model, found.sources, found.partition, here=False)
    assert sum(times.seconds) == pytest.approx(median(profile.whole_s), rel=1e-12)
    assert min(times.seconds) >= 0
    assert max(times.seconds) > 0
    assert (times.source, times.interval, times.here) == ("measured", None, False)


def test_measured_once_then_kept(tmp_path: Path) -> None:
    found = look(save_tiny("chain", tmp_path))
    cache = Cache(tmp_path / "cache")
    first = measure_here(found.model, found.feeds[0], 1, found.dims, cache)
    assert measure_here(found.model, found.feeds[0], 1, found.dims, cache) == first
    (path,) = (tmp_path / "cache" / "profiles").iterdir()
    path.write_text('{"splitc_profile": 1}', encoding="utf-8")  # damaged: it is measured anew
    again = measure_here(found.model, found.feeds[0], 1, found.dims, cache)
    assert json.loads(path.read_bytes()) == encode(again)
    assert (again.model, again.threads) == (found.model.sha256, 1)


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    found = look(save_tiny("chain", tmp_path))
    with pytest.raises(
        ProfileError, match=r"^profiling chain on this machine failed: .*does not run on these inputs"
    ):
        measure_here(found.model, {"x": np.ones((9, 9), np.float32)}, 1, {}, Cache(None))


def test_what_the_runtime_inserts_belongs_to_a_neighbour(tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    graph = found.partition.graph
    at = {
        graph.tensors[index].name: number for number, unit in enumerate(graph.units) for index in unit.outputs
    }
    nodes = [
        NodeTimes("reorder_in", "ReorderInput", ("x",), ("x_reordered",), (3.0,)),  # read by the unit of a
        NodeTimes("any", "Fused", ("x_reordered",), ("a",), (1.0,)),
        NodeTimes("Tanh_b", "Tanh", ("a",), ("renamed",), (2.0,)),  # known by its own name
        NodeTimes("c_nchwc", "Conv", ("a",), ("c_nchwc_out",), (4.0,)),  # called after what it made
        NodeTimes("any2", "Add", ("renamed", "c_nchwc_out"), ("d",), (0.0,)),
        NodeTimes("any3", "MatMul", ("d",), ("y",), (0.0,)),
        NodeTimes("reorder_out", "ReorderOutput", ("y",), ("y_reordered",), (5.0,)),  # nobody reads it
        NodeTimes("stray", "Nothing", (), ("nowhere",), (100.0,)),
    ]
    seconds = units_of(found, made_up(found, nodes, whole_s=30.0))
    assert sum(seconds) == pytest.approx(30)
    assert seconds[at["a"]] == pytest.approx(2 * 4)
    assert seconds[at["b"]] == pytest.approx(2 * 2)
    assert seconds[at["c"]] == pytest.approx(2 * 4)
    assert seconds[at["y"]] == pytest.approx(2 * 5)


def test_a_profile_that_knows_no_node(tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    with pytest.raises(ProfileError, match="no node of the profile belongs to diamond; record one"):
        units_of(found, made_up(found, [NodeTimes("stray", "Nothing", (), ("nowhere",), (1.0,))]))


def test_written_and_read(tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    profile = made_up(found, [NodeTimes("n", "Tanh", ("x",), ("a",), (1.0,))])
    write_profile(profile, tmp_path / "new" / "p.json")
    assert read_profile(tmp_path / "new" / "p.json", found.original, {found.original.sha256}) == profile
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.json"]
    with pytest.raises(
        ProfileError, match=r"is a profile of another model .*; record one with `splitc profile`"
    ):
        read_profile(tmp_path / "new" / "p.json", found.original, {"0" * 64})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splitc_profile": 2}, "profile version 2, but this splitc reads version 1"),
        ({"whole_s": []}, "the profile holds no runs"),
        ({"nodes": []}, "the profile holds no runs"),
        ({"whole_s": [0.0]}, "below zero"),
        ({"threads": 0}, "below zero"),
        ({"whole_s": ["fast"]}, "expected a number"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_malformed(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    value = encode(made_up(found, [NodeTimes("n", "Tanh", ("x",), ("a",), (1.0,))]))
    assert isinstance(value, dict)
    (tmp_path / "p.json").write_text(json.dumps(value | change), encoding="utf-8")
    with pytest.raises(ProfileError, match=message) as raised:
        read_profile(tmp_path / "p.json", found.original, {found.original.sha256})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null"], ids=["empty", "open", "deep", "null"])
def test_no_profile_at_all(text: str, tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    (tmp_path / "p.json").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=r"p\.json"):
        read_profile(tmp_path / "p.json", found.original, set())
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        read_profile(tmp_path / "none.json", found.original, set())


def test_a_profile_by_hand_of_a_model_with_external_data(tmp_path: Path) -> None:
    """The program knows nothing of external data: its digest is of the .onnx file alone."""
    model = tmp_path / "model.onnx"
    onnx.save_model(models.diamond(), model, save_as_external_data=True, location="w.bin", size_threshold=0)
    profile = run_by_hand(model)
    compiled = compile_here(model, tmp_path / "bundle", tail_profile=profile)
    assert compiled.manifest.targets.tail.source == "measured"


def test_a_profile_at_another_size_is_refused(tmp_path: Path) -> None:
    model = save_tiny("dynamic_batch", tmp_path)
    profile = run_by_hand(model, "--dim", "batch=3")
    with pytest.raises(ProfileError, match=r"was recorded with batch=3, .* batch=1; give --dim batch=3 or"):
        compile_here(model, tmp_path / "bundle", tail_profile=profile)
    compiled = compile_here(model, tmp_path / "bundle", tail_profile=profile, dims={"batch": 3})
    assert compiled.manifest.model.dims == {"batch": 3}


def test_predicted_times_say_so(tmp_path: Path) -> None:
    found = look(save_tiny("tiny_cnn", tmp_path))
    times = predicted_times(load_target("pixel7"), found.partition)
    assert (times.source, times.target, times.here) == ("predicted", "pixel7", False)
    assert times.interval is not None
    assert times.interval[0] < 1 < times.interval[1]
    assert len(times.seconds) == len(found.partition.graph.units)


def test_nothing_is_predicted_from_nothing(tmp_path: Path) -> None:
    found = look(save_tiny("diamond", tmp_path))
    partition = replace(found.partition, unsized=("Tanh_a",))
    with pytest.raises(ProfileError, match=r"the work of node 'Tanh_a' is unknown.* with --cloud-profile"):
        predicted_times(load_target("pixel7"), partition, "--cloud-profile")
