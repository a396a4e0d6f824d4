"""A pair that computes something else is found, and named."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitc.bundle.manifest import BoundaryEntry, CheckEntry, CutEntry, PartEntry
from splitc.common.cache import Cache
from splitc.common.errors import ModelError, VerifyError
from splitc.common.memory import memory_shortage
from splitc.common.values import Feeds
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.timings import PartTimer
from splitc.compile.verification.judgement import Allowed
from splitc.compile.verification.verify import Reference, Runner, reference, tolerance, verify_cuts
from splitc.compile.verification.whole import files_in, whole_as_given
from splitc.solve.cuts import Kind
from tests import models

FEEDS = ({"x": np.ones((2, models.WIDTH), np.float32)}, {"x": np.full((2, models.WIDTH), -0.5, np.float32)})


@dataclass(frozen=True)
class Pair:
    """A cut by hand, and the folder with its files and whole.onnx."""

    folder: Path
    cut: CutEntry


def save(folder: Path, name: str, built: onnx.ModelProto) -> str:
    onnx.save_model(built, folder / name)
    return name


def cut_of(name: str, head: str | None, tail: str | None) -> CutEntry:
    def part(file: str | None) -> PartEntry | None:
        if file is None:
            return None
        return PartEntry(file=file, latency_s=9.0, source="measured", interval=None, weight_bytes=0)

    sent = {"split": ["a"], "all-head": [], "all-tail": ["x"]}
    kind: Kind = "split" if head and tail else "all-head" if head else "all-tail"
    boundary = tuple(BoundaryEntry(name, "float32", (2, models.WIDTH), 1) for name in sent[kind])
    return CutEntry(name, kind, part(head), part(tail), boundary, 1, 1, None)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """early_output, cut by hand after its first output: the head makes `a`, the tail `y`."""
    whole = models.early_output()
    save(tmp_path, "whole.onnx", whole)
    onnx.utils.extract_model(tmp_path / "whole.onnx", tmp_path / "head.onnx", ["x"], ["a"])
    onnx.utils.extract_model(tmp_path / "whole.onnx", tmp_path / "tail.onnx", ["a"], ["y"])
    return Pair(tmp_path, cut_of("c1", "head.onnx", "tail.onnx"))


def known(folder: Path, feeds: Sequence[Feeds] = FEEDS, allowed: float = 1e-4) -> Reference | None:
    return reference(whole_as_given(load_pipeline(folder / "whole.onnx")), feeds, Allowed(allowed), 1)


def whole_of(pair: Pair, feeds: Sequence[Feeds] = FEEDS, allowed: float = 1e-4) -> Reference:
    found = known(pair.folder, feeds, allowed)
    assert found is not None
    return found


def verify(pair: Pair, against: Reference) -> CheckEntry:
    files = files_in(pair.folder)
    (found,) = verify_cuts([pair.cut], files, against, Runner(files.path, 1), lambda _: None)
    assert found.cut == pair.cut
    return found.check


def test_a_good_pair_is_checked(pair: Pair) -> None:
    found = verify(pair, whole_of(pair))
    assert (found.seeds, found.tolerance) == (2, 1e-4)
    assert found.max_rel <= 1e-5


@pytest.mark.parametrize("device", [True, False], ids=["device here", "device elsewhere"])
@pytest.mark.parametrize("cloud", [True, False], ids=["cloud here", "cloud elsewhere"])
def test_the_parts_that_run_here_are_timed(device: bool, cloud: bool, pair: Pair) -> None:
    files = files_in(pair.folder)
    runner = Runner(files.path, 1)
    timer = PartTimer(Cache(None), runner, is_device_here=device, is_cloud_here=cloud)
    for found in verify_cuts([pair.cut], files, whole_of(pair), runner, lambda _: None):
        timed = timer.timed(found.cut, found.calls, ())
    assert timed.head is not None
    assert timed.tail is not None
    for part, is_here in ((timed.head, device), (timed.tail, cloud)):
        if is_here:
            assert 0 < part.latency_s < 1
            assert part.interval is not None
            assert part.interval[0] <= 1 <= part.interval[1]
        else:
            assert (part.latency_s, part.interval) == (9.0, None)


def test_a_changed_weight_is_refused(pair: Pair) -> None:
    path = pair.folder / "tail.onnx"
    tail = onnx.load_model(path)
    (weights,) = (item for item in tail.graph.initializer if item.name == "y_w")
    values = numpy_helper.to_array(weights).copy()
    values[0, 0] += 1
    weights.CopyFrom(numpy_helper.from_array(values, "y_w"))
    onnx.save_model(tail, path)
    with pytest.raises(
        VerifyError,
        match=r"^cut c1: output 'y' differs from the whole model by 0\.\d+ of its largest value [\d.]+; allowed is 0\.0001; ",
    ):
        verify(pair, whole_of(pair))


def test_a_missing_output_is_refused(pair: Pair) -> None:
    alone = replace(pair, cut=cut_of("c1", "head.onnx", None))
    with pytest.raises(VerifyError, match="cut c1: neither part makes the output 'y'"):
        verify(alone, whole_of(pair))


def test_a_tail_gets_only_what_the_cut_says_crosses(pair: Pair) -> None:
    lacking = replace(pair, cut=replace(pair.cut, boundary=()))
    with pytest.raises(VerifyError, match="cut c1: it does not work: ONNX Runtime cannot run the model"):
        verify(lacking, whole_of(pair))


def test_a_part_that_does_not_load_is_refused(pair: Pair) -> None:
    (pair.folder / "tail.onnx").write_bytes(b"nothing")
    with pytest.raises(VerifyError, match="cut c1: it does not work: ONNX Runtime"):
        verify(pair, whole_of(pair))


def test_a_model_that_differs_from_itself_is_no_reference(tmp_path: Path) -> None:
    save(tmp_path, "whole.onnx", models.random_normal())
    assert known(tmp_path) is None


def test_a_model_that_does_not_run(tmp_path: Path) -> None:
    save(tmp_path, "whole.onnx", models.diamond())
    with pytest.raises(ModelError, match="cannot run the model on these inputs"):
        known(tmp_path, [{"x": np.ones((3, 3), np.float32)}])


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
    return Pair(folder, cut_of("c0", "other.onnx", None))


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
    against = whole_of(pair, [{"x": np.array(x, np.float32)}], 1e-4)
    if agree:
        assert verify(pair, against).seeds == 1
    else:
        with pytest.raises(VerifyError, match="output 'y' differs from the whole model"):
            verify(pair, against)


def test_integers_are_exact(tmp_path: Path) -> None:
    pair = functions(tmp_path, "Identity", "Neg", TensorProto.INT32)
    against = whole_of(pair, [{"x": np.array([0, 0, 0, 1], np.int32)}], 0.5)
    with pytest.raises(VerifyError, match="differs"):
        verify(pair, against)


def test_bfloat16_is_compared(tmp_path: Path) -> None:
    pair = functions(tmp_path, "Identity", "Identity", TensorProto.BFLOAT16)
    against = whole_of(pair, [{"x": np.array([1, 2, 3, 4], ml_dtypes.bfloat16)}], 0.1)
    assert verify(pair, against).seeds == 1


def test_memory_shortage() -> None:
    assert memory_shortage(1000) is None
    assert "more memory than is free here" in (memory_shortage(10**15) or "")
    assert memory_shortage(1000, 4000) is None
    assert "4 kB, more memory than --build-memory allows" in (memory_shortage(1000, 3999) or "")
