"""Times of a pipeline: sums over its models, as certain as the least certain of them."""

import json
from pathlib import Path

import pytest

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.compile.pipeline.times import PipelineTimes, combined_interval, pipeline_times
from splitc.compile.pipeline.unrolled import Share, shares
from splitc.model.onnx_file import digest
from splitc.profile.document import write_profile
from splitc.profile.targets.description import load_target
from tests.compile.pipeline.making import Made, analysed, write_diffusion
from tests.profiles import measurement, node, profile
from tests.running import fast_cloud, slow_device


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return analysed(write_diffusion(tmp_path / "source"), tmp_path)


def recorded(folder: Path, name: str, whole_s: float, fixed_s: float = 0.0) -> Path:
    """A profile of one of the models, whose first node takes all of the time."""
    tensor = {"text": "a_m", "unet": "mixed", "step": "away", "vae": "d_m"}[name]
    measured = measurement(
        whole_s=(whole_s,) * 3,
        fixed_s=(fixed_s,) * 3 if fixed_s else (),
        nodes=(node("n", outputs=(tensor,), seconds=(whole_s,)),),
    )
    path = folder / f"{name}.json"
    write_profile(profile(measured, model=digest([folder / f"{name}.onnx"])), path)
    return path


def timed(made: Made, *given: Path) -> PipelineTimes:
    target = load_target(slow_device(made.folder))
    return pipeline_times(target, given, "--device-profile", made.found, made.unrolled, Cache(None))


def test_an_iteration_takes_what_its_calls_take(made: Made) -> None:
    source = made.folder / "source"
    seconds = {"text": 2.0, "unet": 7.0, "step": 0.5, "vae": 1.0}
    times = timed(made, *(recorded(source, name, whole_s) for name, whole_s in seconds.items()))
    by_stage = [0.0, 0.0, 0.0]
    for place, unit_s in zip(made.unrolled.places, times.whole.seconds, strict=True):
        by_stage[place.stage] += unit_s
    assert by_stage == pytest.approx([2.0, 3 * (2 * 7.0 + 0.5), 1.0])
    assert times.part(made.found, [Share(1, 1, 3), Share(2, 0, 1)])[0] == pytest.approx(2 * 14.5 + 1.0)
    assert times.whole.source == "measured"


def test_every_call_costs_something_besides_its_units(made: Made) -> None:
    source = made.folder / "source"
    files = [recorded(source, name, 1.0, 0.25) for name in ("text", "unet", "step", "vae")]
    times = timed(made, *files)
    assert sum(times.whole.seconds) == pytest.approx(1.0 + 3 * 3.0 + 1.0)
    first, rest = (
        times.part(made.found, shares(made.unrolled, [0])),
        times.part(made.found, shares(made.unrolled, range(1, len(made.unrolled.places)))),
    )
    assert first[0] + rest[0] == pytest.approx(11.0 + 0.25), "the stage that is cut inside is called twice"


def test_a_folder_of_profiles_is_searched(made: Made, tmp_path: Path) -> None:
    source = made.folder / "source"
    folder = tmp_path / "profiles"
    folder.mkdir()
    for name in ("unet", "vae"):
        recorded(source, name, 3.0).rename(folder / f"{name}.json")
    times = timed(made, folder)
    assert [item.source for item in times.models] == ["predicted", "measured", "predicted", "measured"]
    assert times.whole.source == "predicted"
    assert (
        times.whole.notes[-1]
        == "times on slow come from several sources: measured: unet, vae; predicted: text, step"
    )
    assert times.source(made.found, [Share(2, 0, 1)]) == "measured"
    assert times.source(made.found, [Share(1, 0, 1), Share(2, 0, 1)]) == "predicted"


def test_a_profile_of_another_model_is_refused(made: Made) -> None:
    path = made.folder / "other.json"
    write_profile(profile(model="1" * 64), path)
    with pytest.raises(ProfileError, match=r"other\.json: is not a profile of any of the pipeline's models"):
        timed(made, path)


def test_two_profiles_of_one_model_are_refused(made: Made) -> None:
    first = recorded(made.folder / "source", "unet", 3.0)
    second = made.folder / "again.json"
    second.write_bytes(first.read_bytes())
    with pytest.raises(ProfileError, match=r"again\.json: unet\.json is a profile of the same model"):
        timed(made, first, second)


def test_a_prediction_is_one_with_the_interval_of_its_parts(made: Made) -> None:
    target = load_target(fast_cloud(made.folder))
    times = pipeline_times(target, [], "--cloud-profile", made.found, made.unrolled, Cache(None))
    assert times.whole.source == "predicted"
    intervals = [item.interval for item in times.models]
    assert times.whole.interval is not None
    for end in (0, 1):
        bounds = [interval[end] for interval in intervals if interval is not None]
        assert min(bounds) <= times.whole.interval[end] <= max(bounds)


def test_intervals_are_weighted_by_time_and_unknown_where_a_part_is() -> None:
    assert combined_interval([(3.0, (0.5, 2.0)), (1.0, (0.9, 1.2))]) == pytest.approx((0.6, 1.8))
    assert combined_interval([(3.0, (0.5, 2.0)), (0.0, None)]) == (0.5, 2.0)
    assert combined_interval([(3.0, (0.5, 2.0)), (1.0, None)]) is None
    assert combined_interval([]) is None


def test_the_digest_is_that_of_all_profiles(made: Made) -> None:
    source = made.folder / "source"
    first = timed(made, recorded(source, "unet", 3.0)).whole.sha256
    assert timed(made, recorded(source, "unet", 3.0)).whole.sha256 == first
    assert timed(made, recorded(source, "unet", 3.5)).whole.sha256 != first


def test_the_threads_are_those_of_the_longest_model(made: Made) -> None:
    path = recorded(made.folder / "source", "unet", 300.0)
    text = json.loads(path.read_bytes())
    text["measurements"][0]["threads"] = 3
    path.write_text(json.dumps(text))
    assert timed(made, path).whole.threads == 3
