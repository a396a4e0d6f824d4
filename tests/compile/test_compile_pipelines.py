"""Compiling pipelines: what lies in the bundle, and what its manifest says."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

import splitc
from splitc.bundle.decide import Conditions, decide
from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CutEntry, PartEntry
from splitc.bundle.pack import pack
from splitc.bundle.program import Call, part_program, run_program
from splitc.common import ort
from splitc.common.errors import ModelError, NoFeasibleCut, VerifyError
from splitc.common.values import Value
from splitc.compile import trial
from splitc.compile.limits import LimitOptions
from tests.compile.pipeline.making import compiled, write_diffusion, write_long
from tests.models import WIDTH, floats, model, op
from tests.running import tree


@pytest.fixture(scope="module")
def long_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("long")
    path = write_long(folder / "source")
    return read_bundle(compiled(path, folder / "bundle").folder)


def test_the_manifest_describes_the_pipeline(long_bundle: Bundle) -> None:
    manifest = long_bundle.manifest
    assert manifest.model.name == "diffusion"
    assert [(item.name, item.shape) for item in manifest.model.inputs] == [
        ("prompt", (2, WIDTH)),
        ("noise", (2, WIDTH)),
        ("negative", (2, WIDTH)),
    ]
    assert [(item.name, item.shape) for item in manifest.model.outputs] == [("image", (2, 40))]
    assert manifest.model.opsets == {"": 18}
    assert manifest.direction in ("both", "cloud-first")
    kinds = [cut.kind for cut in manifest.cuts]
    assert kinds == ["all-head", *["split"] * 6, "all-tail"]
    assert manifest.targets.device.source == "predicted"


def test_the_manifest_keeps_to_its_schema(long_bundle: Bundle) -> None:
    schema = json.loads((Path(splitc.__file__).parent / "schemas" / "manifest.schema.json").read_bytes())
    Draft202012Validator(schema).validate(json.loads(long_bundle.path("manifest.json").read_bytes()))


def test_hand_overs_inside_the_loop_are_shipped(long_bundle: Bundle) -> None:
    ends = []
    for cut in long_bundle.manifest.cuts:
        assert cut.head is None or cut.head.stages is not None
        stages = cut.head.stages if cut.head is not None and cut.head.stages is not None else ()
        ends += [stage.loop.end for stage in stages if stage.loop is not None]
    assert len({end for end in ends if 0 < end < 20}) >= 3


def test_of_an_iteration_the_values_cross_that_the_next_one_needs(long_bundle: Bundle) -> None:
    cut = inside(long_bundle)
    assert {entry.name for entry in cut.boundary} == {"context", "latents"} | (
        set() if cut.is_cloud_first else {"negative"}
    )
    assert {entry.name for entry in cut.sent} <= {"prompt", "noise", "negative", "context", "latents"}
    if cut.is_cloud_first:
        assert cut.downloads is not None
        assert [entry.name for entry in cut.sent] == ["prompt", "noise", "negative"]
        assert {entry.name for entry in cut.downloads} == {"context", "latents"}


def inside(bundle: Bundle) -> CutEntry:
    """A cut between two iterations."""
    for cut in bundle.manifest.cuts:
        stages = cut.tail.stages if cut.tail is not None else None
        if any(stage.loop is not None and stage.loop.first > 0 for stage in stages or ()):
            return cut
    raise AssertionError("there is none")


def test_every_cut_is_checked_and_what_was_shortened_is_told(long_bundle: Bundle) -> None:
    assert all(cut.check is not None and cut.check.seeds == 3 for cut in long_bundle.manifest.cuts)
    assert (
        "cuts were verified with 3 of the 20 iterations of stage 'denoise', a hand-over inside the loop stays inside"
    ) in long_bundle.manifest.notes


def test_the_whole_loop_gives_the_same_wherever_it_is_handed_over(long_bundle: Bundle) -> None:
    """Not shortened: all cuts of the bundle on its own files."""
    rng = np.random.default_rng(5)
    inputs = {
        item.name: rng.standard_normal((2, WIDTH), np.float32) for item in long_bundle.manifest.model.inputs
    }
    results = [composed(long_bundle, cut, inputs) for cut in long_bundle.manifest.cuts]
    assert len(results) == 8
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-5)


def composed(bundle: Bundle, cut: CutEntry, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    def run(call: Call) -> dict[str, Value]:
        return ort.run(ort.session(bundle.path(call.file), threads=1), call.feeds, call.outputs)

    values: dict[str, Value] = dict(inputs)
    parts: list[PartEntry | None] = [cut.head, cut.tail]
    for part in parts:
        if part is None:
            continue
        program = part_program(cut, part, ["image"])
        values |= run_program(program, values, run, lambda file: np.asarray(np.load(bundle.path(file))))
    image: NDArray[np.float32] = values["image"]
    return image


def test_times_of_parts_grow_with_their_iterations(long_bundle: Bundle) -> None:
    cuts = [cut for cut in long_bundle.manifest.cuts if cut.kind == "split"]
    assert [cut.cloud_s for cut in cuts] == sorted(cut.cloud_s for cut in cuts)
    whole = long_bundle.manifest.cuts[0].device_s
    assert all(0 < cut.device_s < whole for cut in cuts)


def test_a_target_latency_is_met_with_less_of_the_cloud_than_all_of_it(long_bundle: Bundle) -> None:
    """The paper's policy: without hand-overs inside the loop, the cloud would have to do all of it."""
    conditions = Conditions(1e8, 1e8, 0.01)
    alone = decide(long_bundle.manifest, Conditions(0.0, 0.0, 0.01)).latency_s
    fastest = decide(long_bundle.manifest, conditions).latency_s
    chosen = decide(long_bundle.manifest, conditions, (alone + fastest) / 2)
    assert chosen.latency_s <= (alone + fastest) / 2
    assert chosen.cut.kind == "split"
    assert 0.2 < chosen.cut.cloud_s / long_bundle.manifest.cuts[-1].cloud_s < 0.8


def test_the_report_is_written(long_bundle: Bundle) -> None:
    report = long_bundle.path("report.html").read_text("utf-8")
    assert "diffusion" in report
    assert "latents" in report


def test_same_inputs_same_bytes(tmp_path: Path, long_bundle: Bundle) -> None:
    path = write_long(tmp_path / "source")
    folder = compiled(path, tmp_path / "bundle").folder
    assert tree(folder) == tree(long_bundle.folder)


def test_a_pipeline_is_packed_for_each_side(tmp_path: Path, long_bundle: Bundle) -> None:
    for side in ("device", "cloud"):
        pack(long_bundle.folder, side, tmp_path / side)
        packed = read_bundle(tmp_path / side)
        assert packed.path("each-denoise-time.npy").exists()
        assert packed.digest == long_bundle.digest


# --- other pipelines ---


def test_the_bundle_is_called_after_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_diffusion(tmp_path / "source")
    assert compiled(path, None, verify=False).folder == Path("artifacts/diffusion-slow")


def test_pins_and_privacy_hold(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    limits = LimitOptions(private=("prompt",), pin_cloud=("vae",))
    bundle = read_bundle(compiled(path, tmp_path / "bundle", limits=limits).folder)
    for cut in bundle.manifest.cuts:
        assert cut.kind == "split"
        assert not cut.is_cloud_first
        assert "prompt" not in {entry.name for entry in cut.sent}


def test_what_cannot_be_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    limits = LimitOptions(pin_device=("denoise",), pin_cloud=("latents",))
    with pytest.raises(NoFeasibleCut):
        compiled(path, tmp_path / "bundle", limits=limits)
    assert not (tmp_path / "bundle").exists()


def test_this_machine_is_measured_once_for_each_model(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    first = compiled(path, tmp_path / "a", cloud="local", cache=tmp_path / "cache")
    assert first.manifest.targets.cloud.source == "measured"
    assert {cut.cloud.source for cut in first.manifest.cuts if cut.cloud is not None} == {"measured"}
    second = compiled(path, tmp_path / "b", cloud="local", cache=tmp_path / "cache")
    assert tree(first.folder) == tree(second.folder)


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    done = compiled(path, tmp_path / "bundle", build_memory_bytes=1)
    assert {cut.check for cut in done.manifest.cuts} == {None}
    assert "cuts were not verified: too little memory to run them" in done.manifest.notes


def test_a_pipeline_that_is_random_is_not_verified(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    nodes = [op("RandomNormalLike", "x", "r"), op("Add", "x r", "d"), op("Tanh", "d", "y")]
    built = model(nodes, [floats("x", 2, WIDTH)], [floats("y", 2, WIDTH)])
    onnx.save_model(built, tmp_path / "source" / "vae.onnx")
    done = compiled(path, tmp_path / "bundle")
    assert (
        "cuts were not verified: the pipeline gives another result each time it runs" in done.manifest.notes
    )
    assert {cut.check for cut in done.manifest.cuts} == {None}


def test_a_bundle_that_computes_something_else_is_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model is swapped behind the compiler's back, after it was analysed and before it runs."""
    path = write_diffusion(tmp_path / "source")

    def swapped(*arguments: object) -> object:
        shutil.copyfile(tmp_path / "other" / "vae.onnx", tmp_path / "source" / "vae.onnx")
        return trial.known_whole(*arguments)  # type: ignore[arg-type]

    write_diffusion(tmp_path / "other")
    nodes = [op("Concat", "x x x", "c", axis=1), op("Slice", "c from to axes", "y")]
    numbers = [
        onnx.numpy_helper.from_array(np.array([number]), name)
        for name, number in (("from", 0), ("to", 40), ("axes", 1))
    ]
    onnx.save_model(
        model(nodes, [floats("x", 2, WIDTH)], [floats("y", 2, 40)], numbers), tmp_path / "other" / "vae.onnx"
    )
    monkeypatch.setattr("splitc.compile.compile.known_whole", swapped)
    with pytest.raises(
        VerifyError,
        match=r"^no cut computes what the pipeline does; the whole pipeline on the device \(all-head\): output 'image' differs",
    ):
        compiled(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_missing_model_leaves_nothing(tmp_path: Path) -> None:
    path = write_diffusion(tmp_path / "source")
    (tmp_path / "source" / "vae.onnx").unlink()
    with pytest.raises(ModelError, match=r"vae\.onnx: no such file"):
        compiled(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
