"""The normalised graph computes the same, with the names of the model's own tensors."""

from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from splitc.common.values import difference
from splitc.model.model import load
from tests import models
from tests.splitting import save


def run(content: bytes, feeds: dict[str, models.Array]) -> list[object]:
    found: list[object] = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)
    return found


@pytest.mark.parametrize("name", sorted(set(models.ALL) - {"random_normal"}))
def test_results_and_names_stay(name: str, tmp_path: Path) -> None:
    built = models.ALL[name]()
    model = load(save(built, tmp_path))
    proto = ir.to_proto(model.ir)
    feeds = models.random_feeds(built)
    for got, want in zip(
        run(proto.SerializeToString(), feeds), run(built.SerializeToString(), feeds), strict=True
    ):
        assert difference(got, want).max_rel <= 1e-5
    before = {output for node in built.graph.node for output in node.output}
    after = {output for node in proto.graph.node for output in node.output}
    assert {model.changes.copies.get(output, output) for output in after} <= before


@pytest.mark.parametrize("name", models.ALL)
def test_constants_are_initializers_and_nodes_are_named(name: str, tmp_path: Path) -> None:
    model = load(save(models.ALL[name](), tmp_path))
    nodes = list(model.ir.graph.all_nodes())
    assert "Constant" not in {node.op_type for node in nodes}
    assert all(node.name for node in model.ir.graph)
    inputs = {value.name for value in model.ir.graph.inputs}
    assert not inputs & set(model.ir.graph.initializers)


def test_each_reader_of_a_dequantizer_has_its_own(tmp_path: Path) -> None:
    built = models.qdq_residual()
    # A name that a copy would take is the model's own here.
    for node in built.graph.node:
        for names in (node.input, node.output):
            names[:] = ["a_d/copy1" if name == "c" else name for name in names]
    graph = load(save(built, tmp_path)).ir.graph
    shared = [
        node.outputs[0].name
        for node in graph
        if node.inputs[0] is not None and node.inputs[0].name == "a_d_q"
    ]
    assert shared == ["a_d", "a_d/copy2"]
    assert all(len(list(node.outputs[0].uses())) <= 1 for node in graph if node.op_type == "DequantizeLinear")


def test_a_dequantizer_that_is_an_output_stays_shared(tmp_path: Path) -> None:
    built = models.qdq_residual()
    built.graph.output.append(
        onnx.helper.make_tensor_value_info("a_d", onnx.TensorProto.FLOAT, [1, 8, 16, 16])
    )
    graph = load(save(built, tmp_path)).ir.graph
    assert [node.outputs[0].name for node in graph if node.outputs[0].name.startswith("a_d/")] == []  # type: ignore[union-attr]


def test_dead_nodes_and_functions_go(tmp_path: Path) -> None:
    built = models.local_function()
    built.graph.node.append(models.op("Sin", "a", "unread"))
    unused = built.functions.add()
    unused.CopyFrom(built.functions[0])
    unused.name = "Unused"
    model = load(save(built, tmp_path))
    assert "unread" not in {output.name for node in model.ir.graph for output in node.outputs}
    assert [name for _, name, _ in model.ir.functions] == ["Mix"]


@pytest.mark.parametrize(("version", "fixed"), [(10, ("a_w",)), (3, ())])
def test_a_weight_that_is_an_input_is_a_default_since_version_4(
    version: int, fixed: tuple[str, ...], tmp_path: Path
) -> None:
    built = models.chain()
    built.graph.input.append(models.floats("a_w", 8, 3, 3, 3))
    built.ir_version = version
    assert load(save(built, tmp_path)).changes.fixed == fixed
