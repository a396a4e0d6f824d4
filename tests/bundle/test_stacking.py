"""Requests run as one only where each then gets what it gets alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto

from splitc.bundle.manifest import BoundaryEntry, CutEntry
from splitc.bundle.stacking import (
    Trial,
    agrees,
    give_batch,
    has_batch,
    made_up,
    made_up_for,
    separates,
    stack,
    time_alone,
    time_batches,
    trial,
)
from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import Input
from tests import manifests, models
from tests.models import WIDTH, dense, dense_weights, floats, op, value


def cut(*shape: int | str, dtype: str = "float32") -> CutEntry:
    """An all-tail cut with one input."""
    return replace(manifests.CUTS[2], boundary=(BoundaryEntry("x", dtype, shape, 4),))


def row_model(*between: NodeProto, weights: tuple[TensorProto, ...] = ()) -> ModelProto:
    """One row in, one row out: a layer, what is *between* (from a to b), and a layer."""
    nodes = [*dense("x", "a"), *between, *dense("b", "y")]
    inputs, outputs = [floats("x", 1, WIDTH)], [floats("y", 1, WIDTH)]
    return models.model(nodes, inputs, outputs, [*dense_weights("a", "y"), *weights])


def plain() -> ModelProto:
    return row_model(op("Sin", "a", "b"))


def mean_over_requests() -> ModelProto:
    nodes = [op("ReduceMean", "a axes", "m"), op("Sub", "a m", "b")]
    return row_model(*nodes, weights=(value("axes", [0], "int64"),))


def softmax_over_requests() -> ModelProto:
    return row_model(op("Softmax", "a", "b", axis=0))


def constant_shape() -> ModelProto:
    nodes = [op("Reshape", "a shape", "r"), op("Slice", "r start end last", "b")]
    numbers = {"shape": [1, -1], "start": [0], "end": [WIDTH], "last": [1]}
    return row_model(
        *nodes, weights=tuple(value(name, content, "int64") for name, content in numbers.items())
    )


def branch_on_the_sum() -> ModelProto:
    then = models.body([op("Neg", "a", "t")], [floats("t", None, WIDTH)], "then")
    other = models.body([op("Identity", "a", "e")], [floats("e", None, WIDTH)], "other")
    choose = op("If", "p", "b", then_branch=then, else_branch=other)
    return row_model(*models.positive("a", "p"), choose, weights=(models.ZERO,))


def only_the_first() -> ModelProto:
    return row_model(op("Gather", "a at", "b", axis=0), weights=(value("at", [0], "int64"),))


def running_total() -> ModelProto:
    return row_model(op("CumSum", "a axis", "b"), weights=(value("axis", 0, "int64"),))


def scaled_to_the_largest() -> ModelProto:
    """As dynamic quantization does: the largest of all requests sets the scale of each."""
    return row_model(op("ReduceMax", "a", "m", keepdims=1), op("Div", "a m", "b"))


UNSAFE = [
    mean_over_requests,
    softmax_over_requests,
    constant_shape,
    branch_on_the_sum,
    only_the_first,
    running_total,
    scaled_to_the_largest,
]


def opened(build: Callable[[], ModelProto], folder: Path) -> tuple[Any, Trial]:
    """The model with a symbolic first axis, and what it makes of requests as it was."""
    onnx.save_model(build(), folder / "m.onnx")
    tried = trial(folder / "m.onnx", cut(1, WIDTH), {}, 1)
    proto = build()
    assert give_batch(proto)
    assert has_batch(proto)
    return ort.session(proto.SerializeToString(), threads=1), tried


def test_requests_that_do_not_meet_run_as_one(tmp_path: Path) -> None:
    session, tried = opened(plain, tmp_path)
    assert agrees(session, tried)
    assert separates(session, tried)


@pytest.mark.parametrize("build", UNSAFE, ids=lambda build: build.__name__)
def test_requests_that_meet_do_not(build: Callable[[], ModelProto], tmp_path: Path) -> None:
    session, tried = opened(build, tmp_path)
    assert not separates(session, tried)


def test_another_model_does_not_agree(tmp_path: Path) -> None:
    _, tried = opened(plain, tmp_path)
    session, _ = opened(softmax_over_requests, tmp_path)
    assert not agrees(session, tried)


@pytest.mark.parametrize(
    ("axes", "symbolic", "can_be"),
    [
        ((["n", 3], ["n", 3]), True, False),
        ((["n", 3], ["m", 3]), False, False),
        ((["n", 3], [1, 3]), False, False),
        (([None, 3], [None, 3]), False, False),
        (([1, 3], [1, 3]), False, True),
        (([1, 3], [2, 3]), False, False),
        (([1, 3], []), False, False),
        (([2, 3], [2, 3]), False, False),
    ],
    ids=str,
)
def test_only_an_axis_that_all_share_can_be_a_batch(axes: Any, symbolic: bool, can_be: bool) -> None:
    built = models.model([op("Sin", "x", "y")], [floats("x", *axes[0])], [floats("y", *axes[1])])
    before = built.SerializeToString()
    assert has_batch(built) == symbolic
    assert give_batch(built) == can_be
    assert has_batch(built) == (symbolic or can_be)
    assert (built.SerializeToString() == before) == (not can_be)


def test_what_is_no_tensor_is_no_batch() -> None:
    assert not give_batch(models.sequence_output())


def test_a_weight_that_can_be_replaced_does_not_matter() -> None:
    built = row_model(op("Sin", "a", "b"))
    built.graph.input.append(floats("y_w", WIDTH, WIDTH))
    assert give_batch(built)


def test_made_up_requests_differ_and_can_be_stacked() -> None:
    made = [made_up(cut("batch", 3, 4), {"batch": 2}, index) for index in range(6)]
    assert len({feeds["x"].tobytes() for feeds in made}) == 6
    assert stack(made)["x"].shape == (12, 3, 4)
    assert np.array_equal(stack(made)["x"][2:4], made[1]["x"])


def test_quantized_requests_use_all_values() -> None:
    made = made_up(cut(1, 4096, dtype="int8"), {}, 1)["x"]
    assert (made.dtype.name, made.min(), made.max()) == ("int8", -128, 127)


def test_larger_integers_stay_valid_as_indices() -> None:
    assert set(made_up(cut(1, 100, dtype="int64"), {}, 1)["x"].ravel()) == {0, 1}


def test_an_unknown_size_is_not_guessed() -> None:
    with pytest.raises(ModelError, match="symbolic dimension"):
        made_up(cut("?", "?"), {})
    with pytest.raises(ModelError, match="symbolic dimension"):
        made_up(cut("n", "?"), {})


def test_the_only_size_without_a_name_follows_from_the_bytes() -> None:
    wide = replace(manifests.CUTS[2], boundary=(BoundaryEntry("x", "int16", ("?", "n", 3), 2 * 5 * 4 * 3),))
    assert made_up(wide, {"n": 4})["x"].shape == (5, 4, 3)


def test_the_largest_batch_that_pays_is_among_those_timed(tmp_path: Path) -> None:
    session, tried = opened(plain, tmp_path)
    best, run_s = time_batches(session, tried, 8)
    sizes = [size for size, _ in run_s]
    assert sizes == [1, 2, 4, 8][: len(sizes)]
    assert best in (sizes[-1], sizes[-1] // 2)
    assert all(seconds > 0 for _, seconds in run_s)


def test_a_cloud_first_cut_is_asked_for_what_is_uploaded() -> None:
    made = made_up(manifests.cloud_first("c1", head_s=0.1, tail_s=0.2), {"n": 5})
    assert {name: array.shape for name, array in made.items()} == {"x": (1, 5)}


def test_a_request_alone_is_timed(tmp_path: Path) -> None:
    session, tried = opened(plain, tmp_path)
    assert 0 < time_alone(session, tried) < 1


def test_batches_beyond_the_limit_are_not_tried(tmp_path: Path) -> None:
    session, tried = opened(plain, tmp_path)
    assert time_batches(session, tried, 1) == (1, ())
    assert all(size <= 3 for size, _ in time_batches(session, tried, 3)[1])


def test_a_single_number_is_timed_but_never_joined(tmp_path: Path) -> None:
    """As the time step of an iteration is."""
    number = onnx.helper.make_tensor_value_info("step", TensorProto.FLOAT, [])
    model = models.model(
        [op("Mul", ["x", "step"], ["y"])], [floats("x", 1, 4), number], [floats("y", 1, 4)], []
    )
    assert not has_batch(model)
    assert not give_batch(model)
    inputs = (Input("x", "float32", (1, 4)), Input("step", "float32", ()))
    feeds = tuple(made_up_for(inputs, {}, index) for index in range(6))
    onnx.save_model(model, tmp_path / "m.onnx")
    opened = ort.session(tmp_path / "m.onnx", threads=1)
    assert time_alone(opened, Trial(feeds, tuple(ort.run(opened, feed) for feed in feeds), 1e-4)) > 0
