"""A cut may differ from the whole as far as rounding explains, and no further."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from splitc.bundle.manifest import BoundaryEntry, CutEntry, PartEntry
from splitc.bundle.program import Program
from splitc.common.errors import VerifyError
from splitc.common.values import Array, Difference, difference
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.verification import judgement
from splitc.compile.verification.judgement import Allowed, Evidence, judge
from splitc.compile.verification.origins import Origin, origins
from splitc.compile.verification.verify import Runner, VerifiedCut, reference, verify_cuts
from splitc.compile.verification.whole import Whole, files_in, whole_as_given
from tests import models

UINT8, INT64, BOOL = TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL


@dataclass(frozen=True)
class Rounded:
    """How a model makes whole numbers of the floats `f`, and the values that it needs for that."""

    nodes: list[NodeProto]
    dtype: int
    values: dict[str, tuple[object, str]]


CAST = Rounded([models.op("Cast", "f", "y", to=UINT8)], UINT8, {})
ROUND = Rounded(
    [models.op("Round", "f", "r"), models.op("Cast", "r", "c", to=UINT8), models.op("Reshape", "c s", "y")],
    UINT8,
    {"s": ([1, -1], "int64")},
)
FLOATS = Rounded([models.op("Floor", "f", "y")], TensorProto.FLOAT, {})
QUANTIZE = Rounded(
    [models.op("QuantizeLinear", "f one zero", "y")], UINT8, {"one": (1.0, "float32"), "zero": (0, "uint8")}
)
MASK = Rounded([models.op("Greater", "f half", "y")], BOOL, {"half": (100.5, "float32")})
ROUNDINGS = {"cast": CAST, "round": ROUND, "floats": FLOATS, "quantize": QUANTIZE, "mask": MASK}
ARG_MAX = Rounded([models.op("ArgMax", "f", "y", axis=1, keepdims=0)], INT64, {})


def saved(folder: Path, name: str, how: Rounded, change: Array) -> None:
    """A model that adds *change* to its input, and then rounds."""
    rows = list(change.shape)
    values = [models.value(key, content, dtype) for key, (content, dtype) in how.values.items()]
    made = models.model(
        [models.op("Add", "x change", "f"), *how.nodes],
        [models.floats("x", *rows)],
        [helper.make_tensor_value_info("y", how.dtype, None)],
        [models.value("change", change), *values],
    )
    onnx.save_model(made, folder / name)


def cut_of(head: str) -> CutEntry:
    part = PartEntry(file=head, latency_s=1.0, source="measured", interval=None, weight_bytes=0)
    return CutEntry("c0", "all-head", part, None, (), 0, 0, None)


def verified(
    folder: Path,
    x: Array,
    allowed: Allowed = Allowed(1e-4),  # noqa: B008 - frozen
    cut: CutEntry | None = None,
) -> VerifiedCut:
    against = reference(whole_as_given(load_pipeline(folder / "whole.onnx")), [{"x": x}], allowed, 1)
    assert against is not None
    files = files_in(folder)
    (found,) = verify_cuts(
        [cut or cut_of("other.onnx")], files, against, Runner(files.path, 1), lambda _: None
    )
    return found


def off(shape: Sequence[int], places: int, by: float) -> Array:
    """Zeros, but *by* at the first *places*."""
    change = np.zeros(shape, np.float32)
    change.ravel()[:places] = by
    return change


def pair(folder: Path, how: Rounded, shape: Sequence[int], places: int, by: float) -> None:
    saved(folder, "whole.onnx", how, off(shape, 0, 0.0))
    saved(folder, "other.onnx", how, off(shape, places, by))


IMAGE = np.full((1, 4000), 100.5 - 1e-4, np.float32)
IMAGE[:, -1] = 255
EDGE = {"cast": IMAGE + np.float32(0.5), "floats": IMAGE + np.float32(0.5)}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_few_whole_numbers_may_be_one_step_off(name: str, tmp_path: Path) -> None:
    pair(tmp_path, ROUNDINGS[name], IMAGE.shape, 4, 2e-4)
    found = verified(tmp_path, EDGE.get(name, IMAGE))
    assert found.check.max_abs == 1
    assert found.check.max_rel <= found.check.tolerance
    assert found.cut.id == "c0"


@pytest.mark.parametrize("name", ["cast", "round", "quantize", "mask"])
def test_many_may_not(name: str, tmp_path: Path) -> None:
    pair(tmp_path, ROUNDINGS[name], IMAGE.shape, 40, 2e-4)
    with pytest.raises(
        VerifyError,
        match=r"^cut c0: output 'y' differs from the whole model in 40 of 4000 values by at most 1 step; "
        r"unoptimised, the whole model itself differs in 0 of them; give real inputs with --samples FILE\.npz, "
        r"or allow more with --tolerance REL$",
    ):
        verified(tmp_path, EDGE.get(name, IMAGE))


def test_more_than_a_step_may_not(tmp_path: Path) -> None:
    pair(tmp_path, QUANTIZE, IMAGE.shape, 4, 2.0)
    with pytest.raises(VerifyError, match="in 4 of 4000 values by at most 2 steps"):
        verified(tmp_path, IMAGE)


def test_a_note_says_what_was_let_pass(tmp_path: Path) -> None:
    pair(tmp_path, CAST, IMAGE.shape, 4, 2e-4)
    found = verified(tmp_path, EDGE["cast"])
    (note,) = judgement.notes([("c0", found.unusual), ("c3", found.unusual)])
    assert note == (
        "output 'y' of cuts c0, c3 differs from the whole model in 4 of 4000 values by at most 1 step, "
        "which the rounding of floats to whole numbers explains"
    )


@pytest.mark.parametrize(
    ("rows", "places", "is_right"), [(20000, 1, True), (20000, 9, False), (10, 1, False)]
)
def test_an_index_may_be_another_where_values_tie(
    rows: int, places: int, is_right: bool, tmp_path: Path
) -> None:
    whole, other = off((rows, 2), 0, 0.0), off((rows, 2), 0, 0.0)
    other[:places, 1] = 1e-6
    saved(tmp_path, "whole.onnx", ARG_MAX, whole)
    saved(tmp_path, "other.onnx", ARG_MAX, other)
    x = np.zeros((rows, 2), np.float32)
    if is_right:
        assert verified(tmp_path, x).unusual
    else:
        with pytest.raises(VerifyError, match=f"in {places} of {rows} values"):
            verified(tmp_path, x)
        assert verified(tmp_path, x, Allowed(0.1, is_asked=True)).unusual


def test_whole_numbers_that_no_float_made_are_equal(tmp_path: Path) -> None:
    port = [helper.make_tensor_value_info(name, INT64, [4000]) for name in "xy"]
    for name, more in (("whole.onnx", 0), ("other.onnx", 1)):
        change = np.zeros(4000, np.int64)
        change[0] = more
        nodes = [models.op("Add", "x change", "y")]
        made = models.model(nodes, port[:1], port[1:], [models.value("change", change, "int64")])
        onnx.save_model(made, tmp_path / name)
    with pytest.raises(
        VerifyError, match="in 1 of 4000 values by at most 1 step, but rounding cannot explain"
    ):
        verified(tmp_path, np.zeros(4000, np.int64))


def sensitive(path: Path, bias: float = 0.0) -> None:
    """A model whose result depends on the last digits of a Conv, which ONNX Runtime fuses with its neighbour."""
    channels = 8
    statistics = {
        "scale": np.linspace(0.5, 3, channels),
        "bias": np.full(channels, bias),
        "mean": np.linspace(-1, 1, channels),
        "var": np.linspace(0.1, 9, channels),
    }
    nodes = [
        models.op("Conv", "x w", "c"),
        models.op("BatchNormalization", "c scale bias mean var", "n"),
        models.op("Mul", "n much", "m"),
        models.op("Sin", "m", "y"),
    ]
    values = [models.weight("w", channels, 3, 3, 3), models.value("much", 3000.0)]
    values += [models.value(name, value) for name, value in statistics.items()]
    made = models.model(
        nodes, [models.floats("x", 1, 3, 16, 16)], [models.floats("y", 1, channels, 14, 14)], values
    )
    onnx.save_model(made, path)


def unfused(folder: Path, bias: float) -> VerifiedCut:
    """The cut of the sensitive model between the two nodes that would be fused; the tail adds *bias*."""
    sensitive(folder / "whole.onnx")
    sensitive(folder / "other.onnx", bias)
    onnx.utils.extract_model(folder / "whole.onnx", folder / "head.onnx", ["x"], ["c"])
    onnx.utils.extract_model(folder / "other.onnx", folder / "tail.onnx", ["c"], ["y"])
    head, tail = (
        PartEntry(file=name, latency_s=1.0, source="measured", interval=None, weight_bytes=0)
        for name in ("head.onnx", "tail.onnx")
    )
    crosses = (BoundaryEntry("c", "float32", (1, 8, 14, 14), 6272),)
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    return verified(folder, x, cut=CutEntry("c1", "split", head, tail, crosses, 6272, 6272, None))


def test_what_moves_the_unoptimised_model_may_move_a_cut(tmp_path: Path) -> None:
    found = unfused(tmp_path, 0.0)
    assert 1e-4 < found.check.max_rel <= found.check.tolerance < 0.1
    (note,) = judgement.notes([("c1", found.unusual)])
    assert note.startswith("output 'y' of cut c1 differs from the whole model by 0.00")
    assert note.endswith("when it is not optimised")


def test_a_wrong_cut_of_such_a_model_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(
        VerifyError, match=r"^cut c1: output 'y' differs .* allowed is 0\.0\d+; give real inputs"
    ):
        unfused(tmp_path, 1e-3)


@pytest.mark.parametrize(
    ("nodes", "origin"),
    [
        ([models.op("Cast", "x", "y", to=UINT8)], "given"),
        ([models.op("Greater", "x x", "y")], "given"),
        (
            [models.op("Relu", "x", "r"), models.op("Greater", "r x", "g"), models.op("Not", "g", "y")],
            "rounded",
        ),
        (
            [
                models.op("Relu", "x", "r"),
                models.op("Cast", "r", "i", to=INT64),
                models.op("Add", "i i", "y"),
            ],
            "chosen",
        ),
        ([models.op("Relu", "x", "r"), models.op("NonZero", "r", "y")], "chosen"),
        ([models.op("Shape", "x", "s"), models.op("Add", "s s", "y")], "given"),
        ([models.op("Relu", "x", "r"), models.op("Shape", "r", "y")], "chosen"),
        (
            [models.op("Relu", "x", "r"), models.op("Round", "r", "i"), models.op("Add", "i x", "y")],
            "computed",
        ),
    ],
)
def test_origins(nodes: list[NodeProto], origin: Origin, tmp_path: Path) -> None:
    result = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    made = onnx.shape_inference.infer_shapes(models.model(nodes, [models.floats("x", 2, 3)], [result]))
    onnx.save_model(made, tmp_path / "whole.onnx")
    assert origins(whole_as_given(load_pipeline(tmp_path / "whole.onnx")))["y"] == origin


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (1e-4, "0.0001"), (1.0, "1"), (0.000149, "0.00015"), (255.0, "260"), (3e-8, "3.0e-08")],
)
def test_numbers_are_plain(number: float, text: str) -> None:
    assert judgement.plain(number) == text


def test_what_the_types_explain_costs_no_second_run(tmp_path: Path) -> None:
    saved(tmp_path, "whole.onnx", CAST, off((1, 4), 0, 0.0))

    def plain() -> tuple[dict[str, Array], ...]:
        raise AssertionError("the whole ran again")

    whole = whole_as_given(load_pipeline(tmp_path / "whole.onnx"))
    evidence = Evidence(whole, ({"y": np.zeros(4)},), plain)
    small = Difference(1e-5, 1e-5, values=4, differing=4, largest=1.0)
    assert judge("y", small, Allowed(1e-4), evidence).is_usual
    with pytest.raises(AssertionError, match="ran again"):
        judge("y", Difference(1.0, 1.0, values=4, differing=4, largest=1.0), Allowed(1e-4), evidence)


def test_nan_in_one_of_the_two_is_wrong_whatever_the_model_itself_does() -> None:
    got, want = np.array([1.0, math.nan], np.float32), np.array([1.0, 2.0], np.float32)
    found = difference(got, want)
    assert judgement.difference_in_words(found) == (
        "differs from the whole model in 1 of 2 values: 1 time only one of the two is NaN or infinite"
    )
    whole = Whole(Program(None, (), None, None), ("y",), {}, (), files_in(Path()), frozenset())
    moved = Evidence(whole, ({"y": want},), lambda: ({"y": got},))
    assert not judge("y", found, Allowed(1e-4), moved).is_right
    assert judge("y", difference(got, got), Allowed(1e-4), moved).is_usual


def test_a_length_may_differ_where_that_of_the_model_does() -> None:
    whole = Whole(Program(None, (), None, None), ("y",), {}, (), files_in(Path()), frozenset())
    want = np.zeros((3, 2), np.int64)
    found = difference(np.zeros((4, 2), np.int64), want)
    steady = Evidence(whole, ({"y": want},), lambda: ({"y": want},))
    moved = Evidence(whole, ({"y": want},), lambda: ({"y": np.zeros((5, 2), np.int64)},))
    assert not judge("y", found, Allowed(1e-4), steady).is_right
    judged = judge("y", found, Allowed(1e-4), moved)
    assert judged.is_right
    (note,) = judgement.notes([("c1", {"y": judged})])
    assert note == (
        "output 'y' of cut c1 has the shape (4, 2), not (3, 2), and the whole model itself another one when it is not "
        "optimised: give inputs that tell more with --samples"
    )
