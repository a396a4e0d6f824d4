"""Any ONNX file loads with its weights left on disk, or is refused in one sentence."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from splitc.common.errors import ModelError
from splitc.common.values import Input
from splitc.model.model import fix_dims, fix_input_dims, infer_sized, load
from splitc.model.nodes import sources
from splitc.model.sizes import sizes
from tests import models
from tests.splitting import save

FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert not text.endswith(".")
    return text.removeprefix(f"{path}: ")


# --- what loads ---


@pytest.mark.parametrize("name", models.ALL)
def test_every_model_loads_and_keeps_its_interface(name: str, tmp_path: Path) -> None:
    built = models.ALL[name]()
    model = load(save(built, tmp_path))
    weights = {tensor.name for tensor in built.graph.initializer}
    assert [item.name for item in model.inputs()] == [
        p.name for p in built.graph.input if p.name not in weights
    ]
    assert model.outputs() == tuple(port.name for port in built.graph.output)
    assert model.name == "model"
    for port in (*built.graph.input, *built.graph.output):
        assert model.declared[port.name] == port


def test_weights_in_a_sub_folder_stay_on_disk(tmp_path: Path) -> None:
    path = external(tmp_path, location="data/deep/weights.bin")
    whole = load(save(models.chain(), tmp_path / "whole"))
    model = load(path)
    assert model.weight_bytes() == whole.weight_bytes() > 5000
    assert model.external == (tmp_path / "data/deep/weights.bin",)
    assert model.sha256 != whole.sha256
    before = model.sha256
    data = tmp_path / "data/deep/weights.bin"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert load(path).sha256 != before


def test_a_linked_model_may_have_linked_data_beside_its_target(tmp_path: Path) -> None:
    external(tmp_path / "blobs")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("model.onnx", "weights.bin"):
        (folder / name).symlink_to(tmp_path / "blobs" / name)
    model = load(folder / "model.onnx")
    assert model.external == (folder / "weights.bin",)
    weights = [value.const_value for value in model.ir.graph.initializers.values()]
    assert all(weight is not None and weight.numpy().size for weight in weights)


def test_the_standard_domain_has_two_names(tmp_path: Path) -> None:
    built = models.diamond()
    built.opset_import[0].domain = "ai.onnx"
    built.graph.node[0].domain = "ai.onnx"
    model = load(save(built, tmp_path))
    assert dict(model.ir.opset_imports) == {"": 18}
    assert {node.domain for node in model.ir.graph} == {""}


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    built = models.diamond()
    shuffled = list(reversed(built.graph.node))
    del built.graph.node[:]
    built.graph.node.extend(shuffled)
    outputs = [node.outputs[0].name for node in load(save(built, tmp_path)).ir.graph]
    assert outputs.index("a") < outputs.index("b") < outputs.index("d") < outputs.index("y")


# --- dimensions ---


def test_leading_dims_are_one_and_others_must_be_given(tmp_path: Path) -> None:
    model = load(save(models.named_dims(), tmp_path))
    assert fix_dims(model, {"height": 8, "width": 9}) == {"batch": 1, "height": 8, "width": 9}
    assert fix_dims(model, {"height": 8, "width": 9, "batch": 4})["batch"] == 4
    with pytest.raises(
        ModelError,
        match=r"^the model needs a size for the symbolic dimension 'width' \(axis 3 of input 'x'\); "
        "give yours as in `--dim width=128`$",
    ):
        fix_dims(model, {"height": 8})
    with pytest.raises(
        ModelError, match="no symbolic dimension 'depth'; its symbolic dimensions: batch, height, width"
    ):
        fix_dims(model, {"height": 8, "width": 9, "depth": 1})
    with pytest.raises(ModelError, match="dimension 'height' cannot be -1"):
        fix_dims(model, {"height": -1, "width": 9})


def test_all_dims_are_asked_for_at_once() -> None:
    inputs = [
        Input("ids", "int64", ("batch", "seq len")),
        Input("past", "float32", ("batch", 4, "past_seq", 8)),
        Input("mask", "int64", ("batch", "total")),
    ]
    with pytest.raises(ModelError) as caught:
        fix_input_dims(inputs, {})
    assert str(caught.value) == (
        "the model needs sizes for the symbolic dimensions 'seq len' (axis 1 of input 'ids'), 'past_seq' (axis 2 of "
        "input 'past'), 'total' (axis 1 of input 'mask'); give yours as in "
        "`--dim 'seq len=128' --dim past_seq=0 --dim total=128`"
    )
    assert fix_input_dims(inputs, {"seq len": 1, "past_seq": 0, "total": 1})["past_seq"] == 0


@pytest.mark.parametrize("unknown", [None, -1])
def test_unnamed_dims_are_called_after_input_and_axis(unknown: int | None, tmp_path: Path) -> None:
    built = models.chain()
    for port in (*built.graph.input, *built.graph.output):
        dim = port.type.tensor_type.shape.dim[0]
        dim.Clear()
        if unknown is not None:
            dim.dim_value = unknown
    model = load(save(built, tmp_path))
    assert model.inputs()[0].shape == ("x:0", 3, 32, 32)
    assert infer_sized(model, {"x:0": 6})["y"].shape == (6, 10)
    assert model.infos["f"].shape == ("x:0", 16)


def test_a_model_without_symbols_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no symbolic dimension 'batch'; its symbolic dimensions: none"):
        fix_dims(load(save(models.chain(), tmp_path)), {"batch": 2})


# --- what is refused: not a model ---


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x00" * 100, b"\xff" * 64, b"PK\x03\x04"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "not an ONNX" in refusal(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is a folder; give the path of the .onnx file in it"
    assert refusal(tmp_path / "none.onnx") == "no such file; check the path"


@functools.cache
def small() -> bytes:
    return models.nested_if().SerializeToString()


def loads_or_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        model = load(path)
    except ModelError:
        refusal(path)
    else:
        sizes(model, {}, None)
        sources(model)


@FUZZ
@given(length=st.integers(0, len(small()) - 1))
def test_truncated_files_load_or_are_refused(length: int, tmp_path: Path) -> None:
    loads_or_is_refused(tmp_path / "model.onnx", small()[:length])


@FUZZ
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    loads_or_is_refused(tmp_path / "model.onnx", content)


@FUZZ
@given(place=st.integers(0, len(small()) - 1), value=st.integers(0, 255))
def test_a_damaged_byte_loads_or_is_refused(place: int, value: int, tmp_path: Path) -> None:
    content = bytearray(small())
    content[place] = value
    loads_or_is_refused(tmp_path / "model.onnx", bytes(content))


# --- what is refused: external data ---


def external(folder: Path, location: str = "weights.bin") -> Path:
    path = folder / "model.onnx"
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(models.chain(), path, save_as_external_data=True, location=location, size_threshold=64)
    return path


def with_entry(folder: Path, key: str, value: str) -> Path:
    path = external(folder)
    proto = onnx.load_model(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    for entry in list(entries):
        if entry.key == key:
            entries.remove(entry)
    entries.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    assert "external data file 'weights.bin' of tensor 'a_w' is missing" in refusal(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin", "", "a\0b"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    text = refusal(with_entry(folder, "location", location))
    assert "tensor 'a_w' has external data outside the model's folder" in text


def test_external_data_behind_a_link_to_outside_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model")
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    assert "outside the model's folder" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("offset", "-4", "not both non-negative integers"),
        ("offset", "many", "not both non-negative integers"),
        ("offset", "٣", "not both non-negative integers"),
        ("length", "1e3", "not both non-negative integers"),
        ("length", "12", "12 bytes of external data, but its shape [8, 3, 3, 3] needs 864"),
        ("offset", "999999999", "'weights.bin' is truncated"),
    ],
)
def test_wrong_places_in_external_data_are_refused(key: str, value: str, said: str, tmp_path: Path) -> None:
    text = refusal(with_entry(tmp_path, key, value))
    assert "tensor 'a_w'" in text
    assert said in text


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "weights.bin"
    os.truncate(data, data.stat().st_size - 1)
    assert "external data file 'weights.bin' is truncated" in refusal(path)


# --- what is refused: contradictions ---


def no_import(built: ModelProto) -> None:
    built.graph.node[1].domain = "com.example"


def no_standard_import(built: ModelProto) -> None:
    built.opset_import[0].domain = "ai.onnx.ml"


def cycle(built: ModelProto) -> None:
    built.graph.node[0].input[0] = "c"


def missing_producer(built: ModelProto) -> None:
    built.graph.node[4].input[0] = "ghost"


def missing_output(built: ModelProto) -> None:
    built.graph.output.append(models.floats("ghost", 2))


def made_twice(built: ModelProto) -> None:
    built.graph.node[5].output[0] = "b"


def makes_an_input(built: ModelProto) -> None:
    built.graph.node[3].output[0] = "x"


def two_inputs(built: ModelProto) -> None:
    built.graph.input.append(built.graph.input[0])


def two_weights(built: ModelProto) -> None:
    built.graph.initializer.append(built.graph.initializer[0])


def short_weight(built: ModelProto) -> None:
    built.graph.initializer[0].raw_data = b"1234"


def nothing_left(built: ModelProto) -> None:
    del built.graph.output[:]
    built.graph.output.append(models.X)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_import, "node 'Tanh_a' uses domain 'com.example', but the model imports no operator set"),
        (
            no_standard_import,
            "node 'MatMul_a_m' uses domain 'ai.onnx', but the model imports no operator set",
        ),
        (cycle, "its nodes form a cycle (node '"),
        (
            missing_producer,
            "node 'MatMul_c_m' uses 'ghost', but the graph has no node, input or initializer of that name",
        ),
        (missing_output, "the list of outputs uses 'ghost', but the graph has no node"),
        (made_twice, "node 'Tanh_c' redefines tensor 'b'"),
        (makes_an_input, "node 'Tanh_b' redefines tensor 'x'"),
        (two_inputs, "two inputs or initializers have the name 'x'"),
        (two_weights, "two inputs or initializers have the name 'a_w'"),
        (short_weight, "tensor 'a_w' has 4 bytes of data, but its shape [16, 16] needs 1024"),
        (nothing_left, "no output is computed by a node"),
    ],
    ids=lambda item: item.__name__ if callable(item) else "",
)
def test_contradictions_are_refused(damage: Callable[[ModelProto], None], said: str, tmp_path: Path) -> None:
    built = models.diamond()
    damage(built)
    text = refusal(save(built, tmp_path))
    assert said in text
    assert "; " in text  # what to do


def test_a_branch_that_reads_nothing_known_is_refused(tmp_path: Path) -> None:
    built = models.nested_if()
    inner = next(node for node in built.graph.node if node.op_type == "If").attribute[1].g.node
    assert inner[0].op_type in ("Sin", "Add")
    inner[0].input[0] = "ghost"
    assert "uses 'ghost'" in refusal(save(built, tmp_path))


def test_a_cycle_through_a_branch_is_refused(tmp_path: Path) -> None:
    built = models.if_captures()
    built.graph.node[0].input[0] = "c"  # the If reads what depends on "a" only inside its branches and by "p"
    assert "cycle" in refusal(save(built, tmp_path))


def test_a_function_without_its_operator_set_is_refused(tmp_path: Path) -> None:
    built = models.local_function()
    del built.functions[0].opset_import[:]
    assert "but function 'Mix' imports no operator set" in refusal(save(built, tmp_path))


def test_an_unknown_element_type_is_refused(tmp_path: Path) -> None:
    built = models.diamond()
    built.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 99, [2, 16]))
    assert refusal(save(built, tmp_path))


def test_sparse_weights_become_dense(tmp_path: Path) -> None:
    built = models.sparse_initializer()
    model = load(save(built, tmp_path))
    dense = model.ir.graph.initializers["bias"].const_value
    assert dense is not None
    assert list(dense.shape) == [1, models.WIDTH]
    kept = built.graph.sparse_initializer[1]
    assert kept.values.data_type == TensorProto.FLOAT
    assert dense.numpy().nonzero()[1].tolist() == onnx.numpy_helper.to_array(kept.indices).tolist()


def test_external_data_with_another_name_on_its_disk_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "other").hardlink_to(tmp_path / "weights.bin")
    assert "external data file 'weights.bin' has 2 hard links" in refusal(path)
