"""Descriptions that are wrong: each is told in one sentence that names what to change."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.common.errors import ModelError
from splitc.compile.pipeline.load import files_of, load_pipeline
from tests.compile.pipeline.making import DIFFUSION, analysed, write_diffusion
from tests.models import WIDTH, floats, model, op

LOADING = {
    "no TOML": ('name = "diffusion"', "name = diffusion", "not a TOML file"),
    "unknown key": ("carry = {", "cary = {", "unknown key 'cary', did you mean 'carry'"),
    "no stages": (DIFFUSION, 'name = "x"\noutputs = ["y"]\nstage = []', r"there is no \[\[stage\]\]"),
    "bad name": ('name = "vae"', 'name = "v/ae"', "name 'v/ae' must consist of letters"),
    "two stages of one name": ('name = "vae"', 'name = "text"', "there are two stages called 'text'"),
    "no outputs": ('["image"]', "[]", "outputs must name at least one value"),
    "neither model nor steps": ('model = "vae.onnx"\n', "", "stage 'vae' needs either a model or"),
    "model and steps": ("times = 3", 'times = 3\nmodel = "vae.onnx"', "'denoise' needs either a model or"),
    "no iterations": ("times = 3", "times = 0", "times must be at least 1, found 0"),
    "no carry": (
        'carry = { latents = "noise" }\n',
        "",
        "'denoise' is repeated, but no value passes from one iteration",
    ),
    "no times": ("times = 3\n", "", "'denoise' has carry or each, but not times"),
    "no such file": ('"vae.onnx"', '"vea.onnx"', "vea.onnx: no such file"),
    "unknown input": (
        'x = "latents"',
        'xs = "latents"',
        "vae.onnx has no input 'xs', did you mean 'x'[?] it has x",
    ),
    "unknown output": ('y = "image"', 'z = "image"', "vae.onnx has no output 'z'"),
    "made twice": ('out = "eps_negative"', 'out = "eps"', "'eps' is made twice, by stage 'denoise'"),
    "made by two stages": (
        'y = "image"',
        'y = "context"',
        "'context' is made twice, by stage 'text' and by stage 'vae'",
    ),
    "carry that nobody makes": (
        "carry = { latents =",
        "carry = { latnts =",
        "carries 'latnts', but none of its steps makes that, did you mean 'latents'",
    ),
    "carry that nobody reads": (
        'carry = { latents = "noise" }',
        'carry = { latents = "noise", eps_two = "noise" }',
        "carries 'eps_two', but none of its steps makes that",
    ),
    "carry that begins as itself": ('latents = "noise"', 'latents = "latents"', "'latents' begins as itself"),
    "carry that begins inside": (
        'latents = "noise"',
        'latents = "eps"',
        "begins as 'eps', which exists only in its own iterations",
    ),
    "each that nobody reads": (
        "each = { time",
        "each = { tine",
        "none of its steps reads 'tine' of each, did you mean",
    ),
    "each that is made": (
        'out = "eps" }',
        'out = "keep" }',
        "'keep' is made twice, by each of stage 'denoise' and by stage 'denoise'",
    ),
    "each that others read": (
        'x = "latents"',
        'x = "keep"',
        "stage 'vae' reads 'keep', which exists only in the iterations of stage 'denoise'",
    ),
    "each without a file": (
        '"time.npy"',
        '"times.npy"',
        "each 'time': there is no file .*times.npy; check the path",
    ),
    "each that is no array": (
        '"time.npy"',
        '"pipeline.toml"',
        "each 'time': .*pipeline.toml is not a NumPy array",
    ),
    "each of a wrong length": (
        "times = 3",
        "times = 4",
        "needs a row for each of the 4 iterations, but .* has 3 rows",
    ),
    "each of an unknown key": ("npz:keep", "npz:kep", "holds keep, not 'kep', did you mean 'keep'"),
    "each without a key": ("scales.npz:keep", "scales.npz", "holds keep, not ''; write it as file.npz:key"),
    "read before it is made": (
        'carry = { latents = "noise" }',
        'carry = { latents = "image" }',
        "stage 'denoise' reads 'image', which stage 'vae' makes later; stages run in the order given",
    ),
    "read before it is made by the same stage": (
        'context = "negative"',
        'context = "eps_negative"',
        "stage 'denoise' reads 'eps_negative' before it makes it; give it a first value with carry",
    ),
    "unknown output value": (
        '["image"]',
        '["imge"]',
        "no stage makes the output 'imge', did you mean 'image'",
    ),
    "useless stage": ('["image"]', '["latents"]', "stage 'vae': no output needs what vae.onnx makes"),
    "useless step": (
        'eps_negative" }\n\n[[stage.step]]',
        'other" }\n\n[[stage.step]]',
        "no output needs what unet.onnx",
    ),
    "input that is not listed": (
        'name = "diffusion"',
        'name = "diffusion"\ninputs = ["prompt", "noise", "negatve"]',
        "stage 'denoise' reads 'negative', which no stage makes and inputs do not list, did you mean 'negatve'",
    ),
    "input that nobody reads": (
        'name = "diffusion"',
        'name = "diffusion"\ninputs = ["prompt", "noise", "negative", "seed"]',
        "nothing reads the input 'seed'",
    ),
}


@pytest.mark.parametrize("case", LOADING)
def test_a_wrong_description_is_refused(case: str, tmp_path: Path) -> None:
    right, wrong, message = LOADING[case]
    assert right in DIFFUSION
    path = write_diffusion(tmp_path, DIFFUSION.replace(right, wrong, 1))
    with pytest.raises(ModelError, match=message) as caught:
        load_pipeline(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pipeline\.toml: no such file; check the path"):
        load_pipeline(tmp_path / "pipeline.toml")


def test_words_are_no_rows(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path)
    np.save(tmp_path / "time.npy", np.array(["a", "b", "c"]))
    with pytest.raises(ModelError, match=r"time\.npy holds str.*, but must hold numbers"):
        load_pipeline(path)


def test_inputs_are_what_nobody_makes_in_the_order_of_reading_or_as_listed(tmp_path: Path) -> None:
    assert load_pipeline(write_diffusion(tmp_path)).inputs == ("prompt", "noise", "negative")
    listed = DIFFUSION.replace(
        'name = "diffusion"', 'name = "diffusion"\ninputs = ["noise", "negative", "prompt"]'
    )
    assert load_pipeline(write_diffusion(tmp_path, listed)).inputs == ("noise", "negative", "prompt")


def test_the_digest_is_that_of_everything_that_is_named(tmp_path: Path) -> None:
    first = load_pipeline(write_diffusion(tmp_path / "a")).sha256
    assert load_pipeline(write_diffusion(tmp_path / "b")).sha256 == first
    np.save(tmp_path / "b" / "time.npy", np.array([[7], [3], [2]]))
    assert load_pipeline(tmp_path / "b" / "pipeline.toml").sha256 != first


# --- what only shows when models run ---


def test_a_carried_value_must_keep_its_shape(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source", rows="rows")
    nodes = [op("Concat", "latents eps", "next", axis=0)]
    ports = [floats("latents", "rows", WIDTH), floats("eps", "rows", WIDTH)]
    onnx.save_model(model(nodes, ports, [floats("next", "all", WIDTH)]), tmp_path / "source" / "step.onnx")
    described = path.read_text("utf-8").replace(', keep = "scales.npz:keep"', "")
    second = described.index("[[stage.step]]", described.index("[[stage.step]]") + 1)
    path.write_text(described[:second] + described[described.index("[[stage.step]]", second + 1) :], "utf-8")
    message = (
        r"stage 'denoise' carries 'latents', which begins as float32 \[1, 16\], but is float32 \[2, 16\] after an "
        "iteration; it must keep its type and shape"
    )
    with pytest.raises(ModelError, match=message):
        analysed(path, tmp_path)


def test_a_value_of_another_shape_than_its_reader_takes_is_told(tmp_path: Path) -> None:
    described = DIFFUSION.replace('x = "latents" }', 'x = "image_1" }').replace(
        'name = "vae"',
        'name = "wide"\nmodel = "vae.onnx"\ninputs = { x = "latents" }\noutputs = { y = "image_1" }\n\n'
        '[[stage]]\nname = "vae"',
    )
    message = r"stage 'vae': vae.onnx takes 'x' as float32 \[2, 16\], but 'image_1' is float32 \[2, 40\]"
    with pytest.raises(ModelError, match=message):
        analysed(write_diffusion(tmp_path / "source", described), tmp_path)


def test_two_readers_of_an_input_that_want_different_shapes_are_told(tmp_path: Path) -> None:
    described = DIFFUSION.replace('context = "negative"', 'context = "prompt"')
    path = write_diffusion(tmp_path / "source", described)
    onnx.save_model(
        model([op("Tanh", "prompt", "y")], [floats("prompt", 2, 3)], [floats("y", 2, 3)]),
        tmp_path / "source" / "text.onnx",
    )
    message = r"stage 'denoise' takes 'prompt' as float32 \[2, 16\], but an earlier stage takes it as float32 \[2, 3\]"
    with pytest.raises(ModelError, match=message):
        analysed(path, tmp_path)


def test_the_files_of_a_pipeline_are_all_that_it_names(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path)
    found = files_of(path, load_pipeline(path))
    assert {item.name for item in found} == {item.name for item in tmp_path.iterdir() if item.is_file()}
