"""Names: what is moved or invented never meets a namesake, whatever the names in bodies are."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitc.common.errors import ModelError
from splitc.common.ort import session
from splitc.model.model import load
from splitc.model.wellformed import NotUsable, check_names
from tests import models, splitting
from tests.models import op, value

FEW = "pqrkmn"
ROW = (1, 2)


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def feeds_of(built: onnx.ModelProto) -> list[dict[str, models.Array]]:
    """Every combination of conditions, with numbers of which none is the double of another."""
    flags = [port.name for port in built.graph.input if port.name != "x"]
    x = np.array([[1.25, -0.7]], np.float32)
    return [
        {"x": x + number, **{flag: np.array(on) for flag, on in zip(flags, found, strict=True)}}
        for number, found in enumerate(product((True, False), repeat=len(flags)))
    ]


def check_all(built: onnx.ModelProto, folder: Path, *, simplified: bool = False) -> int:
    """Compare every cut with the model on inputs that take each branch; return the number of cuts."""
    feeds = feeds_of(built)
    made = splitting.split(splitting.save(built, folder), folder, {}, feeds[0], simplified=simplified)
    against = splitting.whole(made, *feeds)
    assert against is not None
    found = splitting.cuts(made)
    for cut in found:
        splitting.check(made, cut, against)
    return len(found)


def test_a_weight_of_a_branch_does_not_shadow_what_a_loop_carries(tmp_path: Path) -> None:
    built = parsed("""g (float[1,2] x, bool c) => (float[1,2] z) <int64 n = {2}> {
        a = Relu (x)
        l = Loop (n, "", a) <body = b (int64 it, bool ci, float[1,2] acc) => (bool co, float[1,2] a2) {
            q = If (c) <
                then_branch = t () => (float[1,2] tb) <float[1,2] acc = {5, 5}> { tb = Add (a, acc) },
                else_branch = e () => (float[1,2] eb) { eb = Neg (a) }
            >
            a2 = Mul (acc, q)
            co = Identity (ci)
        }>
        z = Neg (l)
    }""")
    assert check_all(built, tmp_path) > 2


def test_a_constant_of_a_branch_may_be_called_as_a_tensor_of_the_other(tmp_path: Path) -> None:
    built = parsed("""g (float[1,2] x, bool c) => (float[1,2] z) {
        y = If (c) <
            then_branch = t () => (float[1,2] tb) { k = Constant <value_float = 2.0> () tb = Add (x, k) },
            else_branch = e () => (float[1,2] eb) { k = Neg (x) eb = Exp (k) }
        >
        z = Relu (y)
    }""")
    assert check_all(built, tmp_path) > 2


def test_a_constant_of_a_branch_may_be_called_as_a_later_tensor(tmp_path: Path) -> None:
    built = parsed("""g (float[1,2] x, bool c) => (float[1,2] z) {
        y = If (c) <
            then_branch = t () => (float[1,2] tb) <float[1,2] k = {5, 5}> { tb = Add (x, k) },
            else_branch = e () => (float[1,2] eb) { eb = Exp (x) }
        >
        k = Relu (y)
        z = Add (k, y)
    }""")
    assert check_all(built, tmp_path) > 2


def test_simplifying_does_not_confuse_values_in_bodies(tmp_path: Path) -> None:
    """onnxsim takes the r of a branch, which the first inputs do not take, for the r of the loop."""
    built = parsed("""g (float[1,2] x, bool c1) => (float[1,2] y) <int64 trips = {2}> {
        p = Sin (x)
        q = Loop (trips, "", x) <body = a (int64 turn, bool go, float[1,2] p) => (bool going, float[1,2] n) {
            n = Mul (x, p)
            going = Identity (go)
        }>
        r = Loop (trips, "", p) <body = b (int64 turn, bool go, float[1,2] q) => (bool going, float[1,2] r) {
            r = If (c1) <
                then_branch = yes () => (float[1,2] k) { k = Add (q, q) },
                else_branch = no () => (float[1,2] m) { r = Add (x, x) m = Mul (r, p) }
            >
            going = Identity (go)
        }>
        y = Add (q, r)
    }""")
    assert check_all(built, tmp_path, simplified=True) > 2


def test_a_name_that_is_outside_for_one_branch_and_inside_for_the_other_is_refused(tmp_path: Path) -> None:
    built = parsed("""g (float[1,2] x, bool c) => (float[1,2] z) {
        k = Neg (x)
        y = If (c) <
            then_branch = t () => (float[1,2] tb) <float[1,2] k = {5, 5}> { tb = Add (x, k) },
            else_branch = e () => (float[1,2] eb) { eb = Add (x, k) }
        >
        z = Relu (y)
    }""")
    with pytest.raises(ModelError, match=r"node 'eb' uses 'k' from outside of node 'y', and another body"):
        load(splitting.save(built, tmp_path))


def test_invented_names_of_nodes_are_free(tmp_path: Path) -> None:
    """A copy and an unnamed node would get names that other nodes have."""
    nodes = [
        op("QuantizeLinear", "x scale zero", "x/copy1"),
        op("DequantizeLinear", "x/copy1 scale zero", "d", name="y"),
        op("Relu", "d", "r", name="d/copy1"),
        op("Sigmoid", "d", "e", name="d/copy2"),
        op("Add", "r e", "y", name=""),
    ]
    weights = [value("scale", 0.1), value("zero", 128, "uint8")]
    built = models.model(nodes, [models.floats("x", *ROW)], [models.floats("y", *ROW)], weights)
    graph = load(splitting.save(built, tmp_path / "source")).ir.graph
    named = [node.name for node in graph]
    assert len({*named}) == len(named) == 6
    assert check_all(built, tmp_path) > 2


def test_a_tensor_that_is_called_like_a_copy_has_its_own_size(tmp_path: Path) -> None:
    nodes = [op("Relu", "x", "a"), op("ReduceSum", "a", "a/copy1"), op("Add", "a a/copy1", "y")]
    built = models.model(nodes, [models.floats("x", *ROW)], [models.floats("y", *ROW)])
    assert load(splitting.save(built, tmp_path)).changes.copies == {}


def test_an_unnamed_dimension_is_not_called_as_a_named_one(tmp_path: Path) -> None:
    ports = [models.floats("x", None, 4), models.floats("z", "x:0", 4)]
    nodes = [op("Relu", "x", "y"), op("Relu", "z", "u")]
    outputs = [models.floats("y", None, 4), models.floats("u", None, 4)]
    made = load(splitting.save(models.model(nodes, ports, outputs), tmp_path))
    assert [item.shape for item in made.inputs()] == [("x:0'", 4), ("x:0", 4)]


# --- any names in bodies ---


@st.composite
def branches(draw: st.DrawFn, outer: Sequence[str], depth: int, name: str) -> onnx.GraphProto:
    """A body without inputs: it defines what it likes under few names, and reads that and *outer*.

    ONNX Runtime refuses a node whose output is called as something outside that is known by then, but not a weight.
    """
    number = draw(st.integers(2, 9))
    weights, nodes, known = [], [], list(outer)
    for index, item in enumerate(draw(st.lists(st.sampled_from(FEW), max_size=2, unique=True))):
        content = [[number + index, -number]]
        if item in outer or draw(st.booleans()):
            weights.append(value(item, content))
        else:
            nodes.append(op("Constant", "", item, value=value("content", content), name=""))
        known = [*(other for other in known if other != item), item]
    target = ""
    for index in range(draw(st.integers(1, 2))):
        target = draw(
            st.sampled_from([item for item in FEW if item not in known] or [f"{name}_{depth}_{index}"])
        )
        nodes += draw(steps(known, target, depth))
        known.append(target)
    return onnx.helper.make_graph(nodes, name, [], [models.floats(target, *ROW)], weights)


@st.composite
def loop_bodies(draw: st.DrawFn, outer: Sequence[str], depth: int) -> onnx.GraphProto:
    """A body that carries a row, under one of few names."""
    carried = draw(st.sampled_from(FEW))
    known = [*(other for other in outer if other != carried), carried]
    target = draw(st.sampled_from([item for item in FEW if item not in known] or [f"loop_{depth}"]))
    nodes = [*draw(steps(known, target, depth)), op("Identity", "go", "going", name="")]
    ports = [
        onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
        onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
        models.floats(carried, *ROW),
    ]
    made = [
        onnx.helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
        models.floats(target, *ROW),
    ]
    return onnx.helper.make_graph(nodes, "loop", ports, made)


@st.composite
def steps(draw: st.DrawFn, known: Sequence[str], target: str, depth: int) -> list[onnx.NodeProto]:
    """One node that makes *target* of what is *known*."""
    kind = draw(st.sampled_from(["Add", "Mul", "If", "If", "Loop"] if depth else ["Add", "Mul"]))
    first, second = draw(st.sampled_from(known)), draw(st.sampled_from(known))
    if kind == "If":
        both = [draw(branches(known, depth - 1, side)) for side in ("yes", "no")]
        flag = draw(st.sampled_from(["c1", "c2"]))
        return [op("If", flag, target, then_branch=both[0], else_branch=both[1], name="")]
    if kind == "Loop":
        return [op("Loop", ["trips", "", first], target, body=draw(loop_bodies(known, depth - 1)), name="")]
    return [op(kind, [first, second], target, name="")]


@st.composite
def nested(draw: st.DrawFn) -> onnx.ModelProto:
    """A chain with an If or a Loop, in whose bodies names return."""
    nodes, known = [op("Sin", "x", "p", name="")], ["x", "p"]
    for target in ("q", "r"):
        nodes += draw(steps(known, target, depth=2))
        known.append(target)
    nodes += [op("Add", "q r", "y", name="")]
    flags = [onnx.helper.make_tensor_value_info(flag, onnx.TensorProto.BOOL, []) for flag in ("c1", "c2")]
    ports = [models.floats("x", *ROW), *flags]
    return models.model(nodes, ports, [models.floats("y", *ROW)], [value("trips", 2, "int64")])


@settings(max_examples=30, deadline=None)
@given(built=nested())
def test_every_cut_computes_the_same_whatever_names_return(
    built: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("nested")
    path = splitting.save(built, folder / "source")
    try:
        session(path)
    except ModelError:  # ONNX Runtime does not take all that ONNX allows
        assume(False)
    try:
        load(path)
    except ModelError:  # only for the reason that another test has
        check_names_refused(built)
        return
    check_all(built, folder)


def check_names_refused(built: onnx.ModelProto) -> None:
    with pytest.raises(NotUsable, match="from outside of"):
        check_names(built)
