"""Every cut of a build with private tensors says how much of them it gives away."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from splitc.bundle.manifest import LeakEntry
from splitc.common.values import Array
from splitc.compile.compile import Compiled
from splitc.compile.limits import LimitOptions
from splitc.compile.privacy.leak import MIN_SAMPLES
from tests.compile.pipeline.making import compiled
from tests.compile.privacy.test_recoverable import write_stages
from tests.models import WIDTH, floats, model, op, weight
from tests.running import compile_here

COUNT = 60


def narrowing() -> ModelProto:
    """An invertible map, then one to half of the dimensions, then one to an eighth."""
    nodes = [
        op("MatMul", "x a_w", "a"),
        op("MatMul", "a b_w", "b"),
        op("MatMul", "b c_w", "c"),
        op("Tanh", "c", "y"),
    ]
    weights = [weight("a_w", WIDTH, WIDTH), weight("b_w", WIDTH, WIDTH // 2), weight("c_w", WIDTH // 2, 2)]
    return model(nodes, [floats("x", 1, WIDTH)], [floats("y", 1, 2)], weights)


def write_samples(
    folder: Path, count: int, shape: tuple[int, ...] = (1, WIDTH), name: str = "x"
) -> tuple[Path, ...]:
    rng = np.random.default_rng(0)
    paths = tuple(folder / f"{number}.npz" for number in range(count))
    for path in paths:
        values: Array = rng.standard_normal(shape).astype(np.float32)
        np.savez(path, **{name: values})  # type: ignore[arg-type]
    return paths


def built(folder: Path, *, samples: tuple[Path, ...] = (), private: str = "x", **options: Any) -> Compiled:
    path = folder / "model.onnx"
    onnx.save_model(narrowing(), path)
    limits = LimitOptions(private=(private,))
    return compile_here(path, folder / "bundle", samples=samples, limits=limits, regret=0.0, **options)


def leaks(compiled: Compiled) -> dict[str, LeakEntry | None]:
    """The figure by what crosses."""
    return {
        ",".join(tensor.name for tensor in cut.sent) if cut.cloud else "nothing": cut.leak
        for cut in compiled.manifest.cuts
    }


def test_the_figure_of_each_cut(tmp_path: Path) -> None:
    found = leaks(built(tmp_path, samples=write_samples(tmp_path, COUNT)))
    wanted = {"a": 1.0, "b": 0.5, "c": 0.125, "y": 0.125, "nothing": 0.0}
    assert len(found.keys() & {"a", "b", "c"}) >= 1
    for crossing, leak in found.items():
        assert leak is not None
        assert leak.share == pytest.approx(wanted[crossing], abs=0.12)
        assert leak.samples == COUNT
        assert leak.tensor == (None if crossing == "nothing" else "x")


def test_a_private_tensor_inside_the_model(tmp_path: Path) -> None:
    found = leaks(built(tmp_path, samples=write_samples(tmp_path, COUNT), private="b"))
    assert set(found) <= {"c", "y", "nothing"}
    assert found["c"] is not None
    assert found["c"].tensor == "b"
    assert found["c"].share is not None
    assert 0.05 < found["c"].share < 0.6


@pytest.mark.parametrize("count", [0, MIN_SAMPLES - 1], ids=["random inputs", "few samples"])
def test_without_enough_samples_the_figure_is_unknown(count: int, tmp_path: Path) -> None:
    compiled = built(tmp_path, samples=write_samples(tmp_path, count))
    for crossing, leak in leaks(compiled).items():
        assert leak == LeakEntry(0.0 if crossing == "nothing" else None, count, None)
    (note,) = (note for note in compiled.manifest.notes if "rebuilt" in note)
    assert note.endswith(" is unknown: give at least 8 different samples with --samples")


def test_a_sample_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, 3) * 4
    assert all(
        leak is not None and leak.samples == 3 for leak in leaks(built(tmp_path, samples=samples)).values()
    )


def test_without_private_tensors_there_is_no_figure(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(narrowing(), path)
    made = compile_here(path, tmp_path / "bundle", samples=write_samples(tmp_path, COUNT))
    assert set(leaks(made).values()) == {None}
    assert b'"leak"' not in (tmp_path / "bundle" / "manifest.json").read_bytes()


def test_the_stages_of_a_pipeline(tmp_path: Path) -> None:
    """The second private tensor is inside a stage."""
    path = write_stages(tmp_path / "source")
    samples = write_samples(tmp_path, 12, (WIDTH, WIDTH), "image")
    limits = LimitOptions(private=("image", "prepare/m"))
    made = compiled(path, tmp_path / "bundle", samples=samples, limits=limits)
    splits = [cut for cut in made.manifest.cuts if cut.kind == "split"]
    assert splits
    for cut in splits:
        assert cut.leak is not None
        assert cut.leak.share is not None
        assert cut.leak.samples == 12


def test_too_little_memory_is_no_lack_of_samples(tmp_path: Path) -> None:
    path = write_stages(tmp_path / "source")
    samples = write_samples(tmp_path, 12, (WIDTH, WIDTH), "image")
    limits = LimitOptions(private=("image",))
    made = compiled(path, tmp_path / "bundle", samples=samples, limits=limits, build_memory_bytes=1)
    (note,) = (note for note in made.manifest.notes if "rebuilt" in note)
    assert note.endswith("is unknown: too little memory to run the samples")
