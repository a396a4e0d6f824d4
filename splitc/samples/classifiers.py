"""Image classifiers: RegNetY of Radosavovic et al. 2020, "Designing Network Design Spaces" (arXiv 2003.13678).

A stem, four stages of residual bottlenecks, each a 1x1, a grouped 3x3, a squeeze-and-excitation and
a 1x1 convolution.
"""

from dataclasses import dataclass

from onnx import ModelProto

from splitc.samples.layers import BRANCH_GAIN, Layers, finish, port

CLASSES = 1000
STEM_WIDTH = 32
SE_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class RegNetY:
    """Depths and widths of the four stages, and the width of a group of channels."""

    name: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group_width: int


REGNET_Y_400MF = RegNetY("regnet_y_400mf", (1, 3, 6, 6), (48, 104, 208, 440), group_width=8)
REGNET_Y_4GF = RegNetY("regnet_y_4gf", (2, 6, 12, 2), (128, 192, 512, 1088), group_width=64)


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
    return finish(layers, design.name, [port("image", (1, 3, 224, 224))], port("logits", (1, CLASSES)))


def bottleneck(
    layers: Layers, source: str, name: str, shape: tuple[int, int], *, stride: int, group_width: int
) -> str:
    """Add a residual block; if it changes the shape, a convolution changes the shape of the shortcut, too."""
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
    return finish(layers, "tiny_cnn", [port("image", (1, 3, 32, 32))], port("logits", (1, 10)))
