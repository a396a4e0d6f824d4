"""Stable Diffusion 1.x with seeded random weights: the published architecture, at any eighth of its width.

Rombach et al. 2022 (arXiv 2112.10752); the sizes are those of the configuration files of version 1.5:
a CLIP text encoder of 12 layers, a UNet of about 860 million weights, the decoder of its autoencoder.
"""

import gc
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxscript  # noqa: F401 - torch imports it only when it exports
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from splitc.common.errors import ModelError
from splitc.samples.diffusion import (
    TEXT_ENCODER,
    UNET,
    VAE_DECODER,
    Diffusion,
    Progress,
    pipeline_folder,
    write_loop,
)
from splitc.samples.names import STABLE_DIFFUSION
from splitc.samples.schedulers import Schedule

WIDTH_STEPS, SIZE_STEP = 8, 64
_TOKENS, _VOCABULARY = 77, 49408
_LATENT_CHANNELS = 4
_PIXELS_PER_LATENT = 8
# Standard deviation of the trained encoder's output; latents are divided by it for the UNet.
_LATENT_STD = 0.18215
_HEADS, _TEXT_HEADS, _TEXT_LAYERS = 8, 12, 12
_GROUPS = 32
_OPSET = 18
_SEED = 2402


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of the networks.

    Attributes:
        text: of the text encoder, and of what the UNet attends to.
        unet: of the UNet's resolutions, from the highest to the lowest.
        vae: of the decoder's, likewise.
    """

    text: int
    unet: tuple[int, ...]
    vae: tuple[int, ...]


def widths(width: float) -> Widths:
    """Return the published widths times *width*.

    Raises:
        ModelError: *width* is not a positive multiple of 1/8, so that heads and groups of channels would not divide.
    """
    if not (width > 0 and (width * WIDTH_STEPS).is_integer()):
        raise ModelError(
            f"width {width:g} is not a positive multiple of 1/{WIDTH_STEPS}; try 0.125, 0.5 or 1"
        )
    text, unet, vae = (768,), (320, 640, 1280, 1280), (128, 256, 512, 512)
    scaled = [tuple(int(channels * width) for channels in published) for published in (text, unet, vae)]
    return Widths(scaled[0][0], scaled[1], scaled[2])


def write_stable_diffusion(
    folder: Path, schedule: Schedule, *, width: float, size: int, progress: Progress
) -> None:
    """Export the pipeline to *folder*, for images of *size* x *size* pixels.

    Raises:
        ModelError: *width* or *size* is impossible, or there is something at *folder* already.
    """
    if size < SIZE_STEP or size % SIZE_STEP:
        raise ModelError(f"size {size} is not a positive multiple of {SIZE_STEP} pixels; try 512")
    channels, side = widths(width), size // _PIXELS_PER_LATENT
    with pipeline_folder(folder) as staging, torch.no_grad():
        progress(TEXT_ENCODER)
        _export_text_encoder(channels, staging / TEXT_ENCODER)
        progress(UNET)
        _export_unet(channels, side, staging / UNET)
        progress(VAE_DECODER)
        _export_vae_decoder(channels, side, staging / VAE_DECODER)
        write_loop(staging, Diffusion(STABLE_DIFFUSION, schedule, (_LATENT_CHANNELS, side, side)))


class TextEncoder(torch.nn.Module):
    """CLIP's, without its pooled output, which nothing here reads."""

    def __init__(self, channels: Widths) -> None:
        super().__init__()
        torch.manual_seed(_SEED)
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=_VOCABULARY,
                hidden_size=channels.text,
                intermediate_size=4 * channels.text,
                num_hidden_layers=_TEXT_LAYERS,
                num_attention_heads=_TEXT_HEADS,
                max_position_embeddings=_TOKENS,
                hidden_act="quick_gelu",
            )
        )

    def forward(self, input_ids: Any) -> Any:
        """Return the last hidden state."""
        return self.clip(input_ids, return_dict=False)[0]


class UNet(torch.nn.Module):
    """The UNet as it was published."""

    def __init__(self, channels: Widths, side: int) -> None:
        super().__init__()
        torch.manual_seed(_SEED)
        self.unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=_LATENT_CHANNELS,
            out_channels=_LATENT_CHANNELS,
            block_out_channels=channels.unet,
            down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
            layers_per_block=2,
            cross_attention_dim=channels.text,
            attention_head_dim=_HEADS,  # diffusers' name for how many there are
            norm_num_groups=math.gcd(_GROUPS, channels.unet[0]),
        )

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        """Return the predicted noise."""
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeDecoder(torch.nn.Module):
    """The decoder, between the scaling of latents and that of pixels to 0 ... 1."""

    def __init__(self, channels: Widths) -> None:
        super().__init__()
        torch.manual_seed(_SEED)
        self.vae = AutoencoderKL(
            latent_channels=_LATENT_CHANNELS,
            block_out_channels=channels.vae,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=math.gcd(_GROUPS, channels.vae[0]),
        )

    def forward(self, latent_sample: Any) -> Any:
        """Return the image."""
        image = self.vae.decode(latent_sample / _LATENT_STD, return_dict=False)[0]
        return (image / 2 + 0.5).clamp(0, 1)


def _export_text_encoder(channels: Widths, path: Path) -> None:
    ids = torch.zeros(2, _TOKENS, dtype=torch.int64)
    _export(TextEncoder(channels), {"input_ids": ids}, "last_hidden_state", path)


def _export_unet(channels: Widths, side: int, path: Path) -> None:
    inputs = {
        "sample": torch.zeros(2, _LATENT_CHANNELS, side, side),
        "timestep": torch.zeros(2, dtype=torch.int64),
        "encoder_hidden_states": torch.zeros(2, _TOKENS, channels.text),
    }
    _export(UNet(channels, side), inputs, "out_sample", path)


def _export_vae_decoder(channels: Widths, side: int, path: Path) -> None:
    inputs = {"latent_sample": torch.zeros(2, _LATENT_CHANNELS, side, side)}
    _export(VaeDecoder(channels), inputs, "image", path)


def _export(module: Any, inputs: Mapping[str, Any], output: str, path: Path) -> None:
    """Write *module* to *path* and its weights to a file in the same folder; the batch is symbolic."""
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=[{0: batch} for _ in inputs],
        )
    _forget_source(program.model)
    ir.save(program.model, path, external_data=f"{path.name}.data")
    del program
    gc.collect()  # the exporter's graphs refer to each other, and to the weights


def _forget_source(model: ir.Model) -> None:
    """Remove the exporter's metadata about source code, because it contains paths of this machine."""
    graph = model.graph
    values: list[ir.Value] = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
    graph.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's internal warnings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
