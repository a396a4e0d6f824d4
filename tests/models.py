"""Tiny ONNX models, each with a reason to exist: its docstring is the shape of graph it stands for.

Weights are random but depend on nothing except their names. ONNX Runtime cannot fold any of these
models into one node, so each has several places to cut.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

Array = NDArray[Any]
WIDTH = 16


# --- vocabulary ---


def split(names: str | Sequence[str]) -> list[str]:
    return names.split() if isinstance(names, str) else list(names)


def op(kind: str, inputs: str | Sequence[str], outputs: str | Sequence[str], **attributes: Any) -> NodeProto:
    """Return a node; a kind like "local.Block" names its domain, and the first output names the node."""
    domain, _, name = kind.rpartition(".")
    outputs = split(outputs)
    attributes = {"name": f"{name}_{outputs[0]}", **attributes}
    return helper.make_node(name, split(inputs), outputs, domain=domain, **attributes)


def floats(name: str, *shape: int | str | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def random_values(name: str, shape: Sequence[int]) -> Array:
    """Return weights that keep the scale of activations: the first axis of a matrix is its input."""
    fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values: Array = generator.standard_normal(shape) * math.sqrt(2 / fan_in)
    return values


def weight(name: str, *shape: int, dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(random_values(name, shape).astype(dtype), name)


def value(name: str, content: Any, dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(np.asarray(content, dtype), name)


def dense(source: str, target: str) -> list[NodeProto]:
    """Return target = tanh(source @ target_w)."""
    return [op("MatMul", [source, f"{target}_w"], f"{target}_m"), op("Tanh", f"{target}_m", target)]


def dense_weights(*targets: str, dtype: str = "float32") -> list[TensorProto]:
    return [weight(f"{target}_w", WIDTH, WIDTH, dtype=dtype) for target in targets]


def conv(source: str, target: str, **attributes: Any) -> list[NodeProto]:
    """Return target = relu(3x3 convolution of source with target_w)."""
    convolution = op("Conv", [source, f"{target}_w"], f"{target}_c", pads=[1, 1, 1, 1], **attributes)
    return [convolution, op("Relu", f"{target}_c", target)]


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
    functions: Sequence[FunctionProto] = (),
    **opsets: int,
) -> ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    imports = {"": 18, **{name.replace("_", "."): version for name, version in opsets.items()}}
    return helper.make_model(
        graph,
        functions=functions,
        opset_imports=[helper.make_opsetid(*item) for item in imports.items()],
        ir_version=10,
        producer_name="tests",
    )


def body(nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto], name: str = "body") -> GraphProto:
    return helper.make_graph(nodes, name, [], outputs)


def positive(source: str, target: str) -> list[NodeProto]:
    """Return target = (sum of source > 0): a condition that changes with the input."""
    total = op("ReduceSum", source, f"{target}_sum", keepdims=0)
    return [total, op("Greater", [f"{target}_sum", "zero"], target)]


X = floats("x", 2, WIDTH)
Y = floats("y", 2, WIDTH)
ZERO = value("zero", 0.0)


# --- plain graphs ---


def chain() -> ModelProto:
    """A CNN without branches: every cut has one boundary tensor."""
    nodes = [
        *conv("x", "a", strides=[2, 2]),
        *conv("a", "b"),
        op("MaxPool", "b", "p", kernel_shape=[2, 2], strides=[2, 2]),
        *conv("p", "c"),
        op("GlobalAveragePool", "c", "g"),
        op("Flatten", "g", "f"),
        op("Gemm", "f y_w", "y"),
    ]
    weights = [weight("a_w", 8, 3, 3, 3), weight("b_w", 8, 8, 3, 3), weight("c_w", 16, 8, 3, 3)]
    return model(nodes, [floats("x", 1, 3, 32, 32)], [floats("y", 1, 10)], [*weights, weight("y_w", 16, 10)])


def diamond() -> ModelProto:
    """One tensor with two readers: it crosses a cut once, not twice."""
    nodes = [*dense("x", "a"), *dense("a", "b"), *dense("a", "c"), op("Add", "b c", "d"), *dense("d", "y")]
    return model(nodes, [X], [Y], dense_weights("a", "b", "c", "y"))


def two_inputs_two_outputs() -> ModelProto:
    """Two branches that meet in the middle and part again."""
    nodes = [*dense("x", "a"), *dense("z", "b"), op("Mul", "a b", "c"), *dense("c", "y"), *dense("y", "u")]
    outputs = [Y, floats("u", 2, WIDTH)]
    return model(nodes, [X, floats("z", 2, WIDTH)], outputs, dense_weights("a", "b", "y", "u"))


def early_output() -> ModelProto:
    """A model output that later nodes read too: it is home already, and may still have to cross."""
    nodes = [*dense("x", "a"), *dense("a", "b"), *dense("b", "y")]
    return model(nodes, [X], [Y, floats("a", 2, WIDTH)], dense_weights("a", "b", "y"))


def raw_input_reused() -> ModelProto:
    """The input is read again at the end: it is a boundary tensor of every inner cut."""
    nodes = [*dense("x", "a"), *dense("a", "b"), op("Add", "b x", "c"), *dense("c", "y")]
    return model(nodes, [X], [Y], dense_weights("a", "b", "y"))


def unused_outputs() -> ModelProto:
    """Nodes with outputs that nobody reads, and with an optional output left out."""
    nodes = [
        *dense("x", "a"),
        op("Split", "a", "left right", axis=1, num_outputs=2),
        op("Unsqueeze", "left zero", "sequence"),
        op("GRU", "sequence gru_w gru_r", ["", "last"], hidden_size=8, name="gru"),
        op("Squeeze", "last zero", "state"),
        op("TopK", "state k", "best order"),
        op("Cast", "order", "order_f", to=TensorProto.FLOAT),
        op("Concat", "left order_f", "b", axis=1),
        *dense("b", "y"),
    ]
    weights = [weight("gru_w", 1, 24, 8), weight("gru_r", 1, 24, 8), *dense_weights("a", "y")]
    weights += [value("k", [8], "int64"), value("zero", [0], "int64")]
    return model(nodes, [X], [Y], weights)


# --- names ---


def unnamed_nodes() -> ModelProto:
    """Nodes without names, as many exporters write them."""
    built = diamond()
    for node in built.graph.node:
        node.ClearField("name")
    return built


def odd_names() -> ModelProto:
    """Tensor and node names with slashes, colons, blanks and other alphabets."""
    renamed = {
        "x": "serving/input:0",
        "a": "ブロック/1:0",
        "b": "a b",
        "c": "../c",
        "d": "d\\e",
        "y": "out:0",
    }
    built = diamond()
    for node in built.graph.node:
        node.name = f"scope/{node.name}:é"
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for port in (*built.graph.input, *built.graph.output):
        port.name = renamed[port.name]
    return built


# --- initializers ---


def shared_initializer() -> ModelProto:
    """Head and tail read the same weights: they count on both sides, and once in the bundle."""
    nodes = [*dense("x", "a"), op("MatMul", "a a_w", "b"), op("Tanh", "b", "c"), op("MatMul", "c a_w", "y")]
    return model(nodes, [X], [Y], dense_weights("a"))


def initializer_as_input() -> ModelProto:
    """An initializer that is a graph input too, as before IR version 4: a default the caller may replace."""
    nodes = [*dense("x", "a"), *dense("a", "b"), *dense("b", "y")]
    return model(nodes, [X, floats("b_w", WIDTH, WIDTH)], [Y], dense_weights("a", "b", "y"))


def sparse_initializer() -> ModelProto:
    """A weight in `graph.sparse_initializer`, which tools that copy only `initializer` lose."""
    nodes = [*dense("x", "a"), *dense("a", "b"), op("Add", "b bias", "c"), *dense("c", "y")]
    built = model(nodes, [X], [Y], dense_weights("a", "y"))
    for name, shape in (("b_w", (WIDTH, WIDTH)), ("bias", (1, WIDTH))):
        full = random_values(name, shape).astype("float32").ravel()
        kept = np.arange(0, full.size, 3)
        built.graph.sparse_initializer.append(
            helper.make_sparse_tensor(value(name, full[kept]), value(f"{name}_at", kept, "int64"), shape)
        )
    return built


# --- control flow and functions ---


def if_captures() -> ModelProto:
    """Branches that read tensors of the graph around them: hidden inputs of the If."""
    choose_then = body(
        [op("MatMul", "b then_w", "t1"), op("Add", "t1 a", "t2")], [floats("t2", 2, WIDTH)], "then"
    )
    choose_else = body([op("Mul", "a b", "e1"), op("Sub", "e1 x", "e2")], [floats("e2", 2, WIDTH)], "else")
    nodes = [
        *dense("x", "a"),
        *dense("a", "b"),
        *positive("a", "p"),
        op("If", "p", "c", then_branch=choose_then, else_branch=choose_else),
        *dense("c", "y"),
    ]
    weights = [ZERO, weight("then_w", WIDTH, WIDTH), *dense_weights("a", "b", "y")]
    return model(nodes, [X], [Y], weights)


def nested_if() -> ModelProto:
    """An If in an If: the inner branches read tensors and weights two graphs further out."""
    deep_then = body(
        [op("MatMul", "b deep_w", "d1"), op("Add", "d1 s", "d2")], [floats("d2", 2, WIDTH)], "deep_then"
    )
    deep_else = body([op("Sub", "a s", "f1"), op("Mul", "f1 x", "f2")], [floats("f2", 2, WIDTH)], "deep_else")
    choose_then = body(
        [op("Sin", "b", "s"), op("If", "q", "t", then_branch=deep_then, else_branch=deep_else)],
        [floats("t", 2, WIDTH)],
        "then",
    )
    choose_else = body([op("Add", "a b", "e")], [floats("e", 2, WIDTH)], "else")
    nodes = [
        *dense("x", "a"),
        *dense("a", "b"),
        *positive("x", "p"),
        *positive("b", "q"),
        op("If", "p", "c", then_branch=choose_then, else_branch=choose_else),
        *dense("c", "y"),
    ]
    weights = [ZERO, weight("deep_w", WIDTH, WIDTH), *dense_weights("a", "b", "y")]
    return model(nodes, [X], [Y], weights)


def loop_captures() -> ModelProto:
    """A Loop whose body reads a tensor of the graph around it in each iteration."""
    flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    carried, stacked = floats("s_out", 2, WIDTH), floats("row", 2)
    iteration = helper.make_graph(
        [
            op("MatMul", "s_in step_w", "s_mixed"),
            op("Add", "s_mixed a", "s_sum"),
            op("Tanh", "s_sum", "s_out"),
            op("ReduceMax", "s_out row_axes", "row", keepdims=0),
            op("Identity", "go", "go_on"),
        ],
        "iteration",
        [step, flag, floats("s_in", 2, WIDTH)],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), carried, stacked],
    )
    nodes = [
        *dense("x", "a"),
        *dense("a", "b"),
        op("Loop", "trips yes b", "c rows", body=iteration),
        *dense("c", "y"),
        op("Transpose", "rows", "z"),
    ]
    weights = [weight("step_w", WIDTH, WIDTH), *dense_weights("a", "b", "y")]
    weights += [value("trips", 3, "int64"), value("yes", True, "bool"), value("row_axes", [1], "int64")]
    return model(nodes, [X], [Y, floats("z", 2, 3)], weights)


def function(name: str, inputs: str, outputs: str, nodes: Sequence[NodeProto]) -> FunctionProto:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, split(inputs), split(outputs), nodes, imports)


MIX = function(
    "Mix", "p w", "q", [op("MatMul", "p w", "m"), op("Tanh", "m", "n", name="tanh"), op("Add", "n p", "q")]
)


def local_function() -> ModelProto:
    """A model-local function, called twice: its nodes exist only after inlining."""
    nodes = [
        *dense("x", "a"),
        op("local.Mix", "a mix_w", "b"),
        op("local.Mix", "b mix_w", "c"),
        *dense("c", "y"),
    ]
    return model(nodes, [X], [Y], [weight("mix_w", WIDTH, WIDTH), *dense_weights("a", "y")], [MIX], local=1)


def local_function_in_if() -> ModelProto:
    """A model-local function that only a branch calls, on captured tensors."""
    choose_then = body([op("local.Mix", "b mix_w", "t")], [floats("t", 2, WIDTH)], "then")
    choose_else = body([op("Sub", "a b", "e")], [floats("e", 2, WIDTH)], "else")
    nodes = [
        *dense("x", "a"),
        *dense("a", "b"),
        *positive("a", "p"),
        op("If", "p", "c", then_branch=choose_then, else_branch=choose_else),
        *dense("c", "y"),
    ]
    weights = [ZERO, weight("mix_w", WIDTH, WIDTH), *dense_weights("a", "b", "y")]
    return model(nodes, [X], [Y], weights, [MIX], local=1)


def function_calls_function() -> ModelProto:
    """A model-local function that calls another one: a head that keeps the first needs both."""
    calls = [op("local.Mix", "r w", "s"), op("local.Mix", "s w", "t"), op("Sin", "t", "u")]
    twice = function("Twice", "r w", "u", calls)
    nodes = [*dense("x", "a"), op("local.Twice", "a mix_w", "b"), *dense("b", "y")]
    weights = [weight("mix_w", WIDTH, WIDTH), *dense_weights("a", "y")]
    return model(nodes, [X], [Y], weights, [MIX, twice], local=1)


# --- operators ---


def contrib_op() -> ModelProto:
    """com.microsoft operators in the middle: ONNX shape inference knows nothing after them."""
    nodes = [
        *dense("x", "a"),
        op("com.microsoft.BiasGelu", "a bias", "b"),
        op("com.microsoft.FusedMatMul", "b mix_w", "c", transB=1, alpha=0.5),
        *dense("c", "d"),
        *dense("d", "y"),
    ]
    weights = [weight("bias", WIDTH), weight("mix_w", WIDTH, WIDTH), *dense_weights("a", "d", "y")]
    return model(nodes, [X], [Y], weights, com_microsoft=1)


def empty_optional_inputs() -> ModelProto:
    """Optional inputs left out in the middle of the list: the empty name is no tensor."""
    nodes = [
        *conv("x", "a"),
        op("Resize", ["a", "", "scales"], "b", mode="nearest"),
        *conv("b", "c"),
        op("Clip", ["c", "", "limit"], "d"),
        *conv("d", "y"),
    ]
    weights = [weight("a_w", 4, 3, 3, 3), weight("c_w", 4, 4, 3, 3), weight("y_w", 2, 4, 3, 3)]
    weights += [value("scales", [1, 1, 2, 2]), value("limit", 1.5)]
    return model(nodes, [floats("x", 1, 3, 8, 8)], [floats("y", 1, 2, 16, 16)], weights)


def random_normal() -> ModelProto:
    """A node that gives other values in each run: head and tail must not both hold it."""
    noise = op("RandomNormal", "", "noise", shape=[2, WIDTH], scale=0.1)
    nodes = [*dense("x", "a"), noise, op("Add", "a noise", "b"), *dense("b", "y")]
    return model(nodes, [X], [Y], dense_weights("a", "y"))


def string_output() -> ModelProto:
    """An output of strings: it has no fixed size, so it is never a boundary tensor."""
    encoder = op(
        "ai.onnx.ml.LabelEncoder",
        "best",
        "label",
        keys_int64s=range(WIDTH),
        values_strings=list("abcdefghijklmnop"),
    )
    nodes = [*dense("x", "a"), *dense("a", "y"), op("ArgMax", "y", "best", axis=1, keepdims=0), encoder]
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [2])
    return model(nodes, [X], [Y, label], dense_weights("a", "y"), ai_onnx_ml=3)


def string_input() -> ModelProto:
    """An input of strings: what reads it stays in the head."""
    encoder = op(
        "ai.onnx.ml.LabelEncoder", "word", "code", keys_strings=["a", "b"], values_floats=[1.0, -1.0]
    )
    nodes = [encoder, *dense("code", "a"), op("Add", "a x", "b"), *dense("b", "c"), *dense("c", "y")]
    word = helper.make_tensor_value_info("word", TensorProto.STRING, [2, WIDTH])
    return model(nodes, [word, X], [Y], dense_weights("a", "c", "y"), ai_onnx_ml=3)


def sequence_output() -> ModelProto:
    """An output that is a sequence of tensors."""
    nodes = [*dense("x", "a"), *dense("a", "b"), op("SplitToSequence", "b", "y", axis=1)]
    pieces = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2, 1])
    return model(nodes, [X], [pieces], dense_weights("a", "b"))


# --- outputs without work ---


def passthrough_output() -> ModelProto:
    """A model output that is a model input: no node makes it."""
    nodes = [*dense("x", "a"), *dense("a", "y")]
    return model(nodes, [X], [Y, X], dense_weights("a", "y"))


def constant_output() -> ModelProto:
    """A model output that depends on no input: ONNX Runtime folds its nodes away."""
    constant = op("Constant", "", "k", value=value("k_value", [1.0, 2.0]))
    nodes = [*dense("x", "a"), *dense("a", "y"), constant, op("Exp", "k", "z")]
    return model(nodes, [X], [Y, floats("z", 2)], dense_weights("a", "y"))


# --- dtypes and free dimensions ---


def quantize(source: str, target: str) -> list[NodeProto]:
    """Return target = source rounded to int8 and back, by way of target_q."""
    return [
        op("QuantizeLinear", [source, "scale", "zero_point"], f"{target}_q"),
        op("DequantizeLinear", [f"{target}_q", "scale", "zero_point"], target),
    ]


def qdq_residual() -> ModelProto:
    """An int8 residual block: a DequantizeLinear with two readers, and boundaries of one byte per value."""

    def convolution(source: str, target: str) -> list[NodeProto]:
        weights = op("DequantizeLinear", [f"{target}_wq", "w_scale", "zero_point"], f"{target}_w")
        return [weights, *conv(source, target), *quantize(target, f"{target}_d")]

    nodes = [
        *quantize("x", "x_d"),
        *convolution("x_d", "a"),
        *convolution("a_d", "b"),
        op("Add", "a_d b_d", "c"),
        *quantize("c", "c_d"),
        *convolution("c_d", "y"),
    ]
    weights = [value("scale", 0.05), value("w_scale", 0.01), value("zero_point", 0, "int8")]
    for name, channels in (("a", 3), ("b", 8), ("y", 8)):
        integers = np.clip(random_values(name, (8, channels, 3, 3)) * 100, -127, 127).round()
        weights.append(value(f"{name}_wq", integers, "int8"))
    return model(nodes, [floats("x", 1, 3, 16, 16)], [floats("y_d", 1, 8, 16, 16)], weights)


def fp16_chain() -> ModelProto:
    """Half precision throughout: boundary tensors of two bytes, and casts that ONNX Runtime adds.

    What only moves data, it moves in fp16: there the tensors really are rounded to it and may cross.
    """
    nodes = [
        *dense("x", "a"),
        op("Gather", "a rows", "g", axis=0),
        op("Concat", "a g", "c", axis=0),
        *dense("c", "b"),
        *dense("b", "y"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2, WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [4, WIDTH])
    weights = [*dense_weights("a", "b", "y", dtype="float16"), value("rows", [1, 0], "int64")]
    return model(nodes, [x], [y], weights)


def uint8_image() -> ModelProto:
    """An image of bytes: the raw input is the smallest tensor of all."""
    nodes = [
        op("Cast", "x", "f", to=TensorProto.FLOAT),
        *conv("f", "a"),
        *conv("a", "b"),
        op("ReduceMean", "b axes", "y", keepdims=0),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 16, 16])
    weights = [weight("a_w", 8, 3, 3, 3), weight("b_w", 8, 8, 3, 3), value("axes", [2, 3], "int64")]
    return model(nodes, [image], [floats("y", 1, 8)], weights)


def dynamic_batch() -> ModelProto:
    """A CNN with a symbolic batch, which must stay symbolic in head and tail."""
    built = chain()
    for port in (*built.graph.input, *built.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    return built


def named_dims() -> ModelProto:
    """Batch, height and width are all symbolic: sizes depend on three numbers."""
    nodes = [*conv("x", "a"), *conv("a", "b"), op("Add", "a b", "c"), *conv("c", "y")]
    weights = [weight("a_w", 4, 3, 3, 3), weight("b_w", 4, 4, 3, 3), weight("y_w", 2, 4, 3, 3)]
    ports = [floats(name, "batch", channels, "height", "width") for name, channels in (("x", 3), ("y", 2))]
    return model(nodes, ports[:1], ports[1:], weights)


def recurrent() -> ModelProto:
    """LSTM and GRU over a sequence of free length, with their states as inputs and outputs."""
    nodes = [
        *dense("x", "a"),
        op("LSTM", ["a", "lstm_w", "lstm_r", "", "", "h", "c"], "lstm h_out c_out", hidden_size=8),
        op("Squeeze", "lstm one", "b"),
        op("GRU", ["b", "gru_w", "gru_r", "", "", "g"], "gru g_out", hidden_size=8),
        op("Squeeze", "gru one", "d"),
        op("MatMul", "d y_w", "y"),
    ]
    weights = [weight("lstm_w", 1, 32, WIDTH), weight("lstm_r", 1, 32, 8), weight("gru_w", 1, 24, 8)]
    weights += [
        weight("gru_r", 1, 24, 8),
        weight("y_w", 8, 4),
        *dense_weights("a"),
        value("one", [1], "int64"),
    ]
    states = [floats(name, 1, "batch", 8) for name in ("h", "c", "g", "h_out", "c_out", "g_out")]
    inputs = [floats("x", "time", "batch", WIDTH), *states[:3]]
    return model(nodes, inputs, [floats("y", "time", "batch", 4), *states[3:]], weights)


# --- all of them ---


def by_name(*makers: Callable[[], ModelProto]) -> dict[str, Callable[[], ModelProto]]:
    return {maker.__name__: maker for maker in makers}


# The six that splitters get wrong most often.
TORTURE = by_name(
    nested_if, local_function_in_if, early_output, raw_input_reused, sparse_initializer, contrib_op
)
ALL = TORTURE | by_name(
    chain,
    diamond,
    two_inputs_two_outputs,
    unused_outputs,
    unnamed_nodes,
    odd_names,
    shared_initializer,
    initializer_as_input,
    if_captures,
    loop_captures,
    local_function,
    function_calls_function,
    empty_optional_inputs,
    random_normal,
    string_output,
    string_input,
    sequence_output,
    passthrough_output,
    constant_output,
    qdq_residual,
    fp16_chain,
    uint8_image,
    dynamic_batch,
    named_dims,
    recurrent,
)

DTYPES = {"float": "float32", "double": "float64"}


def random_feeds(
    source: ModelProto | ort.InferenceSession, dims: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Array]:
    """Return random values of all inputs: normal floats, integers 0 and 1, strings "a" and "b".

    A free dimension that *dims* does not name is 2.
    """
    session = ort.InferenceSession(source.SerializeToString()) if isinstance(source, ModelProto) else source
    generator = np.random.Generator(np.random.PCG64(seed))
    feeds = {}
    for port in session.get_inputs():
        shape = [dim if isinstance(dim, int) else (dims or {}).get(dim, 2) for dim in port.shape]
        feeds[port.name] = random_array(port.type.removeprefix("tensor(").removesuffix(")"), shape, generator)
    return feeds


def random_array(element: str, shape: Sequence[int], generator: np.random.Generator) -> Array:
    if element == "string":
        return generator.choice(np.array(["a", "b"], object), shape)
    dtype = np.dtype(DTYPES.get(element, element))
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)
