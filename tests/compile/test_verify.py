"""A pair that computes something else is found, and named."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitc.common.errors import ModelError, VerifyError
from splitc.common.memory import memory_shortage
from splitc.compile.verify import Pair, Reference, Verified, reference, tolerance, verify
from tests import models

FEEDS = ({"x": np.ones((2, models.WIDTH), np.float32)}, {"x": np.full((2, models.WIDTH), -0.5, np.float32)})


def save(folder: Path, name: str, built: onnx.ModelProto) -> str:
    onnx.save_model(built, folder / name)
    return name


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """early_output, cut by hand after its first output: the head makes `a`, the tail `y`."""
    whole = models.early_output()
    save(tmp_path, "whole.onnx", whole)
    onnx.utils.extract_model(tmp_path / "whole.onnx", tmp_path / "head.onnx", ["x"], ["a"])
    onnx.utils.extract_model(tmp_path / "whole.onnx", tmp_path / "tail.onnx", ["a"], ["y"])
    return Pair("c1", tmp_path, "head.onnx", "tail.onnx")


def whole_of(pair: Pair, allowed: float = 1e-4) -> Reference:
    found = reference(pair.folder / "whole.onnx", FEEDS, allowed, 1)
    assert found is not None
    return found


def test_a_good_pair_is_checked_and_timed(pair: Pair) -> None:
    found = verify(pair, whole_of(pair), 1, timed=True)
    assert found.check is not None
    assert (found.check.seeds, found.check.tolerance) == (2, 1e-4)
    assert found.check.max_rel <= 1e-5
    assert found.head is not None
    assert found.tail is not None
    assert 0 < found.head.median_s < 1
    assert 0 < found.tail.median_s < 1
    assert verify(pair, whole_of(pair), 1, timed=False) == Verified(found.check, None, None)


def test_times_belong_to_the_side_that_ran(pair: Pair) -> None:
    found = verify(Pair("c0", pair.folder, "whole.onnx", None), whole_of(pair), 1, timed=True)
    assert found.head is not None
    assert found.tail is None
    found = verify(Pair("c2", pair.folder, None, "whole.onnx"), whole_of(pair), 1, timed=True)
    assert found.head is None
    assert found.tail is not None


def test_a_changed_weight_is_refused(pair: Pair) -> None:
    path = pair.folder / "tail.onnx"
    tail = onnx.load_model(path)
    (weights,) = (item for item in tail.graph.initializer if item.name == "y_w")
    values = numpy_helper.to_array(weights).copy()
    values[0, 0] += 1
    weights.CopyFrom(numpy_helper.from_array(values, "y_w"))
    onnx.save_model(tail, path)
    with pytest.raises(
        VerifyError, match=r"^cut c1: output 'y' differs from the whole model by .* allowed is 1e-04$"
    ):
        verify(pair, whole_of(pair), 1, timed=False)


def test_a_missing_output_is_refused(pair: Pair) -> None:
    with pytest.raises(VerifyError, match="cut c1: neither part makes the output 'y'"):
        verify(Pair("c1", pair.folder, "head.onnx", None), whole_of(pair), 1, timed=False)


def test_a_part_that_does_not_load_is_refused(pair: Pair) -> None:
    (pair.folder / "tail.onnx").write_bytes(b"nothing")
    with pytest.raises(VerifyError, match="cut c1 does not work: ONNX Runtime"):
        verify(pair, whole_of(pair), 1, timed=False)


def test_a_model_that_differs_from_itself_is_no_reference(tmp_path: Path) -> None:
    save(tmp_path, "whole.onnx", models.random_normal())
    assert reference(tmp_path / "whole.onnx", FEEDS, 1e-4, 1) is None


def test_a_model_that_does_not_run(tmp_path: Path) -> None:
    save(tmp_path, "whole.onnx", models.diamond())
    with pytest.raises(ModelError, match="cannot run the model on these inputs"):
        reference(tmp_path / "whole.onnx", [{"x": np.ones((3, 3), np.float32)}], 1e-4, 1)


@pytest.mark.parametrize(
    ("dtypes", "operators", "allowed"),
    [
        (["float32", None, "int64"], [], 1e-4),
        (["float64"], [], 1e-6),
        (["float32", "float16"], [], 2e-2),
        (["float16", "bfloat16"], [], 1e-1),
        (["int8", "bool"], [], 0.0),
        (["float32", "uint8"], ["Cast"], 1e-4),
        (["float32", "int8"], ["QuantizeLinear"], 2e-2),
        (["bfloat16"], ["DynamicQuantizeLinear"], 1e-1),
    ],
)
def test_tolerance(dtypes: list[str | None], operators: list[str], allowed: float) -> None:
    assert tolerance(dtypes, operators) == allowed


def functions(folder: Path, whole: str, other: str, dtype: int = TensorProto.FLOAT) -> Pair:
    """Two models of one node each, as reference and as pair."""
    for name, kind in (("whole.onnx", whole), ("other.onnx", other)):
        port = [helper.make_tensor_value_info(tensor, dtype, [4]) for tensor in "xy"]
        node = models.op(kind, "x", "y")
        save(folder, name, models.model([node], port[:1], port[1:]))
    return Pair("c0", folder, "other.onnx", None)


@pytest.mark.parametrize(
    ("whole", "other", "x", "agree"),
    [
        ("Log", "Log", [-1, 0, 1, 2], True),  # NaN, -inf and two numbers
        ("Log", "Sqrt", [-1, 1, 1, 1], False),
        ("Log", "Neg", [-1, 1, 1, 1], False),  # a number where NaN is due
        ("Neg", "Log", [-1, 1, 1, 1], False),  # NaN where a number is due
        ("Reciprocal", "Identity", [0, 1, 1, 1], False),  # a number where infinity is due
        ("Reciprocal", "Reciprocal", [0, 1, 1, 1], True),
    ],
    ids=["same", "one differs", "lost NaN", "new NaN", "lost infinity", "same infinity"],
)
def test_nan_and_infinity_have_their_places(
    whole: str, other: str, x: list[float], agree: bool, tmp_path: Path
) -> None:
    pair = functions(tmp_path, whole, other)
    against = reference(tmp_path / "whole.onnx", [{"x": np.array(x, np.float32)}], 1e-4, 1)
    assert against is not None
    if agree:
        assert verify(pair, against, 1, timed=False).check is not None
    else:
        with pytest.raises(VerifyError, match="output 'y' differs from the whole model by"):
            verify(pair, against, 1, timed=False)


def test_integers_are_exact(tmp_path: Path) -> None:
    pair = functions(tmp_path, "Identity", "Neg", TensorProto.INT32)
    against = reference(tmp_path / "whole.onnx", [{"x": np.array([0, 0, 0, 1], np.int32)}], 0.5, 1)
    assert against is not None
    with pytest.raises(VerifyError, match="differs"):
        verify(pair, against, 1, timed=False)


def test_bfloat16_is_compared(tmp_path: Path) -> None:
    pair = functions(tmp_path, "Identity", "Identity", TensorProto.BFLOAT16)
    against = reference(tmp_path / "whole.onnx", [{"x": np.array([1, 2, 3, 4], ml_dtypes.bfloat16)}], 0.1, 1)
    assert against is not None
    assert verify(pair, against, 1, timed=False).check is not None


def test_memory_shortage() -> None:
    assert memory_shortage(1000) is None
    assert "more memory than is free here" in (memory_shortage(10**15) or "")
    assert memory_shortage(1000, 4000) is None
    assert "4 kB, more memory than --build-memory allows" in (memory_shortage(1000, 3999) or "")
