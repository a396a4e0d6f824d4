"""A model is a pipeline of one stage: the same bundle, whichever way it is given."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from splitc.bundle.folder import read_bundle
from splitc.bundle.manifest import Manifest
from splitc.common.kinds import Direction
from splitc.compile.check import check_bundle, open_to_check
from splitc.compile.compile import Compiled
from splitc.compile.limits import LimitOptions
from tests import models
from tests.running import compile_here, save_tiny, tree

# These cannot be verified, or return an input as it is, which no stage of a pipeline makes.
MODELS_ONLY = {"string_input", "random_normal", "passthrough_output"}
SIZES = {"recurrent": {"batch": 1, "time": 3}, "named_dims": {"batch": 1, "height": 6, "width": 4}}


def described(model: Path, outputs: tuple[str, ...]) -> Path:
    """A pipeline of *model* alone, beside it; all names are the model's own."""
    path = model.with_suffix(".toml")
    path.write_text(
        f"name = {json.dumps(model.stem)}\noutputs = {json.dumps(outputs)}\n\n"
        f'[[stage]]\nname = "whole"\nmodel = {json.dumps(model.name)}\n',
        encoding="utf-8",
    )
    return path


def both(name: str, folder: Path, **options: object) -> tuple[Compiled, Compiled]:
    model = save_tiny(name, folder)
    outputs = tuple(port.name for port in onnx.load_model(model).graph.output)
    cache = folder / "cache"
    return (
        compile_here(model, folder / "of_model", cache=cache, **options),  # type: ignore[arg-type]
        compile_here(described(model, outputs), folder / "of_pipeline", cache=cache, **options),  # type: ignore[arg-type]
    )


def without_names(manifest: Manifest) -> Manifest:
    """The digest of what was given, and of the page that shows it, are all that may differ."""
    files = tuple(entry for entry in manifest.files if entry.path != "report.html")
    return replace(manifest, model=replace(manifest.model, sha256="0" * 64), files=files)


def assert_alike(one: Compiled, other: Compiled) -> None:
    assert without_names(one.manifest) == without_names(other.manifest)
    assert all(cut.check is not None for cut in one.manifest.cuts)
    for cut in one.manifest.cuts:
        assert all(part is None or part.file is not None for part in (cut.head, cut.tail))
    files, others = tree(one.folder), tree(other.folder)
    for file in ("manifest.json", "report.html"):
        assert files.pop(file)
        assert others.pop(file)
    assert files == others


@pytest.mark.parametrize("name", sorted(set(models.ALL) - MODELS_ONLY))
def test_the_same_cuts_bytes_and_notes(name: str, tmp_path: Path) -> None:
    directions: tuple[Direction, ...] = ("device-first", "cloud-first")
    assert_alike(*both(name, tmp_path, directions=directions, dims=SIZES.get(name)))


def test_the_same_times_where_they_are_measured(tmp_path: Path) -> None:
    """They are those of the same profile and timings in the cache; without one, each would be measured anew."""
    one, other = both("tiny_cnn", tmp_path, cloud="local", simplify=True)
    assert_alike(one, other)
    assert one.manifest.targets.cloud.source == "measured"


def test_the_same_pins_and_the_same_words(tmp_path: Path) -> None:
    limits = LimitOptions(pin_device=("stem/conv",), pin_cloud=("logits",), private=("image",))
    one, other = both("tiny_cnn", tmp_path, limits=limits, simplify=True)
    assert without_names(one.manifest) == without_names(other.manifest)
    assert [verdict.sentence() for verdict in one.verdicts] == [item.sentence() for item in other.verdicts]


def test_each_is_verified_against_what_it_was_compiled_from(tmp_path: Path) -> None:
    for made, source in zip(both("tiny_cnn", tmp_path), ("tiny_cnn.onnx", "tiny_cnn.toml"), strict=True):
        keys = [cut.id for cut in made.manifest.cuts]
        for model in (None, tmp_path / source):
            checked = check_bundle(open_to_check(made.folder), model, (), lambda _: None)
            assert [key for key, _ in checked.cuts] == keys


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    """Layers with equal weights: a model's bundle holds them once, as a pipeline's does."""
    built = models.early_output()
    first, *others = (item for item in built.graph.initializer if len(item.raw_data) >= 1024)
    assert others
    for item in others:
        item.raw_data = first.raw_data
    (tmp_path / "source").mkdir()
    onnx.save_model(built, tmp_path / "source" / "twins.onnx")
    made = compile_here(tmp_path / "source" / "twins.onnx", tmp_path / "bundle")
    assert (made.folder / "weights.bin").stat().st_size == len(first.raw_data)


def test_values_of_other_names_are_those_of_the_description(tmp_path: Path) -> None:
    """Where the description renames inputs and outputs, the bundle keeps to its words."""
    model = save_tiny("tiny_cnn", tmp_path)
    path = tmp_path / "renamed.toml"
    path.write_text(
        'name = "renamed"\noutputs = ["scores"]\n[[stage]]\nname = "net"\nmodel = "tiny_cnn.onnx"\n'
        'inputs = { image = "photo" }\noutputs = { logits = "scores" }\n',
        encoding="utf-8",
    )
    renamed, plain = compile_here(path, tmp_path / "renamed"), compile_here(model, tmp_path / "plain")
    manifest = read_bundle(renamed.folder).manifest
    assert [item.name for item in manifest.model.inputs] == ["photo"]
    assert [item.name for item in manifest.model.outputs] == ["scores"]
    assert all(part.stages for cut in manifest.cuts for part in (cut.head, cut.tail) if part is not None)
    assert [cut.uplink_bytes for cut in manifest.cuts] == [cut.uplink_bytes for cut in plain.manifest.cuts]
    assert all(cut.check is not None for cut in manifest.cuts)
    (all_tail,) = (cut for cut in manifest.cuts if cut.kind == "all-tail")
    assert [tensor.name for tensor in all_tail.boundary] == ["photo"]
