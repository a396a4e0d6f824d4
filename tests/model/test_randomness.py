"""Random operators are known from the model, wherever they hide."""

from pathlib import Path

import onnx
import pytest

from splitc.bundle.manifest import CallEntry, LoopEntry, StageEntry
from splitc.compile.check import check_bundle, open_to_check
from splitc.compile.compile import Compiled
from splitc.compile.verification.whole import random_values
from splitc.model.model import load
from splitc.model.randomness import random_outputs
from tests import models
from tests.models import X, Y, dense, dense_weights, floats, op, value
from tests.running import compile_here
from tests.splitting import save

ROW = (2, models.WIDTH)
YES, NO = value("yes", True, "bool"), value("no", False, "bool")


def found(nodes: list[onnx.NodeProto], folder: Path, **options: object) -> frozenset[str]:
    weights = [YES, NO, value("ratio", 0.5), value("bias", [0.0] * models.WIDTH), *dense_weights("a", "u")]
    outputs = [Y, floats("u", *ROW)]
    built = models.model([*dense("x", "a"), *dense("a", "u"), *nodes], [X], outputs, weights, **options)  # type: ignore[arg-type]
    return random_outputs(load(save(built, folder)))


@pytest.mark.parametrize(
    "node",
    [
        op("RandomNormalLike", "a", "r"),
        op("RandomUniformLike", "a", "r", seed=1.0),
        op("Bernoulli", "a", "r"),
        op("Dropout", "a ratio yes", "r"),
        op("If", "no", "r", then_branch=models.body([op("RandomNormalLike", "a", "t")], [floats("t", *ROW)]),
           else_branch=models.body([op("Identity", "a", "e")], [floats("e", *ROW)])),
    ],
    ids=lambda node: node.op_type,
)  # fmt: skip
def test_what_depends_on_a_random_operator_is_random(node: onnx.NodeProto, tmp_path: Path) -> None:
    assert found([node, op("Add", "a r", "y")], tmp_path) == {"y"}


@pytest.mark.parametrize("inputs", ["a", "a ratio", "a ratio no"])
def test_dropout_is_random_only_in_training(inputs: str, tmp_path: Path) -> None:
    assert found([op("Dropout", inputs, "r"), op("Add", "a r", "y")], tmp_path) == frozenset()


def test_functions_are_looked_into(tmp_path: Path) -> None:
    inner = models.function("Inner", "p", "q", [op("RandomNormalLike", "p", "n"), op("Add", "p n", "q")])
    outer = models.function("Outer", "p", "q", [op("local.Inner", "p", "q")])
    calm = models.function("Calm", "p", "q", [op("Tanh", "p", "q")])
    options = {"functions": [inner, outer, calm], "local": 1}
    assert found([op("local.Outer", "a", "y")], tmp_path, **options) == {"y"}
    assert found([op("local.Calm", "a", "y")], tmp_path, **options) == frozenset()


def sampler() -> onnx.ModelProto:
    """A sampler whose one class is drawn nearly always: two runs mostly agree."""
    nodes = [
        *dense("x", "a"),
        op("Mul", "a zeros", "b"),
        op("Add", "b logits", "c"),
        op("Multinomial", "c", "t", sample_size=1),
        op("Cast", "t", "y", to=onnx.TensorProto.FLOAT),
    ]
    weights = [*dense_weights("a"), value("zeros", [0.0]), value("logits", [[3.0] + [0.0] * 15] * 2)]
    return models.model(nodes, [X], [floats("y", 2, 1)], weights)


def compiled(built: onnx.ModelProto, folder: Path) -> Compiled:
    return compile_here(save(built, folder / "source"), folder / "bundle", simplify=True)


def test_a_sampler_is_never_compared(tmp_path: Path) -> None:
    for number in range(3):
        made = compiled(sampler(), tmp_path / str(number))
        assert all(cut.check is None for cut in made.manifest.cuts)
        assert any("gives another result each time" in note for note in made.manifest.notes)


def test_what_does_not_depend_on_it_is_compared(tmp_path: Path) -> None:
    built = sampler()
    built.graph.output.append(floats("a", *ROW))
    made = compiled(built, tmp_path)
    assert all(cut.check is not None for cut in made.manifest.cuts)
    note = "output 'y' was not compared: it depends on a random operator"
    assert note in made.manifest.notes
    assert note in check_bundle(open_to_check(made.folder), None, (), lambda _: None).notes


def test_what_a_loop_carries_becomes_random() -> None:
    loop = StageEntry("loop", (CallEntry("step", {"s": "state", "n": "noise"}, {"o": "state"}),),
                      LoopEntry(0, 3, {"state": "x"}, {}))  # fmt: skip
    last = StageEntry("last", (CallEntry("end", {"i": "x"}, {"o": "calm"}),))
    first = StageEntry("first", (CallEntry("draw", {"x": "x"}, {"n": "noise", "c": "shape"}),))
    files = {"draw": frozenset("n"), "step": frozenset[str](), "end": frozenset[str]()}
    assert random_values((first, loop, last), files) == {"noise", "state"}
