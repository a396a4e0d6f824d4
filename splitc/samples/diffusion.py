"""Pipelines of latent diffusion: what their samples have in common, apart from the three networks.

Text encoder, then a UNet repeatedly, then the decoder of a variational autoencoder: Rombach et al. 2022,
"High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from splitc.bundle.staging import new_folder
from splitc.common.errors import ModelError
from splitc.samples.schedulers import Schedule, prepare_model, start_model, step_model

PIPELINE = "pipeline.toml"
TEXT_ENCODER, UNET, VAE_DECODER = "text_encoder.onnx", "unet.onnx", "vae_decoder.onnx"
"""Files of the networks; their inputs and outputs are

text encoder: input_ids, int64 (batch, tokens) -> last_hidden_state (batch, tokens, width)
UNet: sample (batch, channels, height, width), timestep, int64 (batch), and encoder_hidden_states, which are the
    text encoder's last_hidden_state -> out_sample, as sample
VAE decoder: latent_sample, as sample -> image (batch, 3, height, width) from 0 to 1
"""
Progress = Callable[[str], None]
"""Called with the name of the file that is being written."""
_STEP, _PREPARE, _START = "step.onnx", "prepare.onnx", "start.onnx"


@dataclass(frozen=True, slots=True)
class Diffusion:
    """The data of a pipeline in addition to its networks; latents are (channels, height, width)."""

    name: str
    schedule: Schedule
    latents: tuple[int, int, int]


@contextmanager
def pipeline_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to, which becomes *folder* when the block succeeds.

    Raises:
        ModelError: there is something at *folder* already.
        BundleError: one of its parents is not a folder.
        OSError: the place cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise ModelError(f"{folder}: exists and is not an empty folder; remove it, or choose another with -o")
    with new_folder(folder) as (staging, _):
        yield staging


def write_model(model: ModelProto, path: Path) -> None:
    """Write *model*: the same bytes each time."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_loop(folder: Path, design: Diffusion) -> None:
    """Write everything except the networks: the scheduler's models and arrays, and the pipeline's description."""
    schedule = design.schedule
    write_model(step_model(design.latents), folder / _STEP)
    if schedule.scale is not None:
        write_model(prepare_model(design.latents), folder / _PREPARE)
    if schedule.start is not None:
        write_model(start_model(design.latents, schedule.start), folder / _START)
    for name, array in schedule.arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / PIPELINE).write_text("\n".join(_description(design)), encoding="utf-8")


def _description(design: Diffusion) -> Iterator[str]:
    schedule = design.schedule
    yield f"name = {json.dumps(design.name)}"
    yield 'outputs = ["image"]'
    yield ""
    yield from _text_stage("text", "prompt_ids", "context")
    yield "\n# What guidance leads away from: the empty prompt, or what the image should not show."
    yield from _text_stage("negative_text", "negative_ids", "negative_context")
    if schedule.start is not None:
        yield "\n[[stage]]"
        yield 'name = "start"'
        yield from _run(_START, {}, {"latents": "first_latents"})
    yield "\n[[stage]]"
    yield 'name = "denoise"'
    yield f"times = {schedule.times}"
    yield f"carry = {_table({'latents': 'noise' if schedule.start is None else 'first_latents'})}"
    yield f"each = {_table({name: f'{name}.npy' for name in schedule.arrays})}"
    yield from _iteration(
        "latents" if schedule.scale is None else "sample", prepares=schedule.scale is not None
    )
    yield "\n[[stage]]"
    yield 'name = "vae_decoder"'
    yield from _run(VAE_DECODER, {"latent_sample": "latents"}, {})
    yield ""


def _text_stage(name: str, ids: str, context: str) -> Iterator[str]:
    yield "[[stage]]"
    yield f"name = {json.dumps(name)}"
    yield from _run(TEXT_ENCODER, {"input_ids": ids}, {"last_hidden_state": context})


def _iteration(sample: str, *, prepares: bool) -> Iterator[str]:
    """The steps of an iteration; *sample* is the input of the UNet."""
    if prepares:
        yield "\n[[stage.step]]"
        yield from _run(_PREPARE, {}, {})
    for context, eps in (("context", "eps_cond"), ("negative_context", "eps_uncond")):
        yield "\n[[stage.step]]"
        yield from _run(UNET, {"sample": sample, "encoder_hidden_states": context}, {"out_sample": eps})
    yield "\n[[stage.step]]"
    yield from _run(_STEP, {}, {"next_latents": "latents"})


def _run(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Iterator[str]:
    """Name a model, and the values it takes and makes where these have other names than there."""
    yield f"model = {json.dumps(model)}"
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        renamed = {port: value for port, value in names.items() if port != value}
        if renamed:
            yield f"{side} = {_table(renamed)}"


def _table(entries: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in entries.items())} }}"
