"""Layers of transformers and diffusion models; tokens have shape (batch, tokens, width), images are NCHW."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from splitc.samples.layers import BRANCH_GAIN, RELU_VARIANCE, Layers

# Gain for normalised inputs, because `Layers.draw` expects outputs of a ReLU.
NORMED_GAIN = math.sqrt(RELU_VARIANCE)
_HEADS = 4
_GROUPS = 8


@dataclass(slots=True)
class Blocks(Layers):
    """A graph of such layers under construction."""

    def integers(self, name: str, values: Sequence[int]) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def reshape(self, source: str, name: str, shape: Sequence[int]) -> str:
        """Reshape; 0 keeps a size, -1 is computed from the other sizes."""
        return self.add("Reshape", name, (source, self.integers(f"{name}/shape", shape)))

    def linear(self, source: str, name: str, shape: tuple[int, int], gain: float = NORMED_GAIN) -> str:
        """Multiply by a matrix; the shape is (width in, width out)."""
        weight = self.initializer(f"{name}/weight", self.draw(shape[::-1], gain).T)
        product = self.add("MatMul", f"{name}/product", (source, weight))
        return self.add("Add", name, (product, self.bias(f"{name}/bias", shape[1])))

    def silu(self, source: str) -> str:
        gate = self.add("Sigmoid", f"{source}/sigmoid", (source,))
        return self.add("Mul", f"{source}/silu", (source, gate))

    def layer_norm(self, source: str, name: str, width: int) -> str:
        scale = self.initializer(f"{name}/weight", np.ones(width))
        return self.add(
            "LayerNormalization", name, (source, scale, self.bias(f"{name}/bias", width)), axis=-1
        )

    def group_norm(self, source: str, name: str, channels: int, side: int) -> str:
        """Normalise groups of channels of an image of *side* x *side*, the way exporters write it."""
        grouped = self.reshape(source, f"{name}/grouped", (0, _GROUPS, -1))
        scale = self.initializer(f"{name}/ones", np.ones(_GROUPS))
        shift = self.initializer(f"{name}/zeros", np.zeros(_GROUPS))
        normed = self.add("InstanceNormalization", f"{name}/normed", (grouped, scale, shift))
        image = self.reshape(normed, f"{name}/image", (0, channels, side, side))
        bias = self.initializer(f"{name}/bias", 0.05 * self.random.standard_normal((channels, 1, 1)))
        return self.add("Add", name, (image, bias))

    def attention(
        self,
        source: str,
        name: str,
        width: int,
        *,
        context: str | None = None,
        context_width: int | None = None,
        mask: NDArray[np.float64] | None = None,
    ) -> str:
        """Attend to the context, or to the source itself; the mask is added to the scores."""
        read, read_width = context or source, context_width or width
        query = self.heads(self.linear(source, f"{name}/query", (width, width)), f"{name}/queries", width)
        key = self.heads(self.linear(read, f"{name}/key", (read_width, width)), f"{name}/keys", width)
        value = self.heads(self.linear(read, f"{name}/value", (read_width, width)), f"{name}/values", width)
        turned = self.add("Transpose", f"{name}/keys/turned", (key,), perm=[0, 1, 3, 2])
        product = self.add("MatMul", f"{name}/product", (query, turned))
        scale = self.initializer(f"{name}/scale", np.array(math.sqrt(_HEADS / width)))
        scores = self.add("Mul", f"{name}/scores", (product, scale))
        if mask is not None:
            scores = self.add("Add", f"{name}/masked", (scores, self.initializer(f"{name}/mask", mask)))
        shares = self.add("Softmax", f"{name}/shares", (scores,), axis=-1)
        mixed = self.add("MatMul", f"{name}/mixed", (shares, value))
        together = self.add("Transpose", f"{name}/together", (mixed,), perm=[0, 2, 1, 3])
        joined = self.reshape(together, f"{name}/joined", (0, 0, width))
        return self.linear(joined, f"{name}/out", (width, width), gain=BRANCH_GAIN)

    def heads(self, source: str, name: str, width: int) -> str:
        """Reshape tokens to (batch, heads, tokens, width / heads)."""
        split = self.reshape(source, f"{name}/split", (0, 0, _HEADS, width // _HEADS))
        return self.add("Transpose", name, (split,), perm=[0, 2, 1, 3])

    def feed_forward(self, source: str, name: str, width: int) -> str:
        inner = self.silu(self.linear(source, f"{name}/inner", (width, 2 * width)))
        return self.linear(inner, f"{name}/out", (2 * width, width), gain=BRANCH_GAIN)

    def residual(
        self,
        source: str,
        name: str,
        shape: tuple[int, int],
        side: int,
        *,
        time: tuple[str, int] | None = None,
    ) -> str:
        """Add a residual block of two convolutions; *time* is an embedding (batch, width) and its width."""
        channels, width = shape
        normed = self.silu(self.group_norm(source, f"{name}/norm1", channels, side))
        tensor = self.conv(normed, f"{name}/conv1", shape, kernel=3)
        if time is not None:
            moved = self.linear(time[0], f"{name}/time", (time[1], width), gain=1.0)
            tensor = self.add(
                "Add", f"{name}/timed", (tensor, self.reshape(moved, f"{name}/shift", (0, 0, 1, 1)))
            )
        normed = self.silu(self.group_norm(tensor, f"{name}/norm2", width, side))
        tensor = self.conv(normed, f"{name}/conv2", (width, width), kernel=3, gain=BRANCH_GAIN)
        shortcut = source
        if channels != width:
            shortcut = self.conv(source, f"{name}/shortcut", shape, gain=NORMED_GAIN)
        return self.add("Add", f"{name}/add", (tensor, shortcut))

    def upsample(self, source: str, name: str, shape: tuple[int, int]) -> str:
        """Double height and width, then convolve."""
        scales = self.initializer(f"{name}/scales", np.array([1.0, 1.0, 2.0, 2.0]))
        larger = self.add(
            "Resize",
            f"{name}/larger",
            (source, "", scales),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return self.conv(larger, name, shape, kernel=3, gain=NORMED_GAIN)
