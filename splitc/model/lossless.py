"""Tensors from which another one can be recovered, because the operators between them lose nothing of it.

Sending such a tensor is as good as sending the other one. In doubt an operator loses nothing: it is enough that it
keeps most values of its input (Clip, Relu), a part of them (Slice, Split, Gather), or 8 bits of each (QuantizeLinear).
Not counted are operators that mix values (Conv, MatMul) or merge them (ReduceMean, MaxPool), although some of these can
be inverted as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from splitc.model.model import Model
from splitc.model.nodes import Sources, bodies
from splitc.model.sizes import Size

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
_SHAPES = frozenset({"Shape", "Size"})
# Everything about the first input is in the first output, whatever the other inputs are.
_LAYOUT = """Identity Transpose Reshape Flatten Squeeze Unsqueeze DepthToSpace SpaceToDepth ReverseSequence Expand Tile
    Pad Resize Upsample ImageScaler CenterCropPad GridSample CumSum DFT STFT ReorderInput ReorderOutput Dropout ImageDecoder"""
_PARTS = (
    """Slice Gather GatherElements GatherND Split SplitToSequence Compress Trilu TopK ArrayFeatureExtractor"""
)
_NUMBERS = """Cast CastLike BitCast QuantizeLinear DequantizeLinear DynamicQuantizeLinear OneHot Scaler LabelEncoder
    CategoryMapper OneHotEncoder CastMap Imputer"""
# All but a mean and a scale is kept, or (of Softmax) all but one number.
_NORMALIZATION = """BatchNormalization InstanceNormalization GroupNormalization LayerNormalization LpNormalization
    SimplifiedLayerNormalization RMSNormalization MeanVarianceNormalization Normalizer Softmax LogSoftmax QLinearSoftmax"""
_ELEMENTWISE = """Abs Acos Acosh Asin Asinh Atan Atanh BiasGelu BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp
    FastGelu Floor Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg Not PRelu QLinearLeakyRelu QLinearSigmoid QuickGelu
    Reciprocal Relu Round Selu Shrink Sigmoid Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_SEQUENCES = """SequenceAt SequenceErase ConcatFromSequence Optional OptionalGetElement"""
_FIRST = frozenset(
    f"{_LAYOUT} {_PARTS} {_NUMBERS} {_NORMALIZATION} {_ELEMENTWISE} {_SEQUENCES}".split(),
)
# The output holds each of these inputs; None for all of them.
_PIECES: Mapping[str, tuple[int, ...] | None] = {
    "Concat": None,
    "QLinearConcat": None,
    "SequenceConstruct": None,
    "FeatureVectorizer": None,
    "SequenceInsert": (0, 1),
    "Where": (1, 2),
    "Scatter": (0, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "TensorScatter": (0, 1),
}
# Operands of a sum, product and the like; nothing is lost if the others are known, or small.
_COMBINED: Mapping[str, tuple[int, ...] | None] = {
    "Add": None,
    "Sub": None,
    "Mul": None,
    "Div": None,
    "Pow": None,
    "Mod": None,
    "Max": None,
    "Min": None,
    "Sum": None,
    "Mean": None,
    "BitwiseXor": None,
    "BitShift": None,
    "Xor": None,
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "SkipLayerNormalization": (0, 1),
    "SkipSimplifiedLayerNormalization": (0, 1),
}
_COMPARISONS = frozenset("Equal Greater GreaterOrEqual Less LessOrEqual".split())
# Their bodies take the inputs of the node, in order; those of an If capture what they read.
_FED = frozenset({"Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True)
class _ModelScope:
    """What is the same at every depth of a model.

    Attributes:
        counts: the number of elements of top-level values and weights, where it is known.
    """

    functions: Mapping[ir.OperatorIdentifier, ir.Function]
    counts: Mapping[ir.Value, int]


@dataclass(frozen=True, slots=True)
class LosslessPaths:
    """The operators of one model that lose nothing, and how they link its top-level tensors.

    Attributes:
        fixed: values that depend on weights and shapes only.
        values: top-level values by name.
    """

    nodes: tuple[ir.Node, ...]
    values: Mapping[str, ir.Value]
    fixed: frozenset[ir.Value]
    scope: _ModelScope

    def onward(self, names: Iterable[str], *, divide: bool = True) -> frozenset[str]:
        """Return *names*, and the tensors made from them without a loss.

        Args:
            divide: whether each piece of a Split counts.
        """
        known = {self.values[name] for name in names if name in self.values}
        for node in self.nodes if known else ():
            if divide or node.op_type != "Split":
                known |= _made(node, known, self.fixed, self.scope)
        return _names(known)

    def back(self, names: Iterable[str]) -> frozenset[str]:
        """Return the tensors that *names* were made from without a loss."""
        known = {self.values[name] for name in names if name in self.values}
        found: set[ir.Value] = set()
        for node in reversed(self.nodes if known else ()):
            if known.isdisjoint(node.outputs):
                continue
            for source in _sources(node):
                if self.values.get(source.name or "") is source and not known.isdisjoint(
                    _made(node, {source}, self.fixed, self.scope)
                ):
                    known.add(source)
                    found.add(source)
        return _names(found)


def lossless_paths(model: Model, found: Sources, sizes: Mapping[str, Size]) -> LosslessPaths:
    """Find the operators of *model* that lose nothing of an input."""
    graph = model.ir.graph
    tops = (*graph.inputs, *(value for node in found.nodes for value in node.outputs))
    values = {value.name: value for value in tops if value.name}
    sized = ((value, sizes[name].sized) for name, value in values.items() if name in sizes)
    counts = {value: int(np.prod(shape, dtype=np.int64)) for value, shape in sized if shape is not None}
    weights = graph.initializers.values()
    counts |= {value: value.const_value.size for value in weights if value.const_value is not None}
    constants = {
        value for number, node in enumerate(found.nodes) if number in found.constant for value in node.outputs
    }
    fixed = {*weights, *constants}
    _add_fixed(found.nodes, fixed)
    return LosslessPaths(found.nodes, values, frozenset(fixed), _ModelScope(model.ir.functions, counts))


def _names(values: Iterable[ir.Value]) -> frozenset[str]:
    return frozenset(value.name for value in values if value.name)


def _add_fixed(nodes: Iterable[ir.Node], fixed: set[ir.Value]) -> None:
    """Add to *fixed* what follows from it, and from shapes."""
    for node in nodes:
        known = bool(node.inputs) and all(value is None or value in fixed for value in node.inputs)
        if node.op_type in _SHAPES or node.op_type == "Constant" or (known and not bodies(node)):
            fixed.update(node.outputs)


def _sources(node: ir.Node) -> list[ir.Value]:
    """Every value that *node* reads, and that its bodies read."""
    inner = (value for body in bodies(node) for item in body.all_nodes() for value in item.inputs)
    results = (value for body in bodies(node) for value in body.outputs)
    read = dict.fromkeys((*node.inputs, *inner, *results))
    return [value for value in read if value is not None]


def _made(
    node: ir.Node, known: set[ir.Value], fixed: frozenset[ir.Value] | set[ir.Value], scope: _ModelScope
) -> set[ir.Value]:
    """The outputs of *node* that hold something of *known*."""
    if bodies(node):
        return _made_by_bodies(node, known, fixed, scope)
    if known.isdisjoint(node.inputs):
        return set()
    function = scope.functions.get(node.op_identifier())
    if function is not None:
        return _made_by_function(node, function, known, fixed, scope)
    if node.domain not in _DOMAINS or not _keeps(node, known, fixed, scope):
        return set()
    return set(node.outputs if node.op_type == "Split" else node.outputs[:1])


def _keeps(
    node: ir.Node, known: set[ir.Value], fixed: frozenset[ir.Value] | set[ir.Value], scope: _ModelScope
) -> bool:
    """Whether the operator of *node* loses nothing of an input among *known*."""
    kind, inputs = node.op_type, node.inputs
    if kind in _PIECES:
        return not known.isdisjoint(_at(inputs, _PIECES[kind]))
    if kind in _COMBINED:
        return _combines(_at(inputs, _COMBINED[kind]), known, fixed, scope)
    if (
        kind in _COMPARISONS
    ):  # with one value hardly anything is told, with a row of them (as in a one-hot code) all
        others = [value for value in _at(inputs, None) if value not in known]
        return all(value in fixed and scope.counts.get(value, 0) > 1 for value in others)
    if kind == "Gather" and inputs[0] in fixed:  # a table: equal rows aside, a row tells its index
        return inputs[1] in known
    keeps = _scales(node) if kind == "Conv" else _permutes(node) if kind == "Einsum" else kind in _FIRST
    return keeps and inputs[0] in known


def _at(inputs: Iterable[ir.Value | None], positions: tuple[int, ...] | None) -> list[ir.Value]:
    chosen = (value for at, value in enumerate(inputs) if positions is None or at in positions)
    return [value for value in chosen if value is not None]


def _combines(
    operands: list[ir.Value],
    known: set[ir.Value],
    fixed: frozenset[ir.Value] | set[ir.Value],
    scope: _ModelScope,
) -> bool:
    """Whether one operand is known, and each other one is, too, or fixed, or smaller: a scale, mean or bias."""
    held = [value for value in operands if value in known]
    others = [value for value in operands if value not in known and value not in fixed]
    largest = max((scope.counts.get(value, 0) for value in held), default=0)
    return bool(held) and all(scope.counts.get(value, largest) < largest for value in others)


def _scales(node: ir.Node) -> bool:
    """Whether a Conv multiplies each channel by a number of its own, and adds one."""
    weight = node.inputs[1]
    shape = weight.shape if weight is not None else None
    if shape is None or any(not isinstance(dim, int) for dim in shape):
        return False
    strides = node.attributes["strides"].as_ints() if "strides" in node.attributes else ()
    return all(dim == 1 for dim in list(shape)[1:]) and all(step == 1 for step in strides)


def _permutes(node: ir.Node) -> bool:
    """Whether an Einsum only reorders the axes of one input."""
    taken, arrow, made = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    return len(node.inputs) == 1 and bool(arrow) and sorted(taken) == sorted(made)


def _made_by_function(
    node: ir.Node,
    function: ir.Function,
    known: set[ir.Value],
    fixed: frozenset[ir.Value] | set[ir.Value],
    scope: _ModelScope,
) -> set[ir.Value]:
    given = list(zip(function.inputs, node.inputs, strict=False))
    inner = {formal for formal, actual in given if actual in known}
    inner_fixed = {formal for formal, actual in given if actual in fixed}
    _walk(function, inner, inner_fixed, scope)
    return {actual for formal, actual in zip(function.outputs, node.outputs, strict=False) if formal in inner}


def _made_by_bodies(
    node: ir.Node, known: set[ir.Value], fixed: frozenset[ir.Value] | set[ir.Value], scope: _ModelScope
) -> set[ir.Value]:
    """What the bodies of an If, Loop, Scan or SequenceMap hand out; what an iteration hands to the next is followed."""
    found: set[ir.Value] = set()
    for body in bodies(node):
        inner = set(known)
        if node.op_type in _FED:
            given = zip(body.inputs, node.inputs, strict=False)
            inner |= {formal for formal, actual in given if actual in known}
        skipped = 1 if node.op_type == "Loop" else 0  # its condition
        before = -1
        while len(inner) > before:
            before = len(inner)
            _walk(body, inner, set(fixed), scope)
            inner |= _carried(node, body, inner)
        results = zip(body.outputs[skipped:], node.outputs, strict=False)
        found |= {actual for result, actual in results if result in inner}
    return found


def _carried(node: ir.Node, body: ir.Graph, inner: set[ir.Value]) -> set[ir.Value]:
    """The inputs of *body* that the next iteration takes from outputs among *inner*."""
    if node.op_type == "Loop":
        pairs = list(zip(body.inputs[2:], body.outputs[1:], strict=False))
    elif node.op_type == "Scan":
        scanned = node.attributes["num_scan_inputs"].as_int()
        states = len(body.inputs) - scanned
        pairs = list(zip(body.inputs[:states], body.outputs[:states], strict=True))
    else:
        return set()
    return {formal for formal, result in pairs if result in inner}


def _walk(nodes: Iterable[ir.Node], known: set[ir.Value], fixed: set[ir.Value], scope: _ModelScope) -> None:
    """Add to *known* all that *nodes*, in order, make from it without a loss."""
    inner = tuple(nodes)
    _add_fixed(inner, fixed)
    for node in inner:
        known |= _made(node, known, fixed, scope)
