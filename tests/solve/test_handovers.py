"""Hand-overs inside loops are shipped, although none is fastest anywhere."""

from itertools import pairwise
from pathlib import Path

import pytest

from splitc.common.kinds import Direction
from splitc.compile.pipeline.unrolled import ends
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import CutSet
from splitc.solve.handovers import with_handovers
from splitc.solve.solve import solve
from tests.compile.pipeline.making import DIFFUSION, Made, analysed, write_diffusion

TIMES = 12
FREE = Limits()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Twelve iterations, each a second of the cloud and three of the device."""
    described = DIFFUSION.replace("times = 3", f"times = {TIMES}").replace(
        'each = { time = "time.npy", keep = "scales.npz:keep" }\n', ""
    )
    return analysed(write_diffusion(tmp_path / "source", described), tmp_path)


def costs(made: Made) -> Costs:
    is_iteration = [place.iteration is not None for place in made.unrolled.places]
    cloud_s = tuple(1.0 if each else 0.001 for each in is_iteration)
    return Costs(made.unrolled.graph, tuple(3 * seconds for seconds in cloud_s), cloud_s)


def filled(made: Made, max_cuts: int, *directions: Direction, limits: Limits = FREE) -> tuple[CutSet, CutSet]:
    solved = solve(costs(made), Box(), limits, directions=directions, max_cuts=max_cuts)
    return solved, with_handovers(
        solved, ends(made.unrolled), costs(made), limits, directions=directions, max_cuts=max_cuts
    )


@pytest.mark.parametrize("direction", ["device-first", "cloud-first"])
def test_steps_of_the_clouds_time_are_filled_evenly(direction: Direction, made: Made) -> None:
    solved, more = filled(made, 8, direction)
    assert set(solved.cuts) < set(more.cuts)
    assert len(more.cuts) == 8
    times_s = [cut.cloud_s for cut in more.cuts]
    assert times_s == sorted(times_s)
    assert max(later - earlier for earlier, later in pairwise(times_s)) <= TIMES / 4
    assert {cut.direction for cut in more.cuts if cut.kind == "split"} == {direction}
    assert (more.regret, more.frontier) == (solved.regret, solved.frontier)


def test_there_are_no_more_than_there_are_iterations(made: Made) -> None:
    _, more = filled(made, 100, "cloud-first")
    iterations = {
        sum(made.unrolled.places[unit].iteration is not None for unit in cut.head) for cut in more.cuts
    }
    assert iterations == set(range(TIMES + 1))


def test_limits_hold_for_them_too(made: Made) -> None:
    pinned = frozenset(
        number
        for number, place in enumerate(made.unrolled.places)
        if place.iteration is not None and place.iteration >= 6
    )
    _, more = filled(made, 100, "cloud-first", limits=Limits(pin_device=pinned))
    assert all(pinned <= cut.device for cut in more.cuts)
    _, more = filled(made, 100, "device-first", limits=Limits(pin_cloud=pinned))
    assert all(pinned.isdisjoint(cut.device) for cut in more.cuts)
    context = next(
        number for number, tensor in enumerate(made.unrolled.graph.tensors) if tensor.name == "context"
    )
    _, more = filled(made, 100, "device-first", limits=Limits(private=frozenset([context])))
    readers = made.unrolled.graph.tensors[context].consumers
    assert all(cut.device.issuperset(readers) for cut in more.cuts)
