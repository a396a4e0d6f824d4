"""What requests may be: exact where the manifest is exact."""

from collections.abc import Mapping

import numpy as np
import pytest

from splitc.bundle.manifest import TensorEntry
from splitc.common.errors import InputError, ModelError
from splitc.common.values import Array
from splitc.server.request_limits import check_inputs, check_made, rows, size_limits, wanted_outputs
from splitc.server.tails.part import File
from tests.server.serving import double, make_part

FIXED = TensorEntry("x", "float32", (1, 3), 12)
BATCHED = TensorEntry("x", "float32", ("batch", 3), 12)
MASK = TensorEntry("mask", "bool", ("batch", "?"), 4)
TEXT = TensorEntry("word", "string", (1,), None)


def zeros(**shapes: tuple[int, ...]) -> Mapping[str, Array]:
    return {name: np.zeros(shape, bool if name == "mask" else np.float32) for name, shape in shapes.items()}


def test_fixed_sizes_are_exact_and_symbolic_ones_generous() -> None:
    fixed = size_limits(make_part(inputs=(FIXED,)), None)
    assert fixed.raw_bytes == 12
    assert fixed.body_bytes(100) == 112
    assert fixed.body_bytes(None) == fixed.text_bytes == (64 << 10) + 32 * 12
    assert fixed.body_bytes(1 << 40) == fixed.text_bytes + 12
    large = TensorEntry("x", "float32", ("batch", 30_000), 120_000)
    assert size_limits(make_part(inputs=(large, MASK)), None).raw_bytes == 64 * 120_000 + (1 << 20)
    assert size_limits(make_part(inputs=(TEXT,)), None).raw_bytes == 64 << 20


def test_a_limit_of_the_operator_holds_for_all_forms() -> None:
    limits = size_limits(make_part(inputs=(TEXT,)), 1000)
    assert limits.body_bytes(None) == limits.body_bytes(10) == 1000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            zeros(),
            r"input 'x' of model 'made.c1' is missing; give 'x' FP32 \[batch, 3\], 'mask' BOOL \[batch, \?\]",
        ),
        (
            zeros(x=(2, 3), mask=(2, 4), z=(1,)),
            r"model 'made.c1' has no input 'z'; give 'x' FP32 \[batch, 3\]",
        ),
        (
            zeros(x=(2, 4), mask=(2, 4)),
            r"input 'x' of model 'made.c1' is FP32 \[2, 4\], but FP32 \[batch, 3\] is",
        ),
        (zeros(x=(3,), mask=(2, 4)), r"is FP32 \[3\], but FP32 \[batch, 3\] is wanted"),
        (zeros(x=(2, 3), mask=(5, 4)), r"is BOOL \[5, 4\], but BOOL \[batch, \?\] is wanted with batch = 2"),
        ({**zeros(mask=(2, 4)), "x": np.zeros((2, 3))}, r"is FP64 \[2, 3\], but FP32 \[batch, 3\] is wanted"),
    ],
    ids=["missing", "unknown", "dim", "rank", "disagree", "dtype"],
)
def test_wrong_inputs_are_told_what_is_wanted(inputs: Mapping[str, Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_inputs(make_part(inputs=(BATCHED, MASK)), inputs)


def test_right_inputs() -> None:
    check_inputs(make_part(inputs=(BATCHED, MASK)), zeros(x=(2, 3), mask=(2, 9)))
    check_inputs(make_part(inputs=(TEXT,)), {"word": np.array(["a"], object)})


def test_outputs() -> None:
    assert wanted_outputs(make_part(), None) == ("y",)
    assert wanted_outputs(make_part(), ("y",)) == ("y",)
    with pytest.raises(InputError, match=r"model 'made\.c1' has no output 'yy', did you mean 'y'"):
        wanted_outputs(make_part(), ("yy",))


def test_what_cannot_be_batched_takes_a_whole_batch() -> None:
    file = File("made", 8, double)
    assert rows(file, zeros(x=(2, 3), mask=(2, 4))) == 2
    assert rows(file, zeros(x=(2, 3), mask=(3, 4))) == 8
    assert rows(file, zeros(x=(0, 3), mask=(0, 4))) == 8
    assert rows(file, zeros(x=(), mask=(2, 4))) == 8
    assert rows(file, {}) == 8
    assert rows(File("made", 1, double), zeros(x=(2, 3))) == 1


def test_sizes_that_no_input_has_are_the_same_in_all_outputs() -> None:
    outputs = tuple(TensorEntry(name, "float32", ("n", "?"), None) for name in ("y", "z"))
    part = make_part(inputs=(FIXED,), outputs=outputs)
    check_made(part, zeros(y=(2, 3), z=(2, 5)), {})
    check_made(part, zeros(z=(7, 1)), {})
    with pytest.raises(
        ModelError, match=r"made 'z' of shape \[1, 5\], but it declares FP32 \[n, \?\] with n = 2"
    ):
        check_made(part, zeros(y=(2, 3), z=(1, 5)), {})
