"""What a node has to do: operator class, multiply-accumulates and bytes, for predicting its time."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from splitc.bodies import used_inside
from splitc.graph import Work
from splitc.sizes import Size

_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = {
    "MatMul",
    "FusedMatMul",
    "MatMulInteger",
    "QLinearMatMul",
    "Gemm",
    "FusedGemm",
    "TransposeMatMul",
    "MatMulNBits",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}
_RECURRENT = {"LSTM", "GRU", "RNN"}
_MEMORY = frozenset(
    """Abs Acos Acosh Add Affine And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BiasGelu
    BitShift Cast CastLike Ceil Celu Clip Concat ConstantOfShape Cos Cosh Crop CumSum DepthToSpace DequantizeLinear
    Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike FastGelu FeatureVectorizer Flatten Floor
    Gather GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HardSigmoid HardSwish Hardmax Identity ImageScaler InstanceNormalization IsInf IsNaN LRN LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization Max MaxPool Mean MeanVarianceNormalization Min Mish
    Mod Mul Neg Normalizer Not OneHot Or PRelu Pad Pow QuantizeLinear QuickGelu RMSNormalization Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence Round Scaler ScatterElements ScatterND Selu Shape Sigmoid
    Sign SimplifiedLayerNormalization Sin Sinh Size SkipLayerNormalization Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile Transpose Trilu Unsqueeze Upsample
    Where Xor""".split()
)


def node_work(node: ir.Node, sizes: Mapping[str, Size]) -> Work | None:
    """The work of *node*, or None when a size that it depends on is unknown."""
    made = [sizes.get(value.name or "") for value in node.outputs if value.name]
    used = dict.fromkeys(value for value in node.inputs if value is not None)
    # Values made inside a body have no size of their own; captured ones, and above all weights, have.
    used |= dict.fromkeys(value for value in used_inside(node) if value is not None and _bytes(value, sizes))
    read = [_bytes(value, sizes) for value in used]
    if any(size is None for size in made) or any(nbytes is None for nbytes in read):
        return None
    op_class, macs = _macs(node, sizes)
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    write_bytes = sum(size.nbytes for size in made if size is not None)
    return Work(op, op_class, macs, sum(nbytes for nbytes in read if nbytes is not None), write_bytes)


def _macs(node: ir.Node, sizes: Mapping[str, Size]) -> tuple[str, int]:
    op = node.op_type
    made = _shape(node.outputs[0], sizes) if node.outputs else None
    if op in _CONVOLUTIONS and made is not None:
        weight = _shape(node.inputs[_CONVOLUTIONS[op]], sizes)
        if weight is not None:
            return _convolution_class(node, weight), _count(made) * _count(weight[1:])
    if op == "ConvTranspose":
        read, weight = _shape(node.inputs[0], sizes), _shape(node.inputs[1], sizes)
        if read is not None and weight is not None:
            return "conv", _count(read) * _count(weight[1:])
    if op in _PRODUCTS and made is not None:
        left = _shape(node.inputs[0], sizes)
        if left:
            transposed = node.attributes.get_int("transA", 0)
            return "matmul", _count(made) * (left[-2] if transposed and len(left) > 1 else left[-1])
    if op in _RECURRENT:
        read, weight, again = (_shape(value, sizes) for value in node.inputs[:3])
        if read is not None and weight is not None and again is not None:
            # Each step multiplies every input weight and every recurrent weight once per batch row.
            return "matmul", read[0] * read[1] * (_count(weight) + _count(again))
    return ("memory" if op in _MEMORY else "other"), 0


def _convolution_class(node: ir.Node, weight: tuple[int, ...]) -> str:
    groups = node.attributes.get_int("group", 1)
    strides = node.attributes.get_ints("strides", [1])
    if groups > 1:
        return "depthwise" if weight[1] == 1 else "conv"
    if all(side == 1 for side in weight[2:]):
        return "pointwise"
    if weight[2:] == (3, 3) and all(stride == 1 for stride in strides):
        return "dense3x3"
    return "conv"


def _shape(value: ir.Value | None, sizes: Mapping[str, Size]) -> tuple[int, ...] | None:
    if value is None:
        return None
    if value.const_value is not None:
        return tuple(int(dim) for dim in value.const_value.shape)  # type: ignore[arg-type]
    size = sizes.get(value.name or "")
    return size.sized if size is not None else None


def _bytes(value: ir.Value, sizes: Mapping[str, Size]) -> int | None:
    if value.const_value is not None:
        return value.const_value.nbytes
    size = sizes.get(value.name or "")
    return size.nbytes if size is not None else None


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
