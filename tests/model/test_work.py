"""Multiply-accumulates as one would count them by hand, and bytes moved."""

from pathlib import Path

import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto

from splitc.model.graph import Work
from splitc.model.model import load
from splitc.model.sizes import sizes
from splitc.model.work import node_work
from tests import models
from tests.models import floats, op, weight
from tests.splitting import save


def work(folder: Path, node: NodeProto, inputs: list[ValueInfoProto], weights: list[TensorProto]) -> Work:
    outputs = [floats(name, *[None] * 2) for name in node.output if name]
    for output in outputs:
        output.type.tensor_type.ClearField("shape")
    model = load(save(models.model([node], inputs, outputs, weights), folder))
    found = node_work(model.ir.graph[0], sizes(model, {}, None))
    assert found is not None
    return found


IMAGE = floats("x", 2, 8, 10, 12)


@pytest.mark.parametrize(
    ("shape", "attributes", "op_class", "macs"),
    [
        ((16, 8, 3, 3), {"pads": [1, 1, 1, 1]}, "dense3x3", 2 * 16 * 10 * 12 * 8 * 9),
        ((16, 8, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, "conv", 2 * 16 * 5 * 6 * 8 * 9),
        ((16, 8, 5, 5), {}, "conv", 2 * 16 * 6 * 8 * 8 * 25),
        ((16, 8, 1, 1), {}, "pointwise", 2 * 16 * 10 * 12 * 8),
        ((8, 1, 3, 3), {"group": 8}, "depthwise", 2 * 8 * 8 * 10 * 9),
        ((16, 4, 3, 3), {"group": 2}, "grouped", 2 * 16 * 8 * 10 * 4 * 9),
    ],
    ids=["3x3", "strided", "5x5", "1x1", "depthwise", "grouped"],
)
def test_convolutions(
    shape: tuple[int, ...], attributes: dict[str, object], op_class: str, macs: int, tmp_path: Path
) -> None:
    found = work(tmp_path, op("Conv", "x w", "y", **attributes), [IMAGE], [weight("w", *shape)])
    assert (found.op, found.op_class, found.macs) == ("Conv", op_class, macs)


def test_transposed_convolution(tmp_path: Path) -> None:
    found = work(
        tmp_path, op("ConvTranspose", "x w", "y", strides=[2, 2]), [IMAGE], [weight("w", 8, 4, 3, 3)]
    )
    assert (found.op_class, found.macs) == ("conv", 2 * 8 * 10 * 12 * 4 * 9)


@pytest.mark.parametrize(("transposed", "shape"), [(0, (5, 7)), (1, (7, 5))], ids=["as it is", "transposed"])
def test_gemm(transposed: int, shape: tuple[int, int], tmp_path: Path) -> None:
    node = op("Gemm", "x w b", "y", transA=transposed)
    found = work(tmp_path, node, [floats("x", *shape)], [weight("w", 7, 3), models.value("b", [0.0] * 3)])
    assert (found.op_class, found.macs) == ("matmul", 5 * 7 * 3)
    assert found.read_bytes == 4 * (35 + 21 + 3)
    assert found.write_bytes == 4 * 15


def test_batched_product_of_two_activations(tmp_path: Path) -> None:
    node = op("MatMul", "x z", "y")
    found = work(tmp_path, node, [floats("x", 2, 3, 4, 5), floats("z", 5, 6)], [])
    assert (found.op_class, found.macs) == ("matmul", 2 * 3 * 4 * 5 * 6)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(kind: str, gates: int, directions: int, tmp_path: Path) -> None:
    weights = [weight("w", directions, gates * 8, 5), weight("r", directions, gates * 8, 8)]
    direction = "bidirectional" if directions == 2 else "forward"
    node = op(kind, "x w r", "y", hidden_size=8, direction=direction)
    found = work(tmp_path, node, [floats("x", 7, 3, 5)], weights)
    assert (found.op_class, found.macs) == ("matmul", 7 * 3 * directions * gates * 8 * (5 + 8))


def test_elementwise_moves_bytes_only(tmp_path: Path) -> None:
    found = work(tmp_path, op("Relu", "x", "y"), [IMAGE], [])
    assert found == Work("Relu", "memory", 0, 4 * 1920, 4 * 1920, 0)


def test_an_unknown_operator_is_named_with_its_domain(tmp_path: Path) -> None:
    node = op("com.microsoft.BiasGelu", "x b", "y")
    built = models.model(
        [node], [floats("x", 2, 16)], [floats("y", 2, 16)], [weight("b", 16)], com_microsoft=1
    )
    model = load(save(built, tmp_path))
    assert node_work(model.ir.graph[0], sizes(model, {}, None)) is not None
    found = node_work(model.ir.graph[0], sizes(model, {}, models.random_feeds(built)))
    assert found is not None
    assert found.op == "com.microsoft.BiasGelu"


def test_no_work_where_a_size_is_unknown(tmp_path: Path) -> None:
    model = load(save(models.contrib_op(), tmp_path))
    sized = sizes(model, {}, None)
    assert [node_work(node, sized) is None for node in model.ir.graph].count(True) >= 2


def test_a_body_moves_the_weights_that_it_captures(tmp_path: Path) -> None:
    """A network inside a branch is no less work than reading its weights."""
    built = models.nested_if()
    model = load(save(built, tmp_path))
    node = next(node for node in model.ir.graph if node.op_type == "If")
    found = node_work(node, sizes(model, {}, models.random_feeds(built)))
    weight = model.ir.graph.initializers["deep_w"].const_value
    assert found is not None
    assert weight is not None
    assert found.op_class == "other"
    assert found.read_bytes > weight.nbytes
