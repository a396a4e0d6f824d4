"""The door to ONNX Runtime: values go in and come out as they are, and differences are judged."""

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from splitc.common.errors import ModelError
from splitc.common.ort import blaming_inputs, run, session
from splitc.common.ort_messages import readable
from splitc.common.values import SAME, Input, difference, random_feeds, value_bytes
from tests import models
from tests.splitting import save


def test_bfloat16_goes_in_and_comes_out() -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [2, 16]) for name in "xy"]
    built = models.model([models.op("Identity", "x", "y")], ports[:1], ports[1:])
    values = random_feeds([Input("x", "bfloat16", (2, 16))], {}, 0)
    made = run(session(built.SerializeToString()), values)["y"]
    assert made.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(made.view(np.uint16), values["x"].view(np.uint16))


@pytest.mark.parametrize("dtype", [object, "U1"])
def test_strings_go_in(dtype: type | str) -> None:
    words = np.array([["a", "b"] * 8] * 2, dtype)
    feeds = {"word": words, "x": np.zeros((2, 16), np.float32)}
    assert run(session(models.string_input().SerializeToString()), feeds)["y"].shape == (2, 16)


def test_sequences_come_out() -> None:
    made = run(
        session(models.sequence_output().SerializeToString()), models.random_feeds(models.sequence_output())
    )
    assert [piece.shape for piece in made["y"]] == [(2, 1)] * 16


def test_inputs_that_do_not_fit_are_refused_in_one_line() -> None:
    opened = session(models.diamond().SerializeToString())
    for feeds in ({}, {"x": np.zeros((3, 3), np.float32)}, {"x": np.zeros((2, 16), np.int64)}):
        with pytest.raises(ModelError, match="cannot run the model on these inputs") as caught:
            run(opened, feeds)
        assert "\n" not in str(caught.value)


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    built = models.diamond()
    built.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"^ONNX Runtime [\d.]+ cannot load model.onnx: .*NoSuchOperator"):
        session(save(built, tmp_path))


LOCATED = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
SIGNATURE = "onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void(int)>&, const onnxruntime::ModelOptions&) "


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            (
                f"[ONNXRuntimeError] : 1 : FAIL : Load model from /a/m.onnx failed:{LOCATED}{SIGNATURE}"
                "Unsupported model IR version: 99, max supported IR version: 14\n"
            ),
            (
                "Unsupported model IR version: 99, max supported IR version: 14; install a newer onnxruntime, or export the "
                "model with an older opset and IR version"
            ),
        ),
        (
            (
                "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Mod node. Name:'' "
                "Status Message: element_wise_ops.cc:2421 operator() Integer modulo by zero"
            ),
            "Mod: Integer modulo by zero",
        ),
        (
            (
                "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running Gather node. "
                "Name:'e' Status Message: indices element out of data bounds, idx=-5"
            ),
            "Gather 'e': indices element out of data bounds, idx=-5",
        ),
        (
            (
                "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. Name:'r' Status "
                "Message: /o/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, "
                "bool) const asked == found was false. The input tensor cannot be reshaped. Input shape:{2,3}\n"
            ),
            "Reshape 'r': The input tensor cannot be reshaped. Input shape:{2,3}",
        ),
        ("/o/x.cc:7 void f::G(A<B(C)>, int) [with T = float] Too bad", "Too bad"),
        ("x.cc:7 Compute Too bad", "Too bad"),
        ("Node () Op (MatMul) [ShapeInferenceError] Incompatible dimensions", None),
        ("plain (words) of another kind", None),
        ("x.cc:7 no::end(of a signature", "no::end(of a signature"),
    ],
)
def test_messages_are_made_readable(message: str, reason: str | None) -> None:
    assert readable(message) == (reason or message)


def test_long_messages_end_between_words() -> None:
    assert readable("word " * 100) == "word " * 59 + "word ..."


def test_inputs_that_do_not_work_bring_advice() -> None:
    opened = session(models.diamond().SerializeToString())
    for known, words in ((True, "random inputs do not"), (False, "correct the"), (None, "give inputs that")):
        with pytest.raises(ModelError, match=f"{words}.*$"), blaming_inputs(are_random=known):
            run(opened, {})


def test_random_inputs_of_impossible_sizes() -> None:
    for shape in ((2**63 - 1,), (2**40, 2**40), (-3,)):
        with pytest.raises(ModelError, match=r"input 'f' of shape .* choose smaller sizes with --dim"):
            random_feeds([Input("f", "float32", shape)], {}, 0)


def test_random_feeds_have_types_and_sizes_and_come_again() -> None:
    inputs = [Input("f", "float16", ("n", 3)), Input("i", "int64", (50,)), Input("b", "bool", ())]
    first, again, other = (random_feeds(inputs, {"n": 4}, seed) for seed in (0, 0, 1))
    assert [(value.dtype.name, value.shape) for value in first.values()] == [
        ("float16", (4, 3)),
        ("int64", (50,)),
        ("bool", ()),
    ]
    assert set(first["i"]) == {0, 1}
    np.testing.assert_array_equal(first["f"], again["f"])
    assert (first["f"] != other["f"]).any()


def test_random_feeds_need_numbers_and_sizes() -> None:
    with pytest.raises(ModelError, match="input 's' is not a numeric tensor; give values with --samples"):
        random_feeds([Input("s", None, (1,))], {}, 0)
    with pytest.raises(ModelError, match="symbolic dimension 'n'; fix it with --dim n=SIZE"):
        random_feeds([Input("f", "float32", ("n",))], {}, 0)


@pytest.mark.parametrize(
    ("value", "nbytes"),
    [
        (np.zeros((2, 3), np.float32), 24),
        (np.zeros(3, ml_dtypes.bfloat16), 6),
        (np.array(["ab", "é"], object), 4 + 2 + 4 + 2),
        ([np.zeros(2, np.int64), np.zeros(1, np.int8)], 17),
        ([{"cat": 1.0, "bird": 2.0}], 4 + 3 + 8 + 4 + 4 + 8),
        (b"abc", 7),
        ([], 0),
    ],
    ids=["floats", "bfloat16", "strings", "sequence", "maps", "bytes", "nothing"],
)
def test_bytes_of_values(value: object, nbytes: int) -> None:
    assert value_bytes(value) == nbytes


def test_difference_is_relative_to_the_largest_value() -> None:
    want = np.array([1.0, -4.0], np.float32)
    found = difference(want + np.float32(0.5), want)
    assert (found.max_abs, found.max_rel) == (0.5, 0.125)
    assert difference(want, want) == SAME
    nothing = np.zeros(2, np.float32)
    assert difference(nothing + np.float32(0.25), nothing).max_rel == 0.25


def test_differences_of_several_values() -> None:
    small, large = np.array([0.001, 0.0], np.float32), np.array([4.0, 0.0], np.float32)
    worst = difference(small * 2, small) | difference(large + np.float32(0.5), large)
    assert (worst.max_abs, worst.max_rel, worst.differing, worst.values) == (0.5, 1.0, 3, 4)
    assert worst.largest == pytest.approx(0.001)  # what the largest relative difference is relative to
    steps = difference(np.array([1, 5, 3], np.uint8), np.array([1, 2, 4], np.uint8))
    assert (steps.max_abs, steps.max_rel, steps.differing, steps.is_countable) == (3, math.inf, 2, True)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array(["a"], object), np.array(["b"], object)),
        (np.zeros(2, np.float32), np.zeros(3, np.float32)),
        (np.zeros(2, np.float64), np.zeros(2, np.float32)),
        (np.array([math.nan]), np.array([0.0])),
        (np.array([0.0]), np.array([math.nan])),
        (np.array([math.inf]), np.array([-math.inf])),
        ([np.zeros(1)], [np.zeros(1), np.zeros(1)]),
        (np.zeros(1), [np.zeros(1)]),
        ({"a": 1.0}, {"b": 1.0}),
        ([{"a": 1.0}], {"a": 1.0}),
    ],
)
def test_what_is_simply_wrong(got: object, want: object) -> None:
    assert difference(got, want).max_rel == math.inf


def test_nan_and_infinity_at_the_same_places_are_equal() -> None:
    value = np.array([math.nan, math.inf, -math.inf, 2.0])
    assert difference(value.copy(), value) == SAME
    assert difference([{"a": value}], [{"a": value.copy()}]) == SAME
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))) == SAME
