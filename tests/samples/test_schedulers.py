"""Schedules are the published ones, and their ONNX models compute what numpy does, bit by bit."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.errors import ModelError
from splitc.samples.names import MAX_TIMES
from splitc.samples.schedulers import (
    GUIDANCE,
    SCHEDULERS,
    Schedule,
    ddim,
    euler,
    prepare_model,
    start_model,
    step_model,
)
from tests.naming import label

Array = npt.NDArray[Any]
LATENTS = (4, 3, 5)
TIMES = (1, 2, 3, 8, 50, 333, 999)


def run(model: onnx.ModelProto, **feeds: Array) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def noise(seed: int, rows: int = 2) -> Array:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((rows, *LATENTS)).astype(np.float32)


def alphas() -> Array:
    """The cumulative products of Stable Diffusion's noise schedule, one factor after the other."""
    roots = [0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * step / 999 for step in range(1000)]
    return np.array(list(itertools.accumulate((1 - root**2 for root in roots), lambda a, b: a * b)))


def iterate(schedule: Schedule, latents: Array, eps: Array) -> Array:
    """All iterations in ONNX Runtime, the UNet seeing *eps* each time."""
    step = step_model(LATENTS)
    for keep, turn in zip(schedule.keep, schedule.turn, strict=True):
        latents = run(step, latents=latents, eps_cond=eps, eps_uncond=eps, keep=keep, turn=turn)
    return latents


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=label)
def test_rows_broadcast_and_have_a_batch(make: Any, times: int) -> None:
    schedule = make(times)
    assert schedule.times == times
    assert schedule.timestep.dtype == np.int64
    assert schedule.timestep.shape == (times, 1)
    for name, array in schedule.arrays.items():
        if name != "timestep":
            assert array.dtype == np.float32
            assert array[0].shape == (1, 1, 1, 1)
    steps = schedule.timestep[:, 0]
    assert steps[-1] == 1
    assert steps[0] < 1000
    assert set(-np.diff(steps)) <= {1000 // times}


@pytest.mark.parametrize("times", [0, 1000, -1], ids=str)
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=label)
def test_refuses_other_numbers_of_iterations(make: Any, times: int) -> None:
    with pytest.raises(ModelError, match=f"1 to {MAX_TIMES} iterations, not {times}"):
        make(times)


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=label)
def test_a_step_is_numpys(make: Any) -> None:
    schedule, step = make(50), step_model(LATENTS)
    for i in range(50):
        latents, cond, uncond = noise(3 * i), noise(3 * i + 1), noise(3 * i + 2)
        got = run(
            step,
            latents=latents,
            eps_cond=cond,
            eps_uncond=uncond,
            keep=schedule.keep[i],
            turn=schedule.turn[i],
        )
        eps = uncond + np.float32(GUIDANCE) * (cond - uncond)
        np.testing.assert_array_equal(got, latents * schedule.keep[i] + eps * schedule.turn[i])


@pytest.mark.parametrize("times", TIMES)
def test_ddim_is_the_papers_equation(times: int) -> None:
    """Equation 12 of Song et al. 2020 with sigma 0 in double precision; alpha as in Stable Diffusion."""
    known, schedule, latents, eps = alphas(), ddim(times), noise(0).astype(float), noise(1).astype(float)
    for i, t in enumerate(schedule.timestep[:, 0]):
        now, after = known[t], known[max(t - 1000 // times, 0)]
        predicted = (latents - np.sqrt(1 - now) * eps) / np.sqrt(now)
        wanted = np.sqrt(after) * predicted + np.sqrt(1 - after) * eps
        np.testing.assert_allclose(schedule.keep[i] * latents + schedule.turn[i] * eps, wanted, atol=1e-5)


@pytest.mark.parametrize("times", TIMES)
def test_euler_is_the_papers_algorithm(times: int) -> None:
    """Algorithm 1 of Karras et al. 2022 without churn and correction, as published in its own terms."""
    known, schedule, eps = alphas(), euler(times), noise(1)
    sigmas = [*np.sqrt((1 - known) / known)[schedule.timestep[:, 0]], 0.0]
    assert schedule.scale is not None
    assert schedule.start is not None
    latents = noise(0) * np.float32(schedule.start)
    np.testing.assert_array_equal(latents, run(start_model(LATENTS, schedule.start), noise=noise(0)))
    assert schedule.start == pytest.approx((sigmas[0] ** 2 + 1) ** 0.5)
    for i, (now, after) in enumerate(itertools.pairwise(sigmas)):
        given = run(prepare_model(LATENTS), latents=latents, scale=schedule.scale[i])
        np.testing.assert_array_equal(given, latents / schedule.scale[i])
        np.testing.assert_allclose(given, latents / (now**2 + 1) ** 0.5, rtol=1e-6)
        move = np.float32(after - now)
        np.testing.assert_allclose(schedule.turn[i], move, rtol=1e-6)
        stepped = run(
            step_model(LATENTS),
            latents=latents,
            eps_cond=eps,
            eps_uncond=eps,
            keep=schedule.keep[i],
            turn=schedule.turn[i],
        )
        np.testing.assert_array_equal(stepped, latents + eps * schedule.turn[i])
        latents = stepped


@pytest.mark.parametrize("times", [1, 8, 50], ids=str)
def test_true_noise_leads_back_to_the_data(times: int) -> None:
    """A UNet that sees exactly the noise that was added: Euler ends at the data, DDIM at its last alpha's noise."""
    data, eps = noise(0), noise(1)
    now = alphas()[euler(times).timestep[0, 0]]
    sigma = ((1 - now) / now) ** 0.5
    noisy = (data + sigma * eps).astype(np.float32)
    np.testing.assert_allclose(iterate(euler(times), noisy, eps), data, atol=1e-4)
    last = alphas()[0]
    wanted = last**0.5 * data + (1 - last) ** 0.5 * eps
    noisy = (now**0.5 * data + (1 - now) ** 0.5 * eps).astype(np.float32)
    np.testing.assert_allclose(iterate(ddim(times), noisy, eps), wanted, atol=1e-4)


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 49), min_size=1, max_size=5), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=label)
def test_requests_at_different_iterations_run_as_one(make: Any, rows: list[int], seed: int) -> None:
    schedule, step = make(50), step_model(LATENTS)
    alone = [
        {
            "latents": noise(seed + i, 1),
            "eps_cond": noise(seed + 100 + i, 1),
            "eps_uncond": noise(seed + 200 + i, 1),
            "keep": schedule.keep[row],
            "turn": schedule.turn[row],
        }
        for i, row in enumerate(rows)
    ]
    together = {name: np.concatenate([feeds[name] for feeds in alone]) for name in alone[0]}
    np.testing.assert_array_equal(
        run(step, **together), np.concatenate([run(step, **feeds) for feeds in alone])
    )


@pytest.mark.parametrize(
    "model",
    [step_model(LATENTS), prepare_model(LATENTS), start_model(LATENTS, 2.0)],
    ids=lambda model: model.graph.name,
)
def test_models_are_valid_and_have_a_batch(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    for port in (*model.graph.input, *model.graph.output):
        assert port.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=label)
def test_agrees_with_diffusers(make: Any, times: int) -> None:
    """The library that most people run Stable Diffusion with; it computes its coefficients in single precision."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusion'")
    torch = pytest.importorskip("torch", reason="needs the extra 'diffusion'")
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    }
    theirs = {
        "ddim": lambda: diffusers.DDIMScheduler(**settings, set_alpha_to_one=False, clip_sample=False),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**settings),
    }[make.__name__]()
    theirs.set_timesteps(times)
    schedule = make(times)
    assert [int(step) for step in theirs.timesteps] == schedule.timestep[:, 0].tolist()
    start = schedule.start or 1.0
    assert float(theirs.init_noise_sigma) == pytest.approx(start, rel=1e-4)
    latents = noise(0) * np.float32(start)
    for i, t in enumerate(theirs.timesteps):
        eps = noise(i + 1)
        sample = torch.from_numpy(latents)
        given = theirs.scale_model_input(sample, t).numpy()
        np.testing.assert_allclose(
            given, latents if schedule.scale is None else latents / schedule.scale[i], rtol=1e-4, atol=1e-6
        )
        wanted = theirs.step(torch.from_numpy(eps), t, sample).prev_sample.numpy()
        latents = schedule.keep[i] * latents + schedule.turn[i] * eps
        np.testing.assert_allclose(latents, wanted, rtol=1e-4, atol=1e-4)
