"""Samples that are one model have the published architecture, the same bytes each time, and react to their input."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from splitc.common.errors import ModelError
from splitc.samples.catalogue import SAMPLES, write_sample
from splitc.samples.classifiers import REGNET_Y_4GF, REGNET_Y_400MF, RegNetY
from tests import models

CHEAP = ["regnet_y_400mf", "tiny_cnn"]


def parameters(design: RegNetY) -> int:
    """Count weights and biases from the paper's description, independently of the builder."""

    def conv(channels: int, width: int, kernel: int = 1, group_width: int | None = None) -> int:
        return width * (group_width or channels) * kernel**2 + width

    total, channels = conv(3, 32, 3), 32
    for depth, width in zip(design.depths, design.widths, strict=True):
        for block in range(depth):
            squeezed = round(0.25 * channels)
            total += conv(channels, width) + conv(width, width, 3, design.group_width) + conv(width, width)
            total += conv(width, squeezed) + conv(squeezed, width)
            total += conv(channels, width) if block == 0 else 0
            channels = width
    return total + channels * 1000 + 1000


def macs(built: onnx.ModelProto) -> int:
    """Sum the multiply-accumulates of convolutions and matrix products from inferred shapes."""
    graph = onnx.shape_inference.infer_shapes(built, strict_mode=True, data_prop=True).graph
    made = {
        port.name: [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        for port in (*graph.value_info, *graph.output)
    }
    weights = {weight.name: list(weight.dims) for weight in graph.initializer}
    return sum(
        math.prod(made[node.output[0]]) * math.prod(weights[node.input[1]][1:])
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    )


@pytest.mark.parametrize(
    ("design", "published_parameters", "published_macs"),
    [(REGNET_Y_400MF, 4.3e6, 0.4e9), (REGNET_Y_4GF, 20.6e6, 4.0e9)],
    ids=lambda value: getattr(value, "name", None),
)
def test_regnet_has_the_published_size(
    design: RegNetY, published_parameters: float, published_macs: float
) -> None:
    built = SAMPLES[design.name]()
    counted = sum(math.prod(weight.dims) for weight in built.graph.initializer)
    assert counted == parameters(design)
    assert counted == pytest.approx(published_parameters, rel=0.02)
    assert macs(built) == pytest.approx(published_macs, rel=0.05)


@pytest.mark.parametrize("name", CHEAP)
def test_is_valid_with_unique_names(name: str) -> None:
    built = SAMPLES[name]()
    onnx.checker.check_model(built, full_check=True)
    names = [node.name for node in built.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


@pytest.mark.parametrize("name", CHEAP)
def test_writes_the_same_bytes_and_nothing_else(name: str, tmp_path: Path) -> None:
    first, again = tmp_path / "a" / "model.onnx", tmp_path / "again.onnx"
    write_sample(name, first)
    write_sample(name, again)
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "again.onnx", "model.onnx"]


@pytest.mark.parametrize("name", CHEAP)
def test_output_keeps_its_scale_and_varies_with_the_input(name: str) -> None:
    session = ort.InferenceSession(SAMPLES[name]().SerializeToString(), providers=["CPUExecutionProvider"])
    one, other = (
        np.asarray(session.run(None, models.random_feeds(session, seed=seed))[0]) for seed in (0, 1)
    )
    assert 0.1 < one.std() < 10
    assert np.abs(one - other).mean() > 0.2 * one.std()


def test_tiny_cnn_is_tiny(tmp_path: Path) -> None:
    write_sample("tiny_cnn", tmp_path / "tiny.onnx")
    assert (tmp_path / "tiny.onnx").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("name", "advice"), [("regnet_y_400m", "did you mean 'regnet_y_400mf'"), ("zzz", "choose one of")]
)
def test_unknown_name_is_refused(name: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=advice):
        write_sample(name, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
