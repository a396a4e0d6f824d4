"""Units: what is fused stays together, everything has its place, and what may cross has a size."""

from pathlib import Path

import onnx
import pytest

from splitc.common.errors import ModelError
from splitc.model.model import load
from splitc.model.nodes import sources
from splitc.model.sizes import sizes
from splitc.model.units import partition, surviving_tensors
from tests import models, splitting


def groups(made: splitting.Split) -> list[list[str]]:
    """The operators of each unit."""
    nodes = made.emitter.sources.nodes
    return [[nodes[index].op_type for index in unit.nodes] for unit in made.graph.units]


def split(built: onnx.ModelProto, folder: Path) -> splitting.Split:
    return splitting.split(splitting.save(built, folder / "source"), folder, {}, models.random_feeds(built))


@pytest.mark.parametrize("name", models.ALL)
def test_units_are_ordered_and_cover_every_node_once(name: str, tmp_path: Path) -> None:
    made = splitting.split_tiny(name, tmp_path)
    graph, found = made.graph, made.emitter.sources
    covered = sorted(index for unit in graph.units for index in unit.nodes)
    assert covered == [index for index in range(len(found.nodes)) if index not in found.constant]
    unit_of = {index: number for number, unit in enumerate(graph.units) for index in unit.nodes}
    maker = {
        output.name: unit_of[index]
        for index in covered
        for output in found.nodes[index].outputs
        if output.name
    }
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    for index in covered:
        for read in found.reads[index]:
            if read in maker:
                assert maker[read] <= unit_of[index]
                assert maker[read] == unit_of[index] or unit_of[index] in tensors[read].consumers
    for position, tensor in enumerate(graph.tensors):
        assert tensor.consumers == tuple(u for u, unit in enumerate(graph.units) if position in unit.inputs)
        assert tensor.producer == next(
            (u for u, unit in enumerate(graph.units) if position in unit.outputs), None
        )
        assert tensor.nbytes is not None or tensor.consumers <= tuple(sorted(graph.device_only))
    assert [t.name for t in graph.tensors if t.is_output and t.producer is not None] == [
        t.name for t in graph.tensors if t.name in made.model.outputs() and t.producer is not None
    ]


def test_convolution_norm_and_activation_are_one_unit(tmp_path: Path) -> None:
    nodes = []
    for source, target in (("x", "a"), ("a", "y")):
        norm = [f"{target}_c", f"{target}_s", f"{target}_b", f"{target}_m", f"{target}_v"]
        nodes += [
            models.op("Conv", [source, f"{target}_w"], f"{target}_c", pads=[1, 1, 1, 1]),
            models.op("BatchNormalization", norm, f"{target}_n"),
            models.op("Relu", f"{target}_n", target),
        ]
    weights = [models.weight("a_w", 3, 3, 3, 3), models.weight("y_w", 3, 3, 3, 3)]
    weights += [models.value(f"{target}_{part}", [1.0, 2.0, 3.0]) for target in "ay" for part in "sbmv"]
    made = split(
        models.model(nodes, [models.floats("x", 1, 3, 8, 8)], [models.floats("y", 1, 3, 8, 8)], weights),
        tmp_path,
    )
    assert groups(made) == [["Conv", "BatchNormalization", "Relu"]] * 2
    assert set(made.partition.fused) == {"a_c", "a_n", "y_c", "y_n"}
    assert [unit.scratch_bytes for unit in made.graph.units] == [0, 0]  # what is fused is never made


def test_quantizers_stay_with_their_neighbours(tmp_path: Path) -> None:
    made = splitting.split_tiny("qdq_residual", tmp_path)
    tensors = {tensor.name: tensor for tensor in made.graph.tensors}
    assert {"x_d_q", "a_d_q", "b_d_q", "c_d_q", "y_d_q"} <= set(tensors)
    assert {tensor.dtype for name, tensor in tensors.items() if name.endswith("_q")} == {"int8"}
    # The DequantizeLinear that two nodes share does not force them together.
    assert len(tensors["a_d_q"].consumers) == 2
    for unit in groups(made):
        assert unit[0] in ("QuantizeLinear", "DequantizeLinear")
        assert unit[-1] == "QuantizeLinear" or unit == ["DequantizeLinear"]


def test_a_tensor_with_two_readers_may_cross_once(tmp_path: Path) -> None:
    made = splitting.split_tiny("diamond", tmp_path)
    shared = next(tensor for tensor in made.graph.tensors if tensor.name == "a")
    assert len(shared.consumers) == 2


def test_captures_are_read_by_the_if(tmp_path: Path) -> None:
    made = splitting.split_tiny("nested_if", tmp_path)
    nodes = made.emitter.sources.nodes
    branch = next(
        n for n, unit in enumerate(made.graph.units) if "If" in [nodes[i].op_type for i in unit.nodes]
    )
    unit = made.graph.units[branch]
    read = {made.graph.tensors[index].name for index in unit.inputs}
    assert read >= {"a", "b", "x", "q"}
    assert "deep_w" in {made.graph.weights[index].name for index in unit.weights}


def test_weights_count_once_and_behind_constant_nodes(tmp_path: Path) -> None:
    nodes = [
        models.op("Transpose", "w", "wt", perm=[1, 0]),
        models.op("MatMul", "x wt", "a"),
        models.op("Sin", "a", "b"),
        models.op("MatMul", "b wt", "y"),
    ]
    made = split(models.model(nodes, [models.X], [models.Y], [models.weight("w", 16, 16)]), tmp_path)
    assert made.emitter.sources.constant == {0}
    assert [(weight.name, weight.nbytes) for weight in made.graph.weights] == [("w", 1024)]
    assert [unit.weights for unit in made.graph.units] == [(0,), (), (0,)]


def test_a_tensor_of_unknown_size_is_no_boundary_and_is_named(tmp_path: Path) -> None:
    path = splitting.save(models.contrib_op(), tmp_path)
    model = load(path)
    found, survivors = sources(model), surviving_tensors(model)
    inferred = partition(model, found, survivors, sizes(model, {}, None))
    assert {"b", "c"} <= set(inferred.unknown)
    assert "MatMul_d_m" in inferred.unsized
    measured = partition(model, found, survivors, sizes(model, {}, models.random_feeds(models.contrib_op())))
    assert (measured.unknown, measured.unsized) == ((), ())
    assert len(measured.graph.units) > len(inferred.graph.units) > 1


def test_scratch_is_what_lives_inside_a_unit(tmp_path: Path) -> None:
    path = splitting.save(models.diamond(), tmp_path)
    model = load(path)
    found = sources(model)
    sized = {name: size for name, size in sizes(model, {}, None).items() if name != "b"}
    made = partition(model, found, surviving_tensors(model), sized)
    joined = next(
        unit for unit in made.graph.units if "d" in {made.graph.tensors[t].name for t in unit.outputs}
    )
    names = [found.nodes[index].outputs[0].name for index in joined.nodes]
    assert names == ["b", "d"]  # "b" has no known size, so its maker and reader are one unit
    assert joined.scratch_bytes == 0  # and it does not count as anything
    everything = partition(model, found, frozenset({"d"}), sizes(model, {}, None))
    assert all(unit.scratch_bytes == 0 for unit in everything.graph.units)


def test_a_model_of_constants_is_refused(tmp_path: Path) -> None:
    built = models.model(
        [models.op("Exp", "k", "y")], [], [models.floats("y", 2)], [models.value("k", [1, 2])]
    )
    model = load(splitting.save(built, tmp_path))
    with pytest.raises(ModelError, match="no output depends on an input"):
        partition(model, sources(model), frozenset(), sizes(model, {}, None))


# --- types that cannot be sent ---


def boundaries(made: splitting.Split) -> set[str]:
    """The dtypes of all tensors that any cut sends, except those of inputs."""
    cuts = [cut for cut in splitting.cuts(made) if cut.kind == "split"]
    assert cuts
    return {made.graph.tensors[index].dtype for cut in cuts for index in cut.boundary}


@pytest.mark.parametrize("element", ["FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4"])
def test_tensors_of_types_that_cannot_be_sent_stay_with_their_readers(element: str, tmp_path: Path) -> None:
    number = onnx.TensorProto.DataType.Value(element)
    nodes = [
        *models.dense("x", "a"),
        models.op("QuantizeLinear", "a scale", "q", output_dtype=number),
        models.op("DequantizeLinear", "q scale", "d"),
        *models.dense("d", "b"),
        *models.dense("b", "y"),
    ]
    weights = [models.value("scale", 0.1), *models.dense_weights("a", "b", "y")]
    built = models.model(nodes, [models.X], [models.Y], weights)
    built.opset_import[0].version = 21
    made = split(built, tmp_path)
    assert boundaries(made) == {"float32"}
    assert {"a", "d", "b"} <= {tensor.name for tensor in made.graph.tensors}
    assert made.partition.unknown == ("q",)
    assert made.partition.unsized == ()
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made))


def test_optionals_stay_with_their_readers(tmp_path: Path) -> None:
    nodes = [
        *models.dense("x", "a"),
        models.op("Optional", "a", "o"),
        models.op("OptionalGetElement", "o", "g"),
        *models.dense("g", "y"),
    ]
    made = split(models.model(nodes, [models.X], [models.Y], models.dense_weights("a", "y")), tmp_path)
    assert made.partition.unknown == ("o",)
    assert made.partition.unsized == ()
    assert boundaries(made) == {"float32"}
    for cut in splitting.cuts(made):
        splitting.check(made, cut, splitting.whole(made))


def test_an_output_that_cannot_be_sent_is_made_on_the_device(tmp_path: Path) -> None:
    made = splitting.split_tiny("sequence_output", tmp_path)
    (maker,) = {tensor.producer for tensor in made.graph.tensors if tensor.is_output}
    assert made.graph.device_only == {maker}
    assert splitting.split_tiny("string_output", tmp_path / "strings").graph.device_only == frozenset()
