"""The work of a node: operator class, multiply-accumulates and bytes, from which its time is predicted."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from splitc.model.graph import Work
from splitc.model.nodes import used_inside
from splitc.model.sizes import Size

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
_TRANSCENDENTAL = frozenset(
    """Acos Acosh Asin Asinh Atan Atanh BiasGelu Celu Cos Cosh Elu Erf Exp FastGelu Gelu LRN Log LogSoftmax
    Mish Pow QuickGelu ReduceLogSumExp Selu Sigmoid Sin Sinh Softmax Softplus Softsign Swish Tan Tanh""".split()
)
_MEMORY = frozenset(
    """Abs Add Affine And ArgMax ArgMin AveragePool BatchNormalization BitShift Cast CastLike Ceil Clip
    Concat ConstantOfShape Crop CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear
    Equal Expand EyeLike FeatureVectorizer Flatten Floor Gather GatherElements GatherND GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity
    ImageScaler InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual
    LpNormalization Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg Normalizer Not OneHot Or
    PRelu Pad QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round
    Scaler ScatterElements ScatterND Shape Sign SimplifiedLayerNormalization Size SkipLayerNormalization
    Slice SpaceToDepth Split Sqrt Squeeze Sub Sum ThresholdedRelu Tile Transpose Trilu Unsqueeze Upsample
    Where Xor""".split()
)


def node_work(node: ir.Node, sizes: Mapping[str, Size]) -> Work | None:
    """Return the work of *node*; None if the size of a tensor that it uses is unknown."""
    made = [sizes.get(value.name or "") for value in node.outputs if value.name]
    used = dict.fromkeys(value for value in node.inputs if value is not None)
    # Values computed inside a body have no known size; captured ones (mostly weights) have one.
    used |= dict.fromkeys(value for value in used_inside(node) if value is not None and _bytes(value, sizes))
    read = [_bytes(value, sizes) for value in used]
    if any(size is None for size in made) or any(nbytes is None for nbytes in read):
        return None
    op_class, macs = _macs(node, sizes)
    return Work(
        op=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        op_class=op_class,
        macs=macs,
        read_bytes=sum(nbytes for nbytes in read if nbytes is not None),
        write_bytes=sum(size.nbytes for size in made if size is not None),
        weight_bytes=sum(value.const_value.nbytes for value in used if value.const_value is not None),
    )


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
    if op in _TRANSCENDENTAL:
        return "transcendental", 0
    return ("memory" if op in _MEMORY else "other"), 0


def _convolution_class(node: ir.Node, weight: tuple[int, ...]) -> str:
    groups = node.attributes.get_int("group", 1)
    strides = node.attributes.get_ints("strides", [1])
    if groups > 1:
        return "depthwise" if weight[1] == 1 else "grouped"
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
