"""The whole that cuts are compared with: all of a pipeline, long loops shortened as in the cuts."""

from pathlib import Path

import pytest

from splitc.bundle.manifest import StageEntry
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.verification.whole import Whole, handover, shortened, whole_as_given
from tests.compile.pipeline.making import write_diffusion


@pytest.mark.parametrize(
    ("iteration", "times", "where"),
    [(0, 50, 0), (1, 50, 1), (25, 50, 2), (49, 50, 2), (50, 50, 3), (2, 3, 2)],
)
def test_a_hand_over_stays_inside_a_shortened_loop(iteration: int, times: int, where: int) -> None:
    assert handover(iteration, times) == where


def stages_of(whole: Whole) -> tuple[StageEntry, ...]:
    return tuple(stage.entry for stage in whole.program.stages)


def test_all_of_a_pipeline_as_it_was_given(tmp_path: Path) -> None:
    pipeline = load_pipeline(write_diffusion(tmp_path))
    whole = whole_as_given(pipeline)
    assert whole.times == {"denoise": 3}
    assert whole.notes() == ()
    assert shortened(stages_of(whole), whole.times) == stages_of(whole)
    text, denoise, vae = stages_of(whole)
    assert [whole.files.path(call.file).name for call in (*text.calls, *denoise.calls, *vae.calls)] == [
        "text.onnx",
        "unet.onnx",
        "unet.onnx",
        "step.onnx",
        "vae.onnx",
    ]
    assert denoise.loop is not None
    assert whole.files.array(denoise.loop.each["time"]).shape == (3, 1)


def test_a_loop_is_shortened_by_the_name_of_its_stage(tmp_path: Path) -> None:
    whole = whole_as_given(load_pipeline(write_diffusion(tmp_path)))
    text, denoise, vae = shortened(stages_of(whole), {"denoise": 50})
    assert (text, vae) == (stages_of(whole)[0], stages_of(whole)[2])
    assert denoise.loop is not None
    assert (denoise.loop.first, denoise.loop.end) == (0, 1)  # 3 of 50 is before the first third
