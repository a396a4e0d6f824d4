"""Stable Diffusion at an eighth of its width: exported, it computes what torch does, alone and in a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from splitc.cli.main import group
from splitc.common.errors import ModelError
from splitc.samples.schedulers import ddim
from tests.naming import label
from tests.samples.pipelines import Runner, Values, request

torch: Any = pytest.importorskip("torch", reason="needs the extra 'diffusion'")
pytest.importorskip("diffusers", reason="needs the extra 'diffusion'")
pytest.importorskip("transformers", reason="needs the extra 'diffusion'")
pytest.importorskip("onnxscript", reason="needs the extra 'diffusion'")

from splitc.samples import stable_diffusion as sd  # noqa: E402 - needs the extra

WIDTH, SIZE, SIDE, TIMES = 0.125, 64, 8, 3


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("sd") / "pipeline"
    options = {"-o": folder, "--width": WIDTH, "--size": SIZE, "--steps": TIMES}
    words = [str(word) for option in options.items() for word in option]
    group.main(["sample", "stable_diffusion", *words], standalone_mode=False)
    return Runner(folder)


def with_torch(given: Values) -> Values:
    """The whole pipeline in torch, and the schedule in numpy."""
    channels = sd.widths(WIDTH)
    networks = sd.TextEncoder(channels), sd.UNet(channels, SIDE), sd.VaeDecoder(channels)
    text, unet, vae = (network.eval() for network in networks)
    schedule = ddim(TIMES)
    latents = torch.from_numpy(given["noise"])
    with torch.no_grad():
        cond, uncond = (text(torch.from_numpy(given[name])) for name in ("prompt_ids", "negative_ids"))
        for t, keep, turn in zip(schedule.timestep, schedule.keep, schedule.turn, strict=True):
            step = torch.from_numpy(t)
            eps_cond, eps_uncond = (unet(latents, step, context) for context in (cond, uncond))
            eps = eps_uncond + 7.5 * (eps_cond - eps_uncond)
            latents = torch.from_numpy(keep) * latents + torch.from_numpy(turn) * eps
        return {"latents": latents.numpy(), "image": vae(latents).numpy()}


def test_computes_what_torch_does(runner: Runner) -> None:
    given = request(runner, 0)
    got, wanted = runner.run(given), with_torch(given)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-4 * np.abs(value).max())


def test_requests_run_as_one(runner: Runner) -> None:
    requests = [request(runner, seed) for seed in range(3)]
    together = runner.run({name: np.concatenate([one[name] for one in requests]) for name in requests[0]})
    for i, one in enumerate(requests):
        alone = runner.run(one)["image"]
        np.testing.assert_allclose(together["image"][i : i + 1], alone, atol=1e-4)


def test_files_hold_no_paths_and_a_symbolic_batch(runner: Runner) -> None:
    for path in runner.pipeline.path.parent.glob("*.onnx"):
        assert b"site-packages" not in path.read_bytes()
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(path)
        for port in (*model.graph.input, *model.graph.output):
            assert port.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_has_the_published_number_of_weights() -> None:
    """Rombach et al. 2022, and the model card of Stable Diffusion: 860 million in the UNet, 123 in the encoder."""
    channels = sd.widths(1.0)
    with torch.device("meta"):
        counts = [
            sum(weight.numel() for weight in network.parameters())
            for network in (sd.UNet(channels, 64), sd.TextEncoder(channels))
        ]
    assert counts == [859_520_964, 123_060_480]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"width": 0.3}, "width 0.3 is not a positive multiple of 1/8; try 0.125, 0.5 or 1"),
        ({"width": 0.0}, "width 0 is not a positive multiple"),
        ({"width": float("nan")}, "width nan is not a positive multiple"),
        ({"width": float("inf")}, "width inf is not a positive multiple"),
        ({"size": 100}, "size 100 is not a positive multiple of 64 pixels; try 512"),
        ({"size": 0}, "size 0 is not a positive multiple"),
    ],
    ids=label,
)
def test_impossible_sizes_are_refused(changed: dict[str, float], words: str, tmp_path: Path) -> None:
    options: Any = {"width": WIDTH, "size": SIZE, **changed}
    with pytest.raises(ModelError, match=words):
        sd.write_stable_diffusion(tmp_path / "p", ddim(TIMES), **options, progress=lambda _: None)
    assert not list(tmp_path.iterdir())
