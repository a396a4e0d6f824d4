"""Schedulers of diffusion models: what changes from iteration to iteration as arrays, the arithmetic as ONNX.

A scheduler takes the noise out of *latents* in a few iterations, each with the noise *eps* that a
UNet sees in them. Here the iterations share their models and differ in one row of each array only,
so that requests that are at different iterations can run as one batch: every input has the batch as
its first axis, and so has every row.

Guidance calls the UNet twice in an iteration, with the prompt's context and with the unconditional
one, instead of once with both stacked: each row of a batch is then a request of its own, in every
model. Two runs of one file also need half the memory, and weights are stored once either way.

Both schedulers are Stable Diffusion's: betas whose roots are evenly spaced, a UNet trained to
predict the noise, iterations `1000 // times` training steps apart that end at training step 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from splitc.common.errors import ModelError
from splitc.samples.names import MAX_TIMES, TRAINING_STEPS

GUIDANCE = 7.5
_FIRST_BETA, _LAST_BETA = 0.00085, 0.012
_OFFSET = 1
_OPSET, _IR_VERSION = 18, 10


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The arrays of a scheduler; row i is what iteration i reads: latents' = keep * latents + turn * eps.

    Attributes:
        timestep: the training step that the UNet is told, int64 (times, 1).
        keep: float32 (times, 1, 1, 1, 1), so that a row goes with latents (batch, channels, height, width).
        turn: of the same shape.
        scale: what latents are divided by for the UNet, of the same shape; None if by nothing.
        start: what noise of unit variance is multiplied with to begin; None if with nothing.
    """

    timestep: NDArray[np.int64]
    keep: NDArray[np.float32]
    turn: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    start: float | None = None

    @property
    def times(self) -> int:
        """How many iterations there are."""
        return len(self.timestep)

    @property
    def arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
        """The arrays by name."""
        named: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {
            "timestep": self.timestep,
            "keep": self.keep,
            "turn": self.turn,
        }
        if self.scale is not None:
            named["scale"] = self.scale
        return named


def ddim(times: int) -> Schedule:
    """DDIM of Song et al. 2020 (arXiv 2010.02502), equation 12 with sigma 0; the last alpha is that of step 0.

    With a and a' for the paper's alpha now and after the iteration, the equation is
    latents' = sqrt(a'/a) latents + (sqrt(1 - a') - sqrt(a'/a) sqrt(1 - a)) eps.

    Raises:
        ModelError: *times* is not from 1 to 999.
    """
    steps = _training_steps(times)
    alphas = _alphas()
    now = alphas[steps]
    after = alphas[np.maximum(steps - TRAINING_STEPS // times, 0)]
    keep = np.sqrt(after / now)
    turn = np.sqrt(1 - after) - keep * np.sqrt(1 - now)
    return Schedule(steps[:, None], _rows(keep), _rows(turn))


def euler(times: int) -> Schedule:
    """Euler's method of Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without churn, down to sigma 0.

    Latents are data plus sigma times noise; the UNet was trained on data and noise that together have
    unit variance, so it is given latents / sqrt(sigma**2 + 1).

    Raises:
        ModelError: *times* is not from 1 to 999.
    """
    steps = _training_steps(times)
    alphas = _alphas()[steps]
    sigmas = np.append(np.sqrt((1 - alphas) / alphas), 0.0)
    scale = np.sqrt(sigmas[:-1] ** 2 + 1)
    return Schedule(
        steps[:, None],
        _rows(np.ones(times)),
        _rows(np.diff(sigmas)),
        scale=_rows(scale),
        start=float(scale[0]),
    )


SCHEDULERS: dict[str, Callable[[int], Schedule]] = {ddim.__name__: ddim, euler.__name__: euler}


def _training_steps(times: int) -> NDArray[np.int64]:
    if not 1 <= times <= MAX_TIMES:
        raise ModelError(f"a scheduler has 1 to {MAX_TIMES} iterations, not {times}; choose a number between")
    return np.arange(times, dtype=np.int64)[::-1] * (TRAINING_STEPS // times) + _OFFSET


def _alphas() -> NDArray[np.float64]:
    """The products of 1 - beta, which are DDIM's alphas, by training step."""
    betas = np.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, TRAINING_STEPS) ** 2
    return np.cumprod(1 - betas)


def _rows(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None, None, None, None]


def step_model(latents: Sequence[int]) -> ModelProto:
    """Return the end of an iteration: guidance, then the update of latents of the shape (batch, *latents).

    Guidance is Ho and Salimans 2022 (arXiv 2207.12598) as Stable Diffusion writes it:
    eps = eps_uncond + 7.5 * (eps_cond - eps_uncond).
    """
    nodes = (
        helper.make_node("Sub", ["eps_cond", "eps_uncond"], ["difference"], name="difference"),
        helper.make_node("Mul", ["difference", "guidance"], ["guided"], name="guided"),
        helper.make_node("Add", ["eps_uncond", "guided"], ["eps"], name="eps"),
        helper.make_node("Mul", ["latents", "keep"], ["kept"], name="kept"),
        helper.make_node("Mul", ["eps", "turn"], ["turned"], name="turned"),
        helper.make_node("Add", ["kept", "turned"], ["next_latents"], name="next_latents"),
    )
    inputs = [_port(name, latents) for name in ("latents", "eps_cond", "eps_uncond")]
    inputs += [_port(name, (1, 1, 1)) for name in ("keep", "turn")]
    return _model("step", nodes, inputs, _port("next_latents", latents), {"guidance": GUIDANCE})


def prepare_model(latents: Sequence[int]) -> ModelProto:
    """Return the model at the start of an iteration, which scales the UNet's input, for a schedule with a scale."""
    nodes = (helper.make_node("Div", ["latents", "scale"], ["sample"], name="sample"),)
    inputs = [_port("latents", latents), _port("scale", (1, 1, 1))]
    return _model("prepare", nodes, inputs, _port("sample", latents), {})


def start_model(latents: Sequence[int], start: float) -> ModelProto:
    """Return the model that makes the first latents from noise, for a schedule with a start."""
    nodes = (helper.make_node("Mul", ["noise", "start"], ["latents"], name="latents"),)
    return _model("start", nodes, [_port("noise", latents)], _port("latents", latents), {"start": start})


def _port(name: str, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _model(
    name: str,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    output: ValueInfoProto,
    constants: dict[str, float],
) -> ModelProto:
    weights = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, [output], weights)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="splitc")
