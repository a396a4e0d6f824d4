"""Real models of many kinds: cut at a sample of places, and at every cut of their frontier."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from splitc.common.kinds import Direction
from splitc.common.values import random_feeds
from splitc.model.model import fix_dims, load
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import Cut
from splitc.solve.solve import solve
from tests import splitting

FOLDER = Path(__file__).parents[3] / "shared" / "models"
MODELS = sorted(path.stem for path in FOLDER.glob("*.onnx"))
SAMPLES = 4
DIRECTIONS: tuple[Direction, ...] = ("device-first", "cloud-first")
DIMS: Mapping[str, Mapping[str, int]] = {
    "silero_vad": {"input:1": 576, "state:1": 1},
    "silero_vad_op18": {"sequence": 576},
    "tiny_distilbert": {"sequence": 16},
}
# Of these every cut of the frontier is verified; they are many kinds, and quick to run.
FRONTIER = [
    "basic_pitch",
    "digits_gbt",
    "fastestdet",
    "fastestdet_fp16",
    "gtcrn_simple",
    "light_inception_v2",
    "magika_v3_3",
    "mnist_cntk",
    "mobilenet_edgetpu_qdq_part",
    "silero_vad",
    "silero_vad_op18",
    "squeezenet_winml",
    "tiny_distilbert",
    "ultraface_rfb_640_extdata",
    "ultraface_slim_320",
    "ultraface_slim_320_qdq_int8",
    "wine_pipeline",
]

# Of these, inner cuts are among them.
INNER = {
    "basic_pitch",
    "fastestdet",
    "fastestdet_fp16",
    "gtcrn_simple",
    "squeezenet_winml",
    "ultraface_slim_320",
}

pytestmark = pytest.mark.skipif(not MODELS, reason="the folder ../shared/models is not there")


@pytest.mark.parametrize("name", MODELS or ["none"])
def test_cuts_of_real_models_compose(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.onnx"
    dims = fix_dims(load(path), DIMS.get(name, {}))
    feeds = random_feeds(load(path).inputs(), dims, 0)
    if "sr" in feeds:
        feeds["sr"] = np.array(16_000)
    made = splitting.split(path, tmp_path, dims, feeds, simplified=True)
    against = splitting.whole(made, feeds)
    assert against is not None
    found = dict.fromkeys(prefixes(made))
    assert {cut.direction for cut in found if cut.kind == "split"} == set(DIRECTIONS) or len(
        made.graph.units
    ) == 1
    if name in FRONTIER:
        best = frontier(made)
        assert any(cut.kind == "split" for cut in best) or name not in INNER
        found |= dict.fromkeys(best)
    for number, cut in enumerate(found):
        splitting.check(made, cut, against, str(number))


def prefixes(made: splitting.Split) -> list[Cut]:
    count = len(made.graph.units)
    ends = sorted({round(count * sample / SAMPLES) for sample in range(SAMPLES + 1)})
    return [made.cut(frozenset(range(end)), direction) for direction in DIRECTIONS for end in ends]


def frontier(made: splitting.Split) -> tuple[Cut, ...]:
    """Cuts for a made-up slow device: time by work, the cloud ten times as fast."""
    head_s = tuple(
        1e-6 + sum(work.macs / 5e7 + (work.read_bytes + work.write_bytes) / 1e8 for work in unit.work)
        for unit in made.graph.units
    )
    costs = Costs(made.graph, head_s, tuple(time / 10 for time in head_s))
    return solve(costs, Box(), Limits(), directions=DIRECTIONS, max_cuts=8, regret=0.01).frontier
