"""What a private tensor can be recovered from stays on the device, in every cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from splitc.common.errors import NoFeasibleCut
from splitc.compile.compile import Compiled
from splitc.compile.limits import LimitOptions, read_limits
from splitc.solve.costs import Costs
from splitc.solve.cuts import place
from splitc.solve.pins import device_reasons
from tests.compile.pipeline.making import Made, analysed, closures, compiled
from tests.models import WIDTH, body, dense, dense_weights, floats, function, model, op, value, weight
from tests.running import compile_here

CHANNELS, SIDE = 4, 8
BOTH: Any = ("device-first", "cloud-first")


def save(built: ModelProto, folder: Path, name: str = "model") -> Path:
    path = folder / f"{name}.onnx"
    onnx.save_model(built, path)
    return path


def image_model(nodes: Sequence[NodeProto], last: str, channels: int = CHANNELS, **more: Any) -> ModelProto:
    """Nodes on an image, then two convolutions."""
    weights = [
        weight("p_w", 6, channels, 3, 3),
        weight("y_w", 2, 6, 3, 3),
        value("half", 0.5),
        value("mean", np.arange(CHANNELS).reshape(1, CHANNELS, 1, 1) / 3),
        *more.pop("weights", ()),
    ]
    rest = [
        op("Conv", [last, "p_w"], "p_c", strides=[2, 2], pads=[1, 1, 1, 1]),
        op("Tanh", "p_c", "p"),
        op("Conv", "p y_w", "y_c", pads=[1, 1, 1, 1]),
        op("Tanh", "y_c", "y"),
    ]
    inputs = [floats("image", 1, CHANNELS, SIDE, SIDE), *more.pop("inputs", ())]
    return model(
        [*nodes, *rest], inputs, [floats("y", 1, 2, None, None), *more.pop("outputs", ())], weights, **more
    )


def recoverable(made: Made, *private: str) -> set[str]:
    limits = read_limits(LimitOptions(private=private), made.found, made.unrolled)
    return {made.unrolled.values[index] for index in limits.recoverable}


def crossing(compiled: Compiled) -> set[str]:
    """Every tensor that goes up in any cut."""
    return {tensor.name for cut in compiled.manifest.cuts if cut.cloud for tensor in cut.sent}


ONE_NODE: dict[str, NodeProto] = {
    "transposed": op("Transpose", "image", "t", perm=[0, 1, 3, 2]),
    "cast": op("Cast", "image", "t", to=TensorProto.DOUBLE),
    "scaled": op("Mul", "half image", "t"),
    "shifted": op("Sub", "image mean", "t"),
    "squashed": op("Sigmoid", "image", "t"),
    "clipped": op("Clip", ["image", "", "half"], "t"),
    "padded": op("Pad", "image", "t", mode="constant"),
    "negated": op("Neg", "image", "t"),
    "enlarged": op("Resize", ["image", "", "scales"], "t"),
    "cut out": op("Slice", "image starts ends", "t"),
    "picked": op("Gather", "image rows", "t", axis=2),
    "normalised": op("InstanceNormalization", "image ones zeros", "t"),
    "scaled by channel": op("Conv", "image each", "t", group=CHANNELS),
}


@pytest.mark.parametrize("name", ONE_NODE)
def test_an_operator_that_loses_nothing_hides_nothing(name: str, tmp_path: Path) -> None:
    extra = [
        value("scales", [1.0, 1.0, 2.0, 2.0]),
        value("starts", [0, 0, 1, 0], "int64"),
        value("ends", [1, CHANNELS, SIDE, SIDE], "int64"),
        value("rows", [0, 2, 4, 6], "int64"),
        value("ones", [1.0] * CHANNELS),
        value("zeros", [0.0] * CHANNELS),
        weight("each", CHANNELS, 1, 1, 1),
        value("pads", [0, 0, 1, 1, 0, 0, 1, 1], "int64"),
    ]
    node = onnx.NodeProto()
    node.CopyFrom(ONE_NODE[name])
    if node.op_type == "Pad":
        node = op("Pad", "image pads", "t")
    nodes = [node]
    if name == "cast":
        nodes = [node, op("Cast", "t", "back", to=TensorProto.FLOAT)]
    built = image_model(nodes, nodes[-1].output[0], weights=extra)
    compiled = compile_here(
        save(built, tmp_path), tmp_path / "bundle", limits=LimitOptions(private=("image",)), directions=BOTH
    )
    sent = crossing(compiled)
    assert sent
    assert sent.isdisjoint({"image", "t", "back"})


# --- one graph each: which tensors tell of a private one, by hand ---


def concatenated() -> ModelProto:
    """The image is a part of t; the depth is as well, but says nothing of the image."""
    nodes = [op("Concat", "image depth", "t", axis=1), op("Transpose", "depth", "d", perm=[0, 1, 3, 2])]
    depth = floats("depth", 1, 1, SIDE, SIDE)
    more = [*dense_like("d", "e"), op("Identity", "e", "z")]
    return image_model(
        [*nodes, *more], "t", CHANNELS + 1, inputs=[depth], outputs=[floats("z", 1, 1, SIDE, SIDE)]
    )


def dense_like(source: str, target: str) -> list[NodeProto]:
    return [
        op("Softplus", source, f"{target}_s"),
        op("GlobalMaxPool", f"{target}_s", f"{target}_g"),
        op("Sub", [source, f"{target}_g"], target),
    ]


def divided() -> ModelProto:
    nodes = [
        op("Split", "image parts", "upper lower", axis=1),
        op("Sin", "lower", "l"),
        op("Add", "upper l", "t"),
    ]
    return image_model(nodes, "t", 2, weights=[value("parts", [2, 2], "int64")])


def standardised() -> ModelProto:
    """Only one number of each image is lost: its mean, and its largest value."""
    nodes = [
        op("ReduceMean", "image", "m", keepdims=1),
        op("Sub", "image m", "centred"),
        op("ReduceMax", "centred", "top", keepdims=1),
        op("Div", "centred top", "t"),
    ]
    return image_model(nodes, "t")


def mixed() -> ModelProto:
    """A sum with another tensor of that size hides the image; the sum with itself does not."""
    nodes = [
        op("Add", "image other", "sum"),
        op("Sin", "image", "s"),
        op("Mul", "image s", "own"),
        op("MatMul", "own square", "product"),
        op("Add", "product sum", "t"),
    ]
    other = floats("other", 1, CHANNELS, SIDE, SIDE)
    return image_model(nodes, "t", inputs=[other], weights=[weight("square", SIDE, SIDE)])


def branches() -> ModelProto:
    """Either branch may be taken; one of them only turns the image."""
    kind = [floats("r", 1, CHANNELS, SIDE, SIDE)]
    turned = body([op("Transpose", "image", "r", perm=[0, 1, 3, 2])], kind, "turned")
    kind = [floats("q", 1, CHANNELS, SIDE, SIDE)]
    blurred = body([op("MatMul", "image square", "q")], kind, "blurred")
    blurred_twice = body([op("MatMul", "image square", "v")], [floats("v", 1, CHANNELS, SIDE, SIDE)], "twice")
    other = body([op("MatMul", "image square", "w")], [floats("w", 1, CHANNELS, SIDE, SIDE)], "other")
    nodes = [
        op("ReduceMax", "image", "top", keepdims=0),
        op("Greater", "top half", "high"),
        op("If", "high", "t", then_branch=turned, else_branch=blurred),
        op("If", "high", "u", then_branch=blurred_twice, else_branch=other),
        op("Softmax", "t", "t1"),
        op("MatMul", "t1 square", "t2"),
        op("Add", "t2 u", "joined"),
    ]
    return image_model(nodes, "joined", weights=[weight("square", SIDE, SIDE)])


def turned_in_loop() -> ModelProto:
    """Every iteration turns what the one before made."""
    inner = helper.make_graph(
        [op("Identity", "go", "again"), op("Transpose", "before", "after", perm=[0, 1, 3, 2])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            floats("before", 1, CHANNELS, SIDE, SIDE),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            floats("after", 1, CHANNELS, SIDE, SIDE),
        ],
    )
    nodes = [op("Loop", "trips yes image", "t", body=inner)]
    return image_model(nodes, "t", weights=[value("trips", 3, "int64"), value("yes", True, "bool")])


TURN = function(
    "Turn",
    "p w",
    "turned blurred",
    [
        op("Mul", "p p", "squared"),
        op("Transpose", "squared", "turned", perm=[0, 1, 3, 2]),
        op("MatMul", "p w", "blurred"),
    ],
)


def local_function() -> ModelProto:
    """One output of the function tells of the image, the other does not."""
    nodes = [
        op("local.Turn", "image square", "turned blurred"),
        op("MatMul", "turned square", "b"),
        op("Add", "b blurred", "t"),
    ]
    return image_model(nodes, "t", weights=[weight("square", SIDE, SIDE)], functions=[TURN], local=1)


def embedded() -> ModelProto:
    """Token numbers are looked up in a table, whose rows tell the numbers."""
    nodes = [
        op("Gather", "table ids", "rows"),
        op("Add", "rows positions", "placed"),
        *dense("placed", "a"),
        *dense("a", "y"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [3])
    weights = [weight("table", 50, WIDTH), weight("positions", 3, WIDTH), *dense_weights("a", "y")]
    return model(nodes, [ids], [floats("y", 3, WIDTH)], weights)


def one_hot() -> ModelProto:
    """Token numbers are compared with all numbers there are, and with one number."""
    nodes = [
        op("Unsqueeze", "ids last", "column"),
        op("Equal", "column numbers", "told"),
        op("Cast", "told", "code", to=TensorProto.FLOAT),
        op("MatMul", "code table", "a"),
        op("Equal", "column first", "padded"),
        op("Cast", "padded", "mask", to=TensorProto.FLOAT),
        op("Mul", "a mask", "b"),
        *dense("b", "y"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [3])
    weights = [
        weight("table", 50, WIDTH),
        value("numbers", np.arange(50), "int64"),
        value("last", [1], "int64"),
        value("first", 0, "int64"),
        *dense_weights("y"),
    ]
    return model(nodes, [ids], [floats("y", 3, WIDTH)], weights)


CASES = {
    "one-hot": (one_hot, "ids", {"ids", "column", "told", "code"}),
    "concat": (concatenated, "image", {"image", "t"}),
    "split": (divided, "image", {"image", "upper", "lower", "l", "t"}),
    "standardised": (standardised, "image", {"image", "centred", "t"}),
    "mixed": (mixed, "image", {"image", "s", "own"}),
    "branches": (branches, "image", {"image", "t", "t1"}),
    "loop": (turned_in_loop, "image", {"image", "t"}),
    "function": (local_function, "image", {"image", "turned"}),
    "embedding": (embedded, "ids", {"ids", "rows", "placed"}),
    "piece of a split": (divided, "upper", {"image", "upper"}),
    "made from another": (standardised, "centred", {"image", "centred", "t"}),
    "features": (mixed, "product", {"product"}),
}


@pytest.mark.parametrize("name", CASES)
def test_no_cut_is_allowed_in_which_such_a_tensor_crosses(name: str, tmp_path: Path) -> None:
    build, private, telling = CASES[name]
    made = analysed(save(build(), tmp_path), tmp_path)
    graph = made.unrolled.graph
    limits = read_limits(LimitOptions(private=(private,)), made.found, made.unrolled)
    secret = {index for index, tensor in enumerate(graph.tensors) if tensor.name in telling}
    assert secret == limits.private | limits.recoverable, [graph.tensors[i].name for i in limits.recoverable]
    costs = Costs(graph, (1.0,) * len(graph.units), (0.1,) * len(graph.units))
    stays = device_reasons(graph, limits).keys()
    verdicts = set()
    for head in closures(graph):
        for direction in BOTH:
            everything = frozenset(range(len(graph.units)))
            device = head if direction == "device-first" else everything - head
            cut = place(costs, device, direction)
            cloud = everything - device
            seen = {
                index
                for index, tensor in enumerate(graph.tensors)
                if tensor.producer in cloud or cloud.intersection(tensor.consumers)
            }
            allowed = stays <= cut.device
            assert allowed == seen.isdisjoint(secret)
            verdicts.add(allowed)
    assert verdicts == {True, False}


def test_a_private_tensor_inside_a_unit_is_followed(tmp_path: Path) -> None:
    """ONNX Runtime fuses the convolution and the Relu, which keeps what is above zero."""
    nodes = [
        op("Conv", "image stem", "c", pads=[1, 1, 1, 1]),
        op("Relu", "c", "r"),
        op("Transpose", "r", "t", perm=[0, 1, 3, 2]),
    ]
    made = analysed(
        save(image_model(nodes, "t", weights=[weight("stem", CHANNELS, CHANNELS, 3, 3)]), tmp_path), tmp_path
    )
    assert "c" in made.found.analyses[0].partition.fused
    assert recoverable(made, "c") == {"r", "t"}


PIPELINE = """
name = "stages"
outputs = ["result"]
[[stage]]
name = "prepare"
model = "prepare.onnx"
outputs = { t = "prepared", u = "summary" }
[[stage]]
name = "turn"
times = 3
model = "turn.onnx"
inputs = { x = "state" }
outputs = { y = "state", s = "norm" }
carry = { state = "prepared" }
[[stage]]
name = "finish"
model = "finish.onnx"
inputs = { x = "state", n = "norm", u = "summary" }
outputs = { y = "result" }
"""


def write_stages(folder: Path) -> Path:
    """The first stage scales the image; every iteration turns it; the last stage computes something of it."""
    folder.mkdir()
    square = [floats("x", WIDTH, WIDTH)]
    scaled = [op("Mul", "image half", "t"), op("MatMul", "image prepare_w", "m"), op("Tanh", "m", "u")]
    outputs = [floats("t", WIDTH, WIDTH), floats("u", WIDTH, WIDTH)]
    weights = [value("half", 0.5), weight("prepare_w", WIDTH, WIDTH)]
    save(model(scaled, [floats("image", WIDTH, WIDTH)], outputs, weights), folder, "prepare")
    turned = [op("Transpose", "x", "y"), op("ReduceMax", "x", "s", keepdims=0)]
    save(model(turned, square, [floats("y", WIDTH, WIDTH), floats("s")]), folder, "turn")
    finished = [
        op("Sin", "x", "w"),
        op("MatMul", "w a_w", "a"),
        op("Add", "a u", "b"),
        op("Mul", "b n", "c"),
        op("Tanh", "c", "d"),
        *dense("d", "y"),
    ]
    inputs = [*square, floats("n"), floats("u", WIDTH, WIDTH)]
    save(model(finished, inputs, [floats("y", WIDTH, WIDTH)], dense_weights("a", "y")), folder, "finish")
    path = folder / "stages.toml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("private", "others"),
    [
        ("image", {"prepared", "state", "finish/w"}),
        ("prepared", {"image", "state", "finish/w"}),
        ("finish/w", {"image", "prepared", "state"}),
        ("summary", {"prepare/m"}),
    ],
)
def test_stages_that_hand_a_value_on_do_not_hide_it(private: str, others: set[str], tmp_path: Path) -> None:
    made = analysed(write_stages(tmp_path / "source"), tmp_path)
    graph, values = made.unrolled.graph, made.unrolled.values
    limits = read_limits(LimitOptions(private=(private,)), made.found, made.unrolled)
    assert {values[index] for index in limits.recoverable} == others
    assert all(index in limits.recoverable for index, name in enumerate(values) if name == "state") == (
        "state" in others
    )
    stays = device_reasons(graph, limits).keys()
    everything = frozenset(range(len(graph.units)))
    for head in closures(graph):
        for device in (head, everything - head):
            cloud = everything - device
            seen = {
                values[i]
                for i, t in enumerate(graph.tensors)
                if t.producer in cloud or cloud.intersection(t.consumers)
            }
            assert (stays <= device) == seen.isdisjoint({private, *others} & set(values))


def test_a_pipeline_ships_no_such_cut_in_either_direction(tmp_path: Path) -> None:
    path = write_stages(tmp_path / "source")
    made = compiled(path, tmp_path / "bundle", limits=LimitOptions(private=("image",)))
    assert any(cut.kind == "split" for cut in made.manifest.cuts)
    assert crossing(made).isdisjoint({"image", "prepared", "state", "finish/w"})


def test_a_note_names_them(tmp_path: Path) -> None:
    path = save(standardised(), tmp_path)
    made = compile_here(path, tmp_path / "bundle", limits=LimitOptions(private=("image",)))
    assert (
        "also kept on the device: centred, t, because the private tensor 'image' can be recovered from them, "
        "wholly or in part"
    ) in made.manifest.notes


def test_no_note_where_nothing_else_tells(tmp_path: Path) -> None:
    made = compile_here(
        save(mixed(), tmp_path), tmp_path / "bundle", limits=LimitOptions(private=("product",))
    )
    assert not any("also kept" in note for note in made.manifest.notes)


def test_the_error_says_why_a_pinned_node_cannot_be_in_the_cloud(tmp_path: Path) -> None:
    path = save(standardised(), tmp_path)
    limits = LimitOptions(private=("image",), pin_cloud=("Div_t",))
    with pytest.raises(
        NoFeasibleCut, match=r"because (the private tensor|'centred', from which a private tensor can be)"
    ):
        compile_here(path, tmp_path / "bundle", limits=limits)
