"""Models that are made here, with random weights: of kinds that neither the samples nor ../shared/models have."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

MATRICES, MATRIX_WIDTH = 8, 1024
MELS, FRAMES = 64, 64
# Stages of the listener, each at half the size of the one before: channels, convolutions.
STAGES = ((64, 5), (128, 8), (256, 8), (512, 8))
NECK_AFTER, NECK_CHANNELS = 2, 4


class _Layers:
    """Nodes in a row, and their weights."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return what it makes."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, shape: Sequence[int], inputs: int) -> str:
        """Random weights that keep what passes at the same scale."""
        values = self._random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / inputs))
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def save(self, path: Path, given: ValueInfoProto, made: ValueInfoProto) -> None:
        """Write them as a model."""
        graph = helper.make_graph(self.nodes, path.stem, [given], [made], self.weights)
        opset = helper.make_opsetid("", 18)
        onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


def write_matrices(path: Path) -> None:
    """A stack of matrix products whose weights are read once for a whole batch: what batching is for."""
    layers, x = _Layers(), "x"
    for _ in range(MATRICES):
        weight = layers.weight((MATRIX_WIDTH, MATRIX_WIDTH), MATRIX_WIDTH)
        x = layers.add("Relu", layers.add("MatMul", x, weight))
    shape: list[str | int | None] = ["batch", MATRIX_WIDTH]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x))
    layers.save(path, given, made)


def write_listener(path: Path) -> None:
    """Much work on a small input, as models of sound have it, and a narrow place inside: a cellular link can carry both."""
    layers, x, channels = _Layers(), "mels", 1
    for stage, (width, count) in enumerate(STAGES):
        if stage == NECK_AFTER:
            weight = layers.weight((NECK_CHANNELS, channels, 1, 1), channels)
            x, channels = layers.add("Relu", layers.add("Conv", x, weight)), NECK_CHANNELS
        for _ in range(count):
            weight = layers.weight((width, channels, 3, 3), 9 * channels)
            x = layers.add("Relu", layers.add("Conv", x, weight, pads=[1, 1, 1, 1]))
            channels = width
        x = layers.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = layers.add("Flatten", layers.add("GlobalAveragePool", x))
    given = helper.make_tensor_value_info("mels", TensorProto.FLOAT, [1, 1, MELS, FRAMES])
    made = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, channels])
    layers.save(path, given, made)


MADE: Mapping[str, Callable[[Path], None]] = {"matrices": write_matrices, "listener": write_listener}
