"""Graphs built layer by layer, with seeded random weights that keep values in range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

# Variance of a ReLU's output, for a standard normal input.
RELU_VARIANCE = (1 - 1 / math.pi) / 2
# The branch of a residual block adds to its shortcut: a small one keeps the scale through all blocks.
BRANCH_GAIN = 0.5
_OPSET, _IR_VERSION = 18, 10


@dataclass(slots=True)
class Layers:
    """A graph under construction: each method adds one layer and returns the name of its output."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.Generator(np.random.PCG64(2402)))

    def add(self, kind: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def draw(self, shape: Sequence[int], gain: float = 1.0) -> NDArray[np.float64]:
        """Draw weights that keep the scale of what a ReLU made, times *gain*; the first axis is the output.

        Each filter sums to zero, as if batch normalisation had removed the mean. Otherwise the
        means that a ReLU makes add up through the depth, and drown what the input says.
        """
        values = self.random.standard_normal(shape)
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        values *= gain / math.sqrt(RELU_VARIANCE * math.prod(shape[1:]))
        return values

    def weight(self, name: str, shape: Sequence[int], gain: float = 1.0) -> str:
        return self.initializer(name, self.draw(shape, gain))

    def bias(self, name: str, width: int) -> str:
        return self.initializer(name, 0.05 * self.random.standard_normal(width))

    def initializer(self, name: str, values: NDArray[np.float64]) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(
        self,
        source: str,
        name: str,
        shape: tuple[int, int],
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
    ) -> str:
        """Convolve; the shape is (channels in, channels out)."""
        channels, width = shape
        weights = self.weight(f"{name}/weight", (width, channels // groups, kernel, kernel), gain)
        inputs = (source, weights, self.bias(f"{name}/bias", width))
        pads = [kernel // 2] * 4
        return self.add("Conv", name, inputs, strides=[stride] * 2, pads=pads, group=groups)

    def relu(self, source: str) -> str:
        return self.add("Relu", f"{source}/relu", (source,))

    def squeeze_excite(self, source: str, name: str, width: int, squeezed: int) -> str:
        mean = self.add("GlobalAveragePool", f"{name}/mean", (source,))
        inner = self.relu(self.conv(mean, f"{name}/reduce", (width, squeezed)))
        gate = self.add("Sigmoid", f"{name}/gate", (self.conv(inner, f"{name}/expand", (squeezed, width)),))
        return self.add("Mul", f"{name}/scale", (source, gate))

    def classify(self, source: str, width: int, classes: int, output: str) -> None:
        """Average over height and width, then multiply by a matrix."""
        mean = self.add("Flatten", "head/flatten", (self.add("GlobalAveragePool", "head/mean", (source,)),))
        inputs = (mean, self.weight("head/weight", (classes, width)), self.bias("head/bias", classes))
        self.add("Gemm", output, inputs, transB=1)


def port(name: str, shape: Sequence[int | str], element: int = TensorProto.FLOAT) -> ValueInfoProto:
    """Return the declaration of an input or output; a size that is a string is symbolic."""
    return helper.make_tensor_value_info(name, element, shape)


def finish(layers: Layers, name: str, inputs: Sequence[ValueInfoProto], output: ValueInfoProto) -> ModelProto:
    """Return the model."""
    graph = helper.make_graph(layers.nodes, name, inputs, [output], layers.weights)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="splitc")
