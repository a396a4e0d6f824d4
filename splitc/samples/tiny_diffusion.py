"""A latent diffusion pipeline of a few megabytes, with the same structure as Stable Diffusion but small networks."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from splitc.samples.blocks import NORMED_GAIN, Blocks
from splitc.samples.diffusion import (
    TEXT_ENCODER,
    UNET,
    VAE_DECODER,
    Diffusion,
    pipeline_folder,
    write_loop,
    write_model,
)
from splitc.samples.layers import BRANCH_GAIN, finish, port
from splitc.samples.names import TINY_DIFFUSION, TINY_DIFFUSION_TIMES
from splitc.samples.schedulers import Schedule, ddim

TOKENS, VOCABULARY = 32, 512
CHANNELS, SIDE = 4, 32
_TEXT_WIDTH = 64
_TEXT_LAYERS = 2
_TIME_WIDTH = 64
_LOWER = SIDE // 2
_NARROW, _WIDE = 32, 64
_IMAGE_SIDE = 4 * SIDE
_LAST_WIDTH = 16
# Frequencies of the sines in an embedding of time, decreasing from 1, as in Vaswani et al. 2017 (arXiv 1706.03762).
_LONGEST_PERIOD = 10_000
_MASKED = -1e4


def write_tiny_diffusion(
    folder: Path, make_schedule: Callable[[int], Schedule] = ddim, times: int = TINY_DIFFUSION_TIMES
) -> None:
    """Write the pipeline to *folder*: the same bytes each time.

    Raises:
        ModelError: there is something at *folder* already, or a scheduler has no such number of iterations.
    """
    design = Diffusion(TINY_DIFFUSION, make_schedule(times), (CHANNELS, SIDE, SIDE))
    with pipeline_folder(folder) as staging:
        write_model(text_encoder(), staging / TEXT_ENCODER)
        write_model(unet(), staging / UNET)
        write_model(vae_decoder(), staging / VAE_DECODER)
        write_loop(staging, design)


def text_encoder() -> ModelProto:
    """Return a causal transformer."""
    layers = Blocks()
    words = layers.initializer("words", layers.random.standard_normal((VOCABULARY, _TEXT_WIDTH)))
    places = layers.initializer("places", layers.random.standard_normal((TOKENS, _TEXT_WIDTH)))
    tensor = layers.add("Gather", "embedding", (words, "input_ids"))
    tensor = layers.add("Add", "placed", (tensor, places))
    mask = np.triu(np.full((TOKENS, TOKENS), _MASKED), k=1)
    for layer in range(1, _TEXT_LAYERS + 1):
        name = f"layer{layer}"
        normed = layers.layer_norm(tensor, f"{name}/norm1", _TEXT_WIDTH)
        attended = layers.attention(normed, f"{name}/attention", _TEXT_WIDTH, mask=mask)
        tensor = layers.add("Add", f"{name}/attended", (tensor, attended))
        normed = layers.layer_norm(tensor, f"{name}/norm2", _TEXT_WIDTH)
        moved = layers.feed_forward(normed, f"{name}/feed_forward", _TEXT_WIDTH)
        tensor = layers.add("Add", f"{name}/out", (tensor, moved))
    layers.layer_norm(tensor, "last_hidden_state", _TEXT_WIDTH)
    return finish(
        layers,
        "text_encoder",
        [port("input_ids", ("batch", TOKENS), TensorProto.INT64)],
        port("last_hidden_state", ("batch", TOKENS, _TEXT_WIDTH)),
    )


def unet() -> ModelProto:
    """Return a UNet of two resolutions, which attends to itself and to the text at the lower one.

    Its input is added to what it makes: a trained UNet finds most of the noise that it is given, and
    without that latents would grow from iteration to iteration.
    """
    layers = Blocks()
    time = _embed_time(layers), _TIME_WIDTH
    first = layers.conv("sample", "conv_in", (CHANNELS, _NARROW), kernel=3, gain=NORMED_GAIN)
    upper = layers.residual(first, "down1", (_NARROW, _NARROW), SIDE, time=time)
    tensor = layers.conv(upper, "downsample", (_NARROW, _NARROW), kernel=3, stride=2, gain=NORMED_GAIN)
    tensor = layers.residual(tensor, "down2", (_NARROW, _WIDE), _LOWER, time=time)
    lower = _attend(layers, tensor, "down2/transformer")
    tensor = layers.residual(lower, "middle", (_WIDE, _WIDE), _LOWER, time=time)
    tensor = layers.add("Concat", "up2/concat", (tensor, lower), axis=1)
    tensor = layers.residual(tensor, "up2", (2 * _WIDE, _WIDE), _LOWER, time=time)
    tensor = _attend(layers, tensor, "up2/transformer")
    tensor = layers.upsample(tensor, "upsample", (_WIDE, _NARROW))
    tensor = layers.add("Concat", "up1/concat", (tensor, upper), axis=1)
    tensor = layers.residual(tensor, "up1", (2 * _NARROW, _NARROW), SIDE, time=time)
    tensor = layers.silu(layers.group_norm(tensor, "norm_out", _NARROW, SIDE))
    tensor = layers.conv(tensor, "conv_out", (_NARROW, CHANNELS), kernel=3, gain=BRANCH_GAIN)
    layers.add("Add", "out_sample", (tensor, "sample"))
    image = ("batch", CHANNELS, SIDE, SIDE)
    inputs = [
        port("sample", image),
        port("timestep", ("batch",), TensorProto.INT64),
        port("encoder_hidden_states", ("batch", TOKENS, _TEXT_WIDTH)),
    ]
    return finish(layers, "unet", inputs, port("out_sample", image))


def _embed_time(layers: Blocks) -> str:
    half = _TIME_WIDTH // 2
    rates = layers.initializer("time/rates", np.exp(-math.log(_LONGEST_PERIOD) * np.arange(half) / half))
    steps = layers.add("Cast", "time/steps", ("timestep",), to=TensorProto.FLOAT)
    turns = layers.add("Mul", "time/turns", (layers.reshape(steps, "time/column", (-1, 1)), rates))
    waves = [layers.add(kind, f"time/{kind.lower()}", (turns,)) for kind in ("Sin", "Cos")]
    both = layers.add("Concat", "time/both", waves, axis=1)
    inner = layers.silu(layers.linear(both, "time/inner", (_TIME_WIDTH, _TIME_WIDTH), gain=1.0))
    return layers.silu(layers.linear(inner, "time/out", (_TIME_WIDTH, _TIME_WIDTH), gain=1.0))


def _attend(layers: Blocks, source: str, name: str) -> str:
    """Let the pixels of the lower resolution attend to each other, then to the text."""
    normed = layers.group_norm(source, f"{name}/norm", _WIDE, _LOWER)
    flat = layers.reshape(normed, f"{name}/flat", (0, _WIDE, -1))
    tensor = layers.add("Transpose", f"{name}/tokens", (flat,), perm=[0, 2, 1])
    normed = layers.layer_norm(tensor, f"{name}/norm1", _WIDE)
    tensor = layers.add("Add", f"{name}/add1", (tensor, layers.attention(normed, f"{name}/self", _WIDE)))
    normed = layers.layer_norm(tensor, f"{name}/norm2", _WIDE)
    crossed = layers.attention(
        normed, f"{name}/cross", _WIDE, context="encoder_hidden_states", context_width=_TEXT_WIDTH
    )
    tensor = layers.add("Add", f"{name}/add2", (tensor, crossed))
    normed = layers.layer_norm(tensor, f"{name}/norm3", _WIDE)
    tensor = layers.add(
        "Add", f"{name}/add3", (tensor, layers.feed_forward(normed, f"{name}/feed_forward", _WIDE))
    )
    flat = layers.add("Transpose", f"{name}/channels", (tensor,), perm=[0, 2, 1])
    image = layers.reshape(flat, f"{name}/image", (0, _WIDE, _LOWER, _LOWER))
    return layers.add("Add", f"{name}/add", (image, source))


def vae_decoder() -> ModelProto:
    """Return a decoder that doubles height and width twice."""
    layers = Blocks()
    tensor = layers.conv("latent_sample", "conv_in", (CHANNELS, _WIDE), kernel=3, gain=NORMED_GAIN)
    tensor = layers.residual(tensor, "middle", (_WIDE, _WIDE), SIDE)
    tensor = layers.upsample(tensor, "upsample1", (_WIDE, _NARROW))
    tensor = layers.residual(tensor, "up1", (_NARROW, _NARROW), 2 * SIDE)
    tensor = layers.upsample(tensor, "upsample2", (_NARROW, _LAST_WIDTH))
    tensor = layers.silu(layers.group_norm(tensor, "norm_out", _LAST_WIDTH, _IMAGE_SIDE))
    tensor = layers.conv(tensor, "conv_out", (_LAST_WIDTH, 3), kernel=3, gain=BRANCH_GAIN)
    half = layers.initializer("half", np.array(0.5))
    middle = layers.add("Add", "middle_grey", (layers.add("Mul", "contrast", (tensor, half)), half))
    bounds = [layers.initializer(name, np.array(value)) for name, value in (("black", 0.0), ("white", 1.0))]
    layers.add("Clip", "image", (middle, *bounds))
    return finish(
        layers,
        "vae_decoder",
        [port("latent_sample", ("batch", CHANNELS, SIDE, SIDE))],
        port("image", ("batch", 3, _IMAGE_SIDE, _IMAGE_SIDE)),
    )
