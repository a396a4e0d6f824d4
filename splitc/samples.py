"""Models to try splitc on, built here with random weights: nothing to download, nothing to train.

The architectures are RegNetY of Radosavovic et al. 2020, "Designing Network Design Spaces"
(arXiv 2003.13678): a stem, four stages of residual bottlenecks, each a 1x1, a grouped 3x3, a
squeeze-and-excitation and a 1x1 convolution. Random weights give a trained model's shapes and
times, not its answers.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from splitc.errors import ModelError

CLASSES = 1000
STEM_WIDTH = 32
SE_RATIO = 0.25
# Variance of a ReLU's output, for a standard normal input.
RELU_VARIANCE = (1 - 1 / math.pi) / 2
# The branch of a residual block adds to its shortcut: a small one keeps the scale through all blocks.
BRANCH_GAIN = 0.5


@dataclass(frozen=True, slots=True)
class RegNetY:
    """Depths and widths of the four stages, and the width of a group of channels."""

    name: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group_width: int


REGNET_Y_400MF = RegNetY("regnet_y_400mf", (1, 3, 6, 6), (48, 104, 208, 440), group_width=8)
REGNET_Y_4GF = RegNetY("regnet_y_4gf", (2, 6, 12, 2), (128, 192, 512, 1088), group_width=64)


@dataclass(slots=True)
class Layers:
    """A graph under construction: each method adds one layer and returns the name of its output."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.Generator(np.random.PCG64(2402)))

    def add(self, kind: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, shape: Sequence[int], gain: float = 1.0) -> str:
        """Add weights that keep the scale of what a ReLU made, times *gain*; the first axis is the output.

        Each filter sums to zero, as if batch normalisation had removed the mean. Otherwise the
        means that a ReLU makes add up through the depth, and drown what the input says.
        """
        values = self.random.standard_normal(shape)
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        values *= gain / math.sqrt(RELU_VARIANCE * math.prod(shape[1:]))
        return self.initializer(name, values)

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
        """Average over space, then one matrix."""
        mean = self.add("Flatten", "head/flatten", (self.add("GlobalAveragePool", "head/mean", (source,)),))
        inputs = (mean, self.weight("head/weight", (classes, width)), self.bias("head/bias", classes))
        self.add("Gemm", output, inputs, transB=1)


def regnet_y(design: RegNetY) -> ModelProto:
    """Return the network with its batch normalisation folded into the convolutions."""
    layers = Layers()
    tensor, width = (
        layers.relu(layers.conv("image", "stem/conv", (3, STEM_WIDTH), kernel=3, stride=2)),
        STEM_WIDTH,
    )
    for stage, (depth, stage_width) in enumerate(zip(design.depths, design.widths, strict=True), start=1):
        for block in range(1, depth + 1):
            name, shape, stride = f"stage{stage}/block{block}", (width, stage_width), 2 if block == 1 else 1
            tensor = bottleneck(layers, tensor, name, shape, stride=stride, group_width=design.group_width)
            width = stage_width
    layers.classify(tensor, width, CLASSES, "logits")
    return finish(layers, design.name, ("image", (1, 3, 224, 224)), ("logits", (1, CLASSES)))


def bottleneck(
    layers: Layers, source: str, name: str, shape: tuple[int, int], *, stride: int, group_width: int
) -> str:
    """Add a residual block; where it changes the shape, so does a convolution on the shortcut."""
    channels, width = shape
    tensor = layers.relu(layers.conv(source, f"{name}/conv1", shape))
    groups = width // group_width
    tensor = layers.conv(tensor, f"{name}/conv2", (width, width), kernel=3, stride=stride, groups=groups)
    # The paper squeezes relative to the input of the block, not to its own width.
    tensor = layers.squeeze_excite(layers.relu(tensor), f"{name}/se", width, round(SE_RATIO * channels))
    tensor = layers.conv(tensor, f"{name}/conv3", (width, width), gain=BRANCH_GAIN)
    shortcut = source
    if stride != 1 or channels != width:
        shortcut = layers.conv(source, f"{name}/shortcut", shape, stride=stride)
    return layers.relu(layers.add("Add", f"{name}/add", (tensor, shortcut)))


def tiny_cnn() -> ModelProto:
    """Return a CNN of a few kilobytes with one residual block, for tests and first steps."""
    layers = Layers()
    stem = layers.relu(layers.conv("image", "stem/conv", (3, 8), kernel=3, stride=2))
    inner = layers.relu(layers.conv(stem, "block/conv1", (8, 8), kernel=3))
    branch = layers.conv(inner, "block/conv2", (8, 8), kernel=3, gain=BRANCH_GAIN)
    joined = layers.relu(layers.add("Add", "block/add", (branch, stem)))
    last = layers.relu(layers.conv(joined, "last/conv", (8, 32), kernel=3, stride=2))
    layers.classify(last, 32, 10, "logits")
    return finish(layers, "tiny_cnn", ("image", (1, 3, 32, 32)), ("logits", (1, 10)))


def finish(
    layers: Layers, name: str, source: tuple[str, tuple[int, ...]], result: tuple[str, tuple[int, ...]]
) -> ModelProto:
    ports = [
        helper.make_tensor_value_info(port, TensorProto.FLOAT, shape) for port, shape in (source, result)
    ]
    graph = helper.make_graph(layers.nodes, name, ports[:1], ports[1:], layers.weights)
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10, producer_name="splitc")


SAMPLES: dict[str, Callable[[], ModelProto]] = {
    REGNET_Y_400MF.name: lambda: regnet_y(REGNET_Y_400MF),
    REGNET_Y_4GF.name: lambda: regnet_y(REGNET_Y_4GF),
    tiny_cnn.__name__: tiny_cnn,
}


def write_sample(name: str, path: Path) -> None:
    """Build the sample and write it to *path*: the same bytes each time.

    Raises:
        ModelError: there is no such sample.
    """
    if name not in SAMPLES:
        close = get_close_matches(name, SAMPLES, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(SAMPLES)}"
        raise ModelError(f"there is no sample named {name!r}; {advice}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(SAMPLES[name]().SerializeToString(deterministic=True))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
