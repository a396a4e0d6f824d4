"""Every cut of a pipeline, wherever it lies, computes what the whole pipeline does."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.common.kinds import Direction
from tests.compile.pipeline.making import DIFFUSION, Made, analysed, closures, shipped, write_diffusion
from tests.models import WIDTH, dense, dense_weights, floats, model, op

BOTH: list[Direction] = ["device-first", "cloud-first"]


def all_cuts(made: Made, direction: Direction) -> int:
    """Ship and verify every closure; how many there are."""
    cuts = [made.cut(head, direction) for head in closures(made.unrolled.graph)]
    entries = shipped(made, cuts)
    assert all(entry.check is not None and entry.check.max_rel <= entry.check.tolerance for entry in entries)
    return len(entries)


@pytest.mark.parametrize(
    ("direction", "simplify"),
    [("device-first", False), ("cloud-first", False), ("device-first", True)],
    ids=["device-first", "cloud-first", "simplified"],
)
def test_stages_iterations_and_units_may_be_divided_anywhere(
    direction: Direction, simplify: bool, tmp_path: Path
) -> None:
    made = analysed(write_diffusion(tmp_path / "source"), tmp_path, simplify=simplify)
    places = [(place.stage, place.iteration) for place in made.unrolled.places]
    assert [place for place in places if place[0] == 1] == [(1, 0), (1, 1), (1, 2)]
    assert places.count((0, None)) == 7
    assert places.count((2, None)) == 5
    # Nothing; the first unit; two branches of two units each; the join; and so on, one after the other.
    assert all_cuts(made, direction) == 1 + 2 + (3 * 3 - 1) + 1 + 3 + 5


@pytest.mark.parametrize("direction", BOTH)
def test_an_output_may_be_what_a_loop_carries(direction: Direction, tmp_path: Path) -> None:
    described = DIFFUSION.replace('["image"]', '["latents", "context"]').split('\n[[stage]]\nname = "vae"')[0]
    all_cuts(analysed(write_diffusion(tmp_path / "source", described), tmp_path), direction)


@pytest.mark.parametrize("direction", BOTH)
def test_the_last_iteration_may_make_values_for_others(direction: Direction, tmp_path: Path) -> None:
    described = DIFFUSION.replace('x = "latents"', 'x = "eps"').replace('["image"]', '["image", "latents"]')
    all_cuts(analysed(write_diffusion(tmp_path / "source", described), tmp_path), direction)


@pytest.mark.parametrize("direction", BOTH)
def test_two_loops_and_a_model_that_is_run_in_two_places(direction: Direction, tmp_path: Path) -> None:
    described = """
name = "twice"
outputs = ["z", "y"]
[[stage]]
name = "first"
times = 2
model = "block.onnx"
inputs = { x = "state" }
outputs = { y = "state", early = "seen" }
carry = { state = "x" }
[[stage]]
name = "between"
model = "block.onnx"
inputs = { x = "state" }
outputs = { early = "middle" }
[[stage]]
name = "second"
times = 2
model = "block.onnx"
inputs = { x = "other" }
outputs = { y = "other", early = "z" }
carry = { other = "middle" }
"""
    source = tmp_path / "source"
    source.mkdir()
    nodes = [*dense("x", "early"), *dense("early", "a"), op("Add", "a early", "y")]
    ports = [floats("early", 2, WIDTH), floats("y", 2, WIDTH)]
    built = model(nodes, [floats("x", 2, WIDTH)], ports, dense_weights("early", "a"))
    onnx.save_model(built, source / "block.onnx")
    path = source / "twice.toml"
    path.write_text(described, encoding="utf-8")
    made = analysed(path, tmp_path)
    all_cuts(made, direction)
    assert [file.name for file in sorted((tmp_path / "bundle").glob("stage-*"))] == ["stage-first.onnx"]


def test_values_that_share_a_name_with_tensors_inside_models_are_kept_apart(tmp_path: Path) -> None:
    """The stages' models have tensors called "a" and "e"; so have values here."""
    described = DIFFUSION.replace('"context"', '"a"').replace("sample = ", 'context = "a", sample = ', 1)
    described = described.replace('"image"', '"d"').replace('"noise"', '"e"')
    all_cuts(analysed(write_diffusion(tmp_path / "source", described), tmp_path), "device-first")


def test_weights_are_written_once_whatever_uses_them(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source"), tmp_path)
    cuts = [made.cut(head) for head in closures(made.unrolled.graph)]
    shipped(made, cuts)
    names = ("text", "unet", "vae")
    large = {
        tensor.raw_data
        for name in names
        for tensor in onnx.load_model(tmp_path / "source" / f"{name}.onnx").graph.initializer
        if len(tensor.raw_data) >= 1024
    }
    pages = sum(-(-len(data) // 4096) * 4096 for data in large)
    assert (tmp_path / "bundle" / "weights.bin").stat().st_size in range(pages - 4096, pages + 1)


def test_arrays_of_iterations_are_in_the_bundle(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source"), tmp_path)
    shipped(made, [made.cut(frozenset())])
    bundle = tmp_path / "bundle"
    assert np.load(bundle / "each-denoise-time.npy").tolist() == [[7], [3], [1]]
    assert np.load(bundle / "each-denoise-keep.npy").dtype == np.float32


def test_a_piece_that_two_cuts_share_is_written_once(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source"), tmp_path)
    head = frozenset(range(len(made.unrolled.places) - 2))
    shipped(made, [made.cut(head), made.cut(head, "cloud-first")])
    files = sorted(path.name for path in (tmp_path / "bundle").glob("*-c*"))
    assert files == ["head-c0-vae.onnx", "tail-c0-vae.onnx"]
