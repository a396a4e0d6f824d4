"""Parts that this machine runs are timed; what several cuts share is timed once."""

from pathlib import Path

import numpy as np
import pytest

from splitc.bundle.manifest import Manifest
from splitc.compile.compile import Compiled
from tests.compile.pipeline.making import DIFFUSION, compiled, write_diffusion, write_long
from tests.running import tree


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(path: Path) -> Compiled:
    """The cloud is this machine, the device is not."""
    return compiled(path, path.parent / "bundle", cloud="local", cache=path.parent / "cache")


def cloud_times(manifest: Manifest) -> dict[int, float]:
    """Seconds of the cloud, by the iterations that it does first, of the cuts inside the loop."""
    found = {}
    for cut in manifest.cuts:
        stages = (cut.head.stages or ()) if cut.is_cloud_first and cut.head is not None else ()
        loops = [stage.loop for stage in stages if stage.loop is not None]
        if loops and len(stages) == 2:  # the text encoder, and so many iterations
            found[loops[0].end] = cut.cloud_s
    return found


def test_a_part_costs_what_its_runs_cost(made: Compiled) -> None:
    """Every iteration runs the same files, so that a hand-over n iterations later costs n times one of them more."""
    times = cloud_times(made.manifest)
    assert len(times) >= 3
    (first, first_s), *others = sorted(times.items())
    steps = [(cloud_s - first_s) / (end - first) for end, cloud_s in others]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-9)
    assert steps[0] > 0


def test_only_what_runs_here_is_timed(made: Compiled) -> None:
    predicted = made.manifest.targets.device.interval
    for cut in made.manifest.cuts:
        if cut.cloud is not None:
            assert cut.cloud.source == "measured"
            assert cut.cloud.interval is not None
            assert cut.cloud.interval[0] <= 1 <= cut.cloud.interval[1]
        if cut.device is not None:
            assert (cut.device.source, cut.device.interval) == ("predicted", predicted)


def test_times_are_kept_with_the_profiles_that_they_belong_to(made: Compiled, path: Path) -> None:
    compiled(path, path.parent / "again", cloud="local", cache=path.parent / "cache")
    assert tree(path.parent / "again") == tree(made.folder)


def test_a_pipeline_of_the_same_models_that_repeats_them_more_often_is_timed_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def kept() -> int:
        return len(list((cache / "timings").glob("*.json")))

    first = compiled(write_diffusion(tmp_path / "a"), tmp_path / "three", cloud="local", cache=cache)
    assert kept() == len(first.manifest.cuts)
    more = write_diffusion(tmp_path / "b", DIFFUSION.replace("times = 3", "times = 6"))
    np.save(more.with_name("time.npy"), np.tile(np.load(more.with_name("time.npy")), (2, 1)))
    np.savez(more.with_name("scales.npz"), keep=np.tile(np.load(more.with_name("scales.npz"))["keep"], 2))
    second = compiled(more, tmp_path / "six", cloud="local", cache=cache)
    targets = first.manifest.targets.cloud, second.manifest.targets.cloud
    assert targets[0].profile_sha256 == targets[1].profile_sha256, "the models' own times are the same"
    assert kept() == len(first.manifest.cuts) + len(second.manifest.cuts)
