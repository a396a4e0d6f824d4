"""Sizes follow from the values that come in, and every model sees what the ones before it make."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.common.errors import ModelError
from tests.compile.pipeline.making import DIFFUSION, analysed, write_diffusion
from tests.models import WIDTH, floats, model, op


def test_symbolic_sizes_follow_from_the_inputs(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source", rows="rows"), tmp_path, dims={"rows": 5})
    assert made.found.dims == {"rows": 5}
    assert {name: size.sized for name, size in made.found.sizes.items()} == {
        "prompt": (5, WIDTH),
        "noise": (5, WIDTH),
        "negative": (5, WIDTH),
        "context": (5, WIDTH),
        "latents": (5, WIDTH),
        "time": (1,),
        "keep": (),
        "eps": (5, WIDTH),
        "eps_negative": (5, WIDTH),
        "image": (5, 40),
    }
    assert made.found.sizes["image"].shape == ("rows", 40)
    assert not made.found.notes


def test_a_leading_size_that_is_not_given_is_1_and_that_is_told(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source", rows="rows"), tmp_path)
    assert made.found.notes == ("sized for one request (rows=1); choose another size with --dim rows=SIZE",)


def test_a_size_that_no_input_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no symbolic dimension 'row'; its symbolic dimensions: rows"):
        analysed(write_diffusion(tmp_path / "source", rows="rows"), tmp_path, dims={"row": 5})


def test_a_name_that_stands_for_two_sizes_is_told_apart(tmp_path: Path) -> None:
    """The text encoder doubles its rows; the next stages call the doubled ones "rows" as well."""
    described = DIFFUSION.replace('carry = { latents = "noise" }', 'carry = { latents = "context" }')
    path = write_diffusion(tmp_path / "source", described, rows="rows")
    doubled = model(
        [op("Concat", "prompt prompt", "d", axis=0), op("Tanh", "d", "y")],
        [floats("prompt", "rows", WIDTH)],
        [floats("y", "twice", WIDTH)],
    )
    onnx.save_model(doubled, tmp_path / "source" / "text.onnx")
    path.write_text(path.read_text("utf-8").replace('context = "negative"', 'context = "context"'), "utf-8")
    found = analysed(path, tmp_path, dims={"rows": 3}).found
    assert found.dims == {"rows": 3, "denoise.rows": 6, "vae.rows": 6}
    assert found.sizes["image"].shape == ("vae.rows", 40)


def test_rows_of_an_array_may_be_of_size_1_where_values_are_wider(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source", rows="rows")
    built = onnx.load_model(tmp_path / "source" / "unet.onnx")
    next(port for port in built.graph.input if port.name == "time").type.tensor_type.shape.dim[
        0
    ].dim_param = "rows"
    onnx.save_model(built, tmp_path / "source" / "unet.onnx")
    found = analysed(path, tmp_path, dims={"rows": 4}).found
    assert found.analyses[1].dims == {"rows": 4}
    assert found.sizes["image"].sized == (4, 40)


def test_a_model_is_analysed_once_for_each_size_of_its_inputs(tmp_path: Path) -> None:
    found = analysed(write_diffusion(tmp_path / "source"), tmp_path).found
    assert [item.model.name for item in found.analyses] == ["text", "unet", "step", "vae"]
    assert found.calls == ((0,), (1, 1, 2), (3,))


def test_models_are_run_on_what_others_made(tmp_path: Path) -> None:
    """The decoder's inputs are not random: they are what one step makes of the noise."""
    found = analysed(write_diffusion(tmp_path / "source"), tmp_path).found
    (seen,) = found.analyses[3].feeds
    assert seen["x"].shape == (2, WIDTH)
    noise = found.feeds[0]["noise"]
    assert np.abs(seen["x"] - np.float32(0.9) * noise).max() < 1.0, "one step away from 0.9 of the noise"
    (timed,) = found.analyses[1].feeds
    assert timed["time"].tolist() == [7]


def test_samples_are_inputs_of_the_pipeline(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    half = np.full((2, WIDTH), 0.5, np.float32)
    np.savez(tmp_path / "sample.npz", prompt=half, noise=half, negative=half)
    found = analysed(path, tmp_path, samples=(tmp_path / "sample.npz",)).found
    assert len(found.feeds) == 1
    assert found.feeds[0]["negative"].tolist() == half.tolist()


def test_models_that_do_not_fit_into_memory_are_sized_all_the_same(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    found = analysed(path, tmp_path, build_memory_bytes=1).found
    assert found.feeds == ()
    assert found.sizes["image"].sized == (2, 40)
    assert all(not item.feeds for item in found.analyses)
    assert any(note.startswith("unet.onnx was neither simplified nor run: ") for note in found.notes)


def test_sequences_cannot_be_handed_over(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    value = onnx.helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    nodes = [op("SequenceConstruct", "prompt prompt", "y")]
    onnx.save_model(model(nodes, [floats("prompt", 2, WIDTH)], [value]), tmp_path / "source" / "text.onnx")
    with pytest.raises(ModelError, match=r"stage 'text': 'y' of text\.onnx is not a numeric tensor"):
        analysed(path, tmp_path)


def test_a_large_pipeline_is_verified_on_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_diffusion(tmp_path / "source")
    assert len(analysed(path, tmp_path / "small").found.feeds) == 3
    monkeypatch.setattr("splitc.compile.pipeline.analyse.LARGE_BYTES", 1000)
    assert len(analysed(path, tmp_path / "large").found.feeds) == 1


def test_what_is_alive_counts_as_memory_too(tmp_path: Path) -> None:
    """Every model by itself may be run, but all of them with their values of 64 kB and more may not."""
    path = write_diffusion(tmp_path / "source", rows="rows")
    found = analysed(path, tmp_path, dims={"rows": 1000}, build_memory_bytes=100_000).found
    assert found.feeds == ()
    assert found.notes == ()
    assert analysed(path, tmp_path / "few", dims={"rows": 1}, build_memory_bytes=100_000).found.feeds
