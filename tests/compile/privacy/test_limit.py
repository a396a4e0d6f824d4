"""No cut that gives away more than --max-leak allows is shipped, and others take the place of those left out."""

from itertools import combinations
from pathlib import Path
from typing import Any

import onnx
import pytest

from splitc.common.errors import NoFeasibleCut
from splitc.compile.compile import Compiled
from splitc.compile.limits import LimitOptions
from splitc.solve.certify import certified_regret
from splitc.solve.costs import Box, Costs, Limits
from splitc.solve.cuts import place
from splitc.solve.solve import solve
from splitc.solve.space import make_space
from tests.compile.pipeline.making import analysed, closures
from tests.compile.privacy.test_measure import COUNT, leaks, narrowing, write_samples
from tests.running import compile_here, splitc

BOTH: Any = ("device-first", "cloud-first")


def built(folder: Path, most: float, count: int = COUNT, **limits: Any) -> Compiled:
    path = folder / "model.onnx"
    onnx.save_model(narrowing(), path)
    chosen = LimitOptions(private=("x",), max_leak=most, **limits)
    samples = write_samples(folder, count)
    return compile_here(path, folder / "bundle", samples=samples, limits=chosen, regret=0.0)


@pytest.mark.parametrize(
    ("most", "crossing", "left_out"),
    [(1.0, {"a"}, []), (0.7, {"b"}, ["a"]), (0.3, {"c"}, ["a", "b"]), (0.0, set(), ["a", "b", "c"])],
)
def test_the_next_cut_takes_the_place(
    most: float, crossing: set[str], left_out: list[str], tmp_path: Path
) -> None:
    compiled = built(tmp_path, most)
    found = leaks(compiled)
    assert found.keys() - {"nothing"} == crossing
    assert "nothing" in found
    assert all(leak is not None and leak.share is not None and leak.share <= most for leak in found.values())
    notes = [note for note in compiled.manifest.notes if note.startswith("--max-leak")]
    assert len(notes) == bool(left_out)
    assert all(f" {name} (" in note for note in notes for name in left_out)
    files = {path.name for path in (tmp_path / "bundle").glob("*.onnx")}
    assert len(files) == 1 + 2 * len(crossing)


def test_with_equal_samples_only_the_device_is_left(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(narrowing(), path)
    limits = LimitOptions(private=("x",), max_leak=1.0)
    samples = write_samples(tmp_path, 1) * 10
    compiled = compile_here(path, tmp_path / "bundle", samples=samples, limits=limits)
    assert [cut.kind for cut in compiled.manifest.cuts] == ["all-head"]
    assert compiled.manifest.regret.certified > 0
    assert "not all cuts that were left out were replaced by others" in compiled.manifest.notes


def test_no_cut_is_left(tmp_path: Path) -> None:
    with pytest.raises(NoFeasibleCut, match="every cut gives away more than --max-leak 0 allows"):
        built(tmp_path, 0.0, pin_cloud=("y",))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--private", "x"], "--max-leak needs at least 8 samples"),
        ([], "--max-leak limits what is told of a private tensor; name one with --private"),
        (["--private", "x", "--max-leak", "1.5"], "1.5 is not in the range"),
    ],
    ids=["no samples", "nothing private", "too large"],
)
def test_wrong_usage(options: list[str], sentence: str, tmp_path: Path) -> None:
    onnx.save_model(narrowing(), tmp_path / "model.onnx")
    done = splitc(
        "compile",
        "model.onnx",
        "--device",
        "pixel7",
        "--max-leak",
        "0.5",
        *options,
        "-o",
        "out",
        cwd=tmp_path,
    )
    assert done.code == 2
    assert sentence in done.err
    assert not (tmp_path / "out").exists()


def test_the_solver_finds_the_best_of_the_cuts_that_are_not_left_out(tmp_path: Path) -> None:
    """Compared with all closures, whichever two of the best cuts are left out."""
    path = tmp_path / "model.onnx"
    onnx.save_model(narrowing(), path)
    made = analysed(path, tmp_path)
    graph = made.unrolled.graph
    costs = Costs(graph, (3e-4,) * len(graph.units), (1e-6,) * len(graph.units))
    box = Box()
    space = make_space(graph, box, BOTH)
    every = [made.cut(head, direction) for head in closures(graph) for direction in BOTH]
    every = [place(costs, cut.device, cut.direction) for cut in every]
    free = solve(costs, box, directions=BOTH, regret=0.0)
    for pair in combinations(free.frontier, min(2, len(free.frontier))):
        forbidden = frozenset(cut.placement for cut in pair)
        found = solve(costs, box, Limits(left_out=forbidden), directions=BOTH, regret=0.0)
        allowed = [cut for cut in every if cut.placement not in forbidden]
        assert not set(pair) & set(found.cuts)
        assert certified_regret(space, found.cuts, allowed) == pytest.approx(0.0, abs=1e-8)
