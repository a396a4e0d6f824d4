"""The small pipeline has the same bytes each time, keeps its latents in range, and its requests run as one batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.common.errors import ModelError
from splitc.samples.names import TINY_DIFFUSION_TIMES
from splitc.samples.schedulers import SCHEDULERS
from splitc.samples.tiny_diffusion import write_tiny_diffusion
from tests.samples.pipelines import Runner, Values, request, rows


@pytest.fixture(scope="module", params=SCHEDULERS)
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp(request.param) / "pipeline"
    write_tiny_diffusion(folder, SCHEDULERS[request.param])
    return Runner(folder)


def test_is_small_and_valid_and_batches_are_symbolic(runner: Runner) -> None:
    folder = runner.pipeline.path.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        for port in (*model.graph.input, *model.graph.output):
            assert port.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_is_a_pipeline(runner: Runner) -> None:
    pipeline = runner.pipeline
    assert pipeline.name == "tiny_diffusion"
    assert set(pipeline.inputs) == {"prompt_ids", "negative_ids", "noise"}
    assert pipeline.outputs == ("image",)
    loops = [stage.loop for stage in pipeline.stages if stage.loop is not None]
    assert [loop.times for loop in loops] == [TINY_DIFFUSION_TIMES]
    files = {path.name for path in pipeline.path.parent.glob("*.onnx")}
    assert {model.path.name for model in pipeline.models} == files


def test_latents_stay_in_range_and_show_the_prompt(runner: Runner) -> None:
    history: list[Values] = []
    given = request(runner, 0)
    image = runner.run(given, history)["image"]
    assert image.shape == (1, 3, 128, 128)
    assert 0 <= image.min() < image.max() <= 1
    assert image.std() > 0.1
    for values in history:
        sample = values.get("sample", values["latents"])
        assert 0.5 < sample.std() < 2
        assert 0.5 < values["eps_cond"].std() < 2
    assert 0.5 < history[-1]["latents"].std() < 2
    other = runner.run({**given, "prompt_ids": request(runner, 1)["prompt_ids"]})["image"]
    assert np.abs(image - other).mean() > 0.02


def test_requests_run_as_one(runner: Runner) -> None:
    """Two requests stacked along axis 0, whole and at different iterations, are what each is alone."""
    one, two = request(runner, 0), request(runner, 1)
    alone = runner.run(one), runner.run(two)
    together = runner.run({name: np.concatenate([one[name], two[name]]) for name in one})
    for i, values in enumerate(alone):
        np.testing.assert_allclose(together["image"][i : i + 1], values["image"], atol=1e-4)


def test_requests_at_different_iterations_run_as_one(runner: Runner) -> None:
    loop = next(stage for stage in runner.pipeline.stages if stage.loop is not None)
    given = [runner.run(request(runner, seed)) for seed in (0, 1)]
    places = (1, 6)
    alone = [runner.iterate(values, place)["latents"] for values, place in zip(given, places, strict=True)]
    fed = [{**values, **rows(loop, place)} for values, place in zip(given, places, strict=True)]
    stacked = {name: np.concatenate([values[name] for values in fed]) for name in fed[0]}
    for call in loop.calls:
        runner.call(call, stacked)
    np.testing.assert_allclose(stacked["latents"], np.concatenate(alone), atol=1e-4)


def test_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiny_diffusion(tmp_path / name)
    read = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert read[0] == read[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_tiny_diffusion(tmp_path / "mine")
    for taken in (tmp_path / "mine", tmp_path / "mine" / "pipeline.toml"):
        before = sorted((tmp_path / "mine").iterdir())
        with pytest.raises(
            ModelError, match=r"exists and is not an empty folder; remove it, or choose another with -o"
        ):
            write_tiny_diffusion(taken)
        assert sorted((tmp_path / "mine").iterdir()) == before


def test_a_wrong_number_of_iterations_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="1 to 999 iterations"):
        write_tiny_diffusion(tmp_path / "p", times=1000)
    assert not list(tmp_path.iterdir())
