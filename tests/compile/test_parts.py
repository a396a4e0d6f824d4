"""Heads and tails are valid models that share one file of weights and compose to the whole."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from splitc.bundle.folder import WEIGHTS
from splitc.common.kinds import Direction
from splitc.model.model import fix_dims, load
from tests import models, splitting

RANDOM = "random_normal"
DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")
# What reads a string, and what makes a sequence, stays on the device.
SPLITS = {"string_input": {"device-first"}, "sequence_output": {"cloud-first"}}


@pytest.mark.parametrize("simplified", [False, True], ids=["as-is", "simplified"])
@pytest.mark.parametrize("name", models.ALL)
def test_every_cut_composes_to_the_model(name: str, simplified: bool, tmp_path: Path) -> None:
    made = splitting.split_tiny(name, tmp_path, simplified=simplified)
    against = splitting.whole(made)
    assert (against is None) is (name == RANDOM)
    found = [cut for direction in DIRECTIONS for cut in splitting.cuts(made, direction=direction)]
    splits = {cut.direction for cut in found if cut.kind == "split"}
    assert splits >= SPLITS.get(name, set(DIRECTIONS))
    for cut in found:
        splitting.check(made, cut, against)


def test_early_output_is_not_made_again_by_the_tail(tmp_path: Path) -> None:
    made = splitting.split_tiny("early_output", tmp_path)
    makers = 0
    for cut in splitting.cuts(made):
        found = splitting.check(made, cut, splitting.whole(made))
        sides = [side for side, proto in found.items() if "a" in _made(proto)]
        assert len(sides) == 1
        makers += cut.kind == "split" and sides == ["head"]
    assert makers


def test_random_nodes_run_once(tmp_path: Path) -> None:
    made = splitting.split_tiny(RANDOM, tmp_path)
    sides = [
        [side for side, proto in splitting.check(made, cut, None).items() if "noise" in _made(proto)]
        for cut in splitting.cuts(made)
        if cut.kind == "split"
    ]
    assert sorted({tuple(found) for found in sides}) == [("head",), ("tail",)]


def test_constant_and_passthrough_outputs_stay_home(tmp_path: Path) -> None:
    for name, output in (("constant_output", "z"), ("passthrough_output", "x")):
        made = splitting.split_tiny(name, tmp_path / name)
        inner = [cut for cut in splitting.cuts(made) if cut.kind == "split"]
        for cut in inner:
            found = splitting.check(made, cut, splitting.whole(made))
            assert output not in [port.name for port in found["tail"].graph.output]
        assert inner


def test_constant_outputs_are_made_on_the_device(tmp_path: Path) -> None:
    made = splitting.split_tiny("constant_output", tmp_path)
    inner = [cut for cut in splitting.cuts(made, direction="cloud-first") if cut.kind == "split"]
    assert inner
    for cut in inner:
        found = splitting.check(made, cut, splitting.whole(made))
        assert "z" in [port.name for port in found["tail"].graph.output]
        assert "z" not in [port.name for port in found["head"].graph.output]


def test_readers_of_strings_stay_in_the_head(tmp_path: Path) -> None:
    made = splitting.split_tiny("string_input", tmp_path)
    assert made.graph.device_only
    for cut in splitting.cuts(made):
        assert "word" not in [made.graph.tensors[index].name for index in cut.boundary]


def test_a_split_quantized_model_sends_int8(tmp_path: Path) -> None:
    made = splitting.split_tiny("qdq_residual", tmp_path)
    inner = [cut for cut in splitting.cuts(made) if cut.kind == "split"]
    dtypes = {made.graph.tensors[index].dtype for cut in inner for index in cut.boundary}
    assert dtypes <= {"int8", "float32"}
    small = [cut for cut in inner if {made.graph.tensors[index].dtype for index in cut.boundary} == {"int8"}]
    assert len(small) >= 3
    tail = splitting.check(made, small[0], splitting.whole(made))["tail"]
    assert tail.graph.input[0].type.tensor_type.elem_type == TensorProto.INT8


def test_bfloat16_crosses_as_two_bytes(tmp_path: Path) -> None:
    nodes = [
        *models.dense("x", "a"),
        models.op("Cast", "a", "h", to=TensorProto.BFLOAT16),
        models.op("Cast", "h", "b", to=TensorProto.FLOAT),
        *models.dense("b", "y"),
    ]
    built = models.model(nodes, [models.X], [models.Y], models.dense_weights("a", "y"))
    made = _split(built, tmp_path)
    crossing = {tensor.name: tensor for tensor in made.graph.tensors}
    assert (crossing["h"].dtype, crossing["h"].nbytes) == ("bfloat16", 2 * 2 * models.WIDTH)
    cut = next(c for c in splitting.cuts(made) if [made.graph.tensors[i].name for i in c.boundary] == ["h"])
    splitting.check(made, cut, splitting.whole(made))


@pytest.mark.parametrize(
    ("name", "sizings"),
    [
        ("dynamic_batch", [{"batch": 1}, {"batch": 5}]),
        ("named_dims", [{"batch": 1, "height": 7, "width": 12}, {"batch": 3, "height": 9, "width": 4}]),
        ("recurrent", [{"time": 3, "batch": 1}, {"time": 9, "batch": 4}]),
    ],
)
def test_symbolic_dims_stay_and_other_sizes_work(
    name: str, sizings: list[dict[str, int]], tmp_path: Path
) -> None:
    made = splitting.split_tiny(name, tmp_path)
    source = onnx.load_model(made.original.path)
    against = splitting.whole(made, *[models.random_feeds(source, dims) for dims in sizings])
    inner = [cut for cut in splitting.cuts(made) if cut.kind == "split"]
    for cut in inner:
        found = splitting.check(made, cut, against)
        names = {
            dim.dim_param for port in found["tail"].graph.input for dim in port.type.tensor_type.shape.dim
        } - {""}
        assert names
        assert names <= set(sizings[0])
    assert inner


def test_an_early_output_with_a_wrong_declared_size_still_crosses(tmp_path: Path) -> None:
    built = models.early_output()
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for port in built.graph.output:
        port.type.tensor_type.shape.dim[0].dim_value = 1  # what the exporter's example had
    made = _split(built, tmp_path, {"batch": 1})
    feeds = [models.random_feeds(built, {"batch": size}) for size in (1, 3)]
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made, *feeds))


def test_equal_names_in_two_branches_stay_apart(tmp_path: Path) -> None:
    def branch(number: float) -> onnx.GraphProto:
        constant = models.op("Constant", "", "k", value=models.value("k", number))
        return models.body([constant, models.op("Add", "b k", "t")], [models.floats("t", 2, models.WIDTH)])

    nodes = [
        *models.dense("x", "a"),
        *models.dense("a", "b"),
        *models.positive("a", "p"),
        models.op("If", "p", "c", then_branch=branch(1.0), else_branch=branch(-5.0)),
        *models.dense("c", "y"),
    ]
    built = models.model(nodes, [models.X], [models.Y], [models.ZERO, *models.dense_weights("a", "b", "y")])
    made = _split(built, tmp_path)
    feeds = [models.random_feeds(built, seed=seed) for seed in range(6)]
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made, *feeds))


def test_a_constant_may_be_an_output_of_the_graph_and_of_a_branch(tmp_path: Path) -> None:
    constant = models.op("Constant", "", "t", value=models.value("v", np.ones((2, models.WIDTH))))
    choose_then = models.body([constant], [models.floats("t", 2, models.WIDTH)], "then")
    choose_else = models.body([models.op("Sin", "a", "e")], [models.floats("e", 2, models.WIDTH)], "else")
    nodes = [
        *models.dense("x", "a"),
        *models.positive("a", "p"),
        models.op("If", "p", "c", then_branch=choose_then, else_branch=choose_else),
        *models.dense("c", "y"),
        models.op("Constant", "", "k", value=models.value("k_value", [1.0, 2.0])),
    ]
    outputs = [models.Y, models.floats("k", 2)]
    built = models.model(nodes, [models.X], outputs, [models.ZERO, *models.dense_weights("a", "y")])
    made = _split(built, tmp_path)
    feeds = [models.random_feeds(built, seed=seed) for seed in range(6)]
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made, *feeds))


def test_weights_lie_once_on_pages_and_small_ones_inline(tmp_path: Path) -> None:
    made = splitting.split_tiny("recurrent", tmp_path)
    initializers = {name: value.const_value for name, value in made.model.ir.graph.initializers.items()}
    places: dict[str, tuple[int, int]] = {}
    for cut in splitting.cuts(made):
        for proto in splitting.check(made, cut, None).values():
            for tensor in proto.graph.initializer:
                source = initializers[tensor.name]
                assert source is not None
                assert (tensor.data_location == TensorProto.EXTERNAL) is (source.nbytes >= 1024)
                entries = {entry.key: entry.value for entry in tensor.external_data}
                if entries:
                    assert entries.pop("location") == WEIGHTS
                    place = int(entries["offset"]), int(entries["length"])
                    assert places.setdefault(tensor.name, place) == place
    assert len(places) >= 3
    data = (made.folder / WEIGHTS).read_bytes()
    for name, (offset, length) in places.items():
        source = initializers[name]
        assert source is not None
        assert offset % 4096 == 0
        assert data[offset : offset + length] == source.tobytes()
    ends = sorted((offset, offset + length) for offset, length in places.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert len(data) == ends[-1][1]


def test_external_data_in_a_folder_ends_up_in_the_bundle_only(tmp_path: Path) -> None:
    path = tmp_path / "source" / "model.onnx"
    (path.parent / "data").mkdir(parents=True)
    onnx.save_model(
        models.recurrent(), path, save_as_external_data=True, location="data/all.bin", size_threshold=64
    )
    model = load(path)
    assert [file.name for file in model.external] == ["all.bin"]
    dims = fix_dims(model, {"time": 2, "batch": 2})
    feeds = models.random_feeds(models.recurrent())
    work = tmp_path / "work"
    work.mkdir()
    made = splitting.split(path, work, dims, feeds)
    against = splitting.whole(made, feeds)
    (path.parent / "data" / "all.bin").rename(tmp_path / "elsewhere")
    for cut in splitting.cuts(made):
        splitting.check(made, cut, against)


def test_two_emits_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("local_function_in_if", "chain", "sparse_initializer"):
        digests = []
        for again in ("first", "second"):
            made = splitting.split_tiny(name, tmp_path / name / again)
            for number, cut in enumerate(splitting.cuts(made)):
                splitting.write(made, cut, str(number))
            digests.append({file.name: file.read_bytes() for file in made.folder.iterdir()})
        assert digests[0] == digests[1]
        assert len(digests[0]) > 5


def test_parts_keep_the_models_metadata_and_only_needed_functions(tmp_path: Path) -> None:
    built = models.function_calls_function()
    built.metadata_props.add(key="classes", value="cat,dog")
    built.model_version = 7
    made = _split(built, tmp_path)
    seen = set()
    for cut in splitting.cuts(made):
        for proto in splitting.check(made, cut, splitting.whole(made)).values():
            assert [(prop.key, prop.value) for prop in proto.metadata_props] == [("classes", "cat,dog")]
            assert proto.model_version == 7
            calls = any(node.op_type == "Twice" for node in proto.graph.node)
            assert sorted(function.name for function in proto.functions) == (
                ["Mix", "Twice"] if calls else []
            )
            seen.add(calls)
    assert seen == {True, False}


def test_external_data_inside_a_function_is_carried_along(tmp_path: Path) -> None:
    built = models.local_function()
    scale = np.linspace(-1, 1, models.WIDTH * models.WIDTH, dtype=np.float32).reshape(
        models.WIDTH, models.WIDTH
    )
    built.functions[0].node.insert(0, models.op("Constant", "", "k", value=models.value("k", scale)))
    built.functions[0].node[1].input[1] = "k"
    feeds = models.random_feeds(built)
    tensor = next(a.t for a in built.functions[0].node[0].attribute if a.name == "value")
    assert tensor.raw_data == scale.tobytes()
    whole = tmp_path / "whole"
    against = splitting.whole(_split(built, whole), feeds)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="k.bin")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "k.bin").write_bytes(scale.tobytes())
    path = tmp_path / "source" / "model.onnx"
    path.write_bytes(built.SerializeToString())
    made = splitting.split(path, tmp_path, {}, feeds)
    (tmp_path / "source" / "k.bin").unlink()
    for cut in splitting.cuts(made):
        splitting.check(made, cut, against)


def test_overloads_of_a_function_stay_apart(tmp_path: Path) -> None:
    built = models.local_function()
    other = onnx.FunctionProto()
    other.CopyFrom(built.functions[0])
    other.overload = "cosine"
    other.node[1].op_type = "Cos"
    built.functions.append(other)
    next(node for node in built.graph.node if node.output[0] == "c").overload = "cosine"
    made = _split(built, tmp_path)
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made))


def test_weights_are_shared_not_repeated_when_several_cuts_are_written(tmp_path: Path) -> None:
    made = splitting.split_tiny("chain", tmp_path)
    for number, cut in enumerate(splitting.cuts(made)):
        splitting.write(made, cut, str(number))
    models_bytes = [file.stat().st_size for file in made.folder.glob("*.onnx")]
    assert max(models_bytes) < 4000
    weights = (made.folder / WEIGHTS).stat().st_size
    assert weights < made.model.weight_bytes() + 4096 * 4


def _split(built: onnx.ModelProto, folder: Path, given: dict[str, int] | None = None) -> splitting.Split:
    path = splitting.save(built, folder / "source")
    dims = fix_dims(load(path), given or {})
    return splitting.split(path, folder, dims, models.random_feeds(built, dims))


def _made(proto: onnx.ModelProto) -> set[str]:
    return {output for node in proto.graph.node for output in node.output}
