"""compile_model: the same bytes for the same inputs, on all kinds of models."""

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from splitc.bundle.folder import read_bundle
from splitc.bundle.manifest import part_files
from splitc.common.errors import ModelError, ProfileError, SplitcError, TargetError
from splitc.compile.check import check_bundle, open_to_check
from splitc.compile.compile import REPORT
from splitc.compile.limits import LimitOptions
from tests import models
from tests.conftest import Tiny
from tests.running import compile_here, machine, save_tiny, splitc, tree
from tests.splitting import save

SIZES = {"recurrent": {"batch": 1, "time": 3}, "named_dims": {"batch": 1, "height": 6, "width": 4}}


@pytest.mark.parametrize("name", sorted(set(models.ALL) - {"string_input", "random_normal"}))
def test_every_tiny_model_compiles_and_is_verified(name: str, tmp_path: Path) -> None:
    model = save_tiny(name, tmp_path)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    compiled = compile_here(model, tmp_path / "out", dims=SIZES.get(name))
    bundle = read_bundle(tmp_path / "out")
    assert bundle.manifest == compiled.manifest
    assert all(cut.check is not None for cut in bundle.manifest.cuts)
    assert bundle.manifest.model.sha256 == digest == hashlib.sha256(model.read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {model.name, "out", "slow.toml", "fast.toml"}
    assert REPORT in {entry.path for entry in bundle.manifest.files}


def test_a_model_too_large_to_run_is_still_cut_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    """With recorded profiles nothing has to run: no simplifying, no checks, a note for each, the same cuts."""
    profile = tmp_path / "tiny.json"
    assert splitc("profile", tiny.model, "-o", profile, cwd=tmp_path).code == 0
    common = (tiny.model, "--device", tiny.device, "--cloud-profile", profile, "--no-simplify", "--no-cache")
    small = splitc("compile", *common, "--build-memory", "10kB", "-o", "small", cwd=tmp_path)
    large = splitc("compile", *common, "-o", "large", cwd=tmp_path)
    assert (small.code, large.code) == (0, 0), small.err + large.err
    manifests = [read_bundle(tmp_path / name).manifest for name in ("small", "large")]
    assert not manifests[0].model.simplified
    assert all(cut.check is None for cut in manifests[0].cuts)
    assert any("neither simplified nor run" in note for note in manifests[0].notes)
    assert any("not verified: too little memory" in note for note in manifests[0].notes)
    assert all(cut.check is not None for cut in manifests[1].cuts)
    assert [cut.boundary for cut in manifests[0].cuts] == [cut.boundary for cut in manifests[1].cuts]


def test_a_model_too_large_to_be_profiled_asks_for_a_profile(tiny: Tiny, tmp_path: Path) -> None:
    done = splitc(
        "compile", tiny.model, "--device", tiny.device, "--build-memory", "10kB", "--no-cache", cwd=tmp_path
    )
    assert done.code == 1
    assert "too large to be profiled here; give a recorded profile with --cloud-profile" in done.sentence


def test_a_model_that_differs_from_itself_is_shipped_with_a_note(tmp_path: Path) -> None:
    compiled = compile_here(save_tiny("random_normal", tmp_path), tmp_path / "out")
    assert all(cut.check is None for cut in compiled.manifest.cuts)
    assert (
        "cuts were not verified: the model gives another result each time it runs" in compiled.manifest.notes
    )


def test_unverified_on_request(tmp_path: Path) -> None:
    compiled = compile_here(save_tiny("diamond", tmp_path), tmp_path / "out", verify=False)
    assert all(cut.check is None for cut in compiled.manifest.cuts)
    assert "cuts were not verified: --no-verify" in compiled.manifest.notes


def test_strings_come_from_samples(tmp_path: Path) -> None:
    model = save_tiny("string_input", tmp_path)
    with pytest.raises(ModelError, match="input 'word' is not a numeric tensor; give values with --samples"):
        compile_here(model, tmp_path / "out")
    feeds = models.random_feeds(onnx.load_model(model))
    np.savez(tmp_path / "s.npz", word=feeds["word"].astype(str), x=feeds["x"])
    samples = (tmp_path / "s.npz",)
    for compiled in (
        compile_here(model, tmp_path / "predicted", samples=samples),
        compile_here(model, tmp_path / "measured", samples=samples, device="local", cloud="local"),
    ):
        assert all(cut.check is not None and cut.check.seeds == 1 for cut in compiled.manifest.cuts)
        assert all(tensor.name != "word" for cut in compiled.manifest.cuts for tensor in cut.boundary)


def test_the_rank_of_an_input_comes_from_samples(tmp_path: Path) -> None:
    built = models.early_output()
    built.graph.input[0].type.tensor_type.ClearField("shape")
    model = save(built, tmp_path / "source")
    with pytest.raises(
        ModelError, match=r"input 'x' has no declared shape; .* or give an input with --samples"
    ):
        compile_here(model, tmp_path / "out")
    np.savez(tmp_path / "s.npz", x=models.random_feeds(models.early_output())["x"])
    limits = LimitOptions(pin_device=("MatMul_a_m",), pin_cloud=("Tanh_y",))
    made = compile_here(model, tmp_path / "out", samples=(tmp_path / "s.npz",), limits=limits)
    assert made.manifest.model.inputs[0].shape == ("x:0", "x:1")
    assert made.manifest.model.dims == {"x:0": 2, "x:1": models.WIDTH}
    assert {cut.kind for cut in made.manifest.cuts if cut.check is not None} == {"split"}
    checked = check_bundle(open_to_check(made.folder), model, (), lambda _: None)
    assert len(checked.cuts) == len(made.manifest.cuts)


def test_sequences_come_from_folders_of_test_data(tmp_path: Path) -> None:
    nodes = [
        models.op("ConcatFromSequence", "s", "a", axis=0),
        *models.dense("a", "b"),
        *models.dense("b", "y"),
    ]
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1, models.WIDTH])
    built = models.model(nodes, [sequence], [models.Y], models.dense_weights("b", "y"))
    model, folder = save(built, tmp_path / "source"), tmp_path / "test_data_set_0"
    with pytest.raises(
        ModelError, match="input 's' is not a numeric tensor; give values with --samples FOLDER"
    ):
        compile_here(model, tmp_path / "out")
    folder.mkdir()
    with pytest.raises(ModelError, match=r"input_0.pb: cannot be read .* a folder of samples has a file"):
        compile_here(model, tmp_path / "out", samples=(folder,))
    (folder / "input_0.pb").write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match=r"input_0.pb: does not hold the input 's', which is seq"):
        compile_here(model, tmp_path / "out", samples=(folder,))
    rows = [models.random_values(name, (1, models.WIDTH)).astype(np.float32) for name in "ab"]
    (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_list(rows).SerializeToString())
    limits = LimitOptions(pin_cloud=("Tanh_y",))
    made = compile_here(model, tmp_path / "out", samples=(folder,), limits=limits)
    assert "input 's' (seq(tensor(float))) is not sent: the device runs what reads it" in made.manifest.notes
    assert {cut.kind for cut in made.manifest.cuts if cut.check is not None} == {"split"}


def test_bfloat16_samples(tmp_path: Path) -> None:
    """.npz files forget the name of a type that numpy lacks."""
    ports = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [4]) for name in "xy"]
    onnx.save_model(
        models.model([models.op("Identity", "x", "y")], ports[:1], ports[1:]), tmp_path / "m.onnx"
    )
    np.savez(tmp_path / "s.npz", x=np.ones(4, ml_dtypes.bfloat16))
    assert compile_here(tmp_path / "m.onnx", tmp_path / "out", samples=(tmp_path / "s.npz",)).manifest.cuts


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": np.ones((1, 3, 32, 32), np.float32)}, "input 'image'|input 'picture'"),
        ({"image": np.ones((1, 3, 32, 32))}, "input 'image' has type float64, but the model needs float32"),
        ({"image": np.ones((2, 3, 32, 32), np.float32)}, "has shape .* but the model is sized for"),
        ({"image": np.ones((3, 32, 32), np.float32)}, "has shape .* but the model is sized for"),
        (None, "cannot be read \\(No such file"),
    ],
    ids=["name", "dtype", "size", "rank", "no file"],
)
def test_samples_that_do_not_fit(
    arrays: dict[str, models.Array] | None, message: str, tmp_path: Path
) -> None:
    if arrays is not None:
        np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        compile_here(save_tiny("tiny_cnn", tmp_path), tmp_path / "out", samples=(tmp_path / "s.npz",))
    assert not (tmp_path / "out").exists()


def test_symbolic_dimensions(tmp_path: Path) -> None:
    model = save_tiny("named_dims", tmp_path)
    with pytest.raises(ModelError, match=r"give yours as in `--dim \w+=128 --dim \w+=128`"):
        compile_here(model, tmp_path / "out")
    with pytest.raises(ModelError, match="no symbolic dimension 'depth'"):
        compile_here(model, tmp_path / "out", dims={"height": 4, "width": 4, "depth": 1})
    compiled = compile_here(model, tmp_path / "out", dims={"height": 4, "width": 4})
    assert any(
        "sized for one request (batch=1)" in note and "--dim batch=SIZE" in note
        for note in compiled.manifest.notes
    )
    assert compiled.manifest.model.dims == {"batch": 1, "height": 4, "width": 4}


def test_a_pair_works_at_other_sizes_than_it_was_sized_at(tmp_path: Path) -> None:
    model = save_tiny("dynamic_batch", tmp_path)
    compiled = compile_here(model, tmp_path / "out", limits=LimitOptions(pin_device=("a",), pin_cloud=("y",)))
    whole = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for cut in compiled.manifest.cuts:
        assert cut.head is not None
        assert cut.tail is not None
        head, tail = (
            ort.InferenceSession(
                str(compiled.folder / part_files(part)[0]), providers=["CPUExecutionProvider"]
            )
            for part in (cut.head, cut.tail)
        )
        for batch in (1, 5):
            x = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32), np.float32)
            sent = dict(
                zip([port.name for port in head.get_outputs()], head.run(None, {"x": x}), strict=True)
            )
            (got,) = tail.run(None, {port.name: sent.get(port.name, x) for port in tail.get_inputs()})
            np.testing.assert_allclose(got, whole.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_a_quantised_model_is_cut_at_its_bytes(tmp_path: Path) -> None:
    limits = LimitOptions(pin_device=("a",), pin_cloud=("y",))
    compiled = compile_here(save_tiny("qdq_residual", tmp_path), tmp_path / "out", limits=limits)
    assert {tensor.dtype for cut in compiled.manifest.cuts for tensor in cut.boundary} == {"int8"}


def test_same_bytes_from_descriptions_alone(tmp_path: Path) -> None:
    model = save_tiny("tiny_cnn", tmp_path)
    compile_here(model, tmp_path / "one", simplify=True)
    compile_here(model, tmp_path / "two", simplify=True)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_same_bytes_from_kept_measurements(tiny: Tiny, home: Path, tmp_path: Path) -> None:
    arguments = ("compile", tiny.model, "--device", tiny.device, "--cache-dir", home / "tiny")
    assert splitc(*arguments, "-o", tmp_path / "again", cwd=tmp_path).code == 0
    assert tree(tmp_path / "again") == tree(tiny.bundle.folder)


def test_damaged_measurements_are_made_anew(tiny: Tiny, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    compile_here(tiny.model, tmp_path / "one", cloud="local", cache=cache)
    kinds = {path.parent.name for path in cache.rglob("*.json")}
    assert kinds == {"units", "profiles", "timings"}
    for number, path in enumerate(sorted(cache.rglob("*.json"))):
        path.write_text(["{", "[]", '{"head": "soon", "tail": null}'][number % 3], encoding="utf-8")
    compile_here(tiny.model, tmp_path / "two", cloud="local", cache=cache)
    compile_here(tiny.model, tmp_path / "three", cloud="local", cache=cache)
    assert tree(tmp_path / "two") == tree(tmp_path / "three")


def test_recorded_profiles_take_the_place_of_measuring(tiny: Tiny, tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    assert splitc("profile", tiny.model, "-o", profile, cwd=tmp_path).code == 0
    given: dict[str, Any] = {
        "device": "pixel7",
        "device_profiles": (profile,),
        "cloud_profiles": (profile,),
        "simplify": True,
    }
    for name in ("one", "two"):
        compile_here(tiny.model, tmp_path / name, **given)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    targets = read_bundle(tmp_path / "one").manifest.targets
    assert (targets.device.source, targets.cloud.source) == ("measured", "measured")
    with pytest.raises(ProfileError, match="is a profile of another model"):
        compile_here(save_tiny("diamond", tmp_path), tmp_path / "out", device_profiles=(profile,))


def test_energy_needs_figures(tmp_path: Path) -> None:
    model = save_tiny("tiny_cnn", tmp_path)
    frugal = LimitOptions(max_energy_j=1.0)
    with pytest.raises(TargetError, match="name exactly one network with --network"):
        compile_here(model, tmp_path / "out", limits=frugal)
    with pytest.raises(TargetError, match="needs active_w, which target 'slow' lacks"):
        compile_here(model, tmp_path / "out", limits=frugal, networks=("lte",))
    powered = str(machine(tmp_path, "powered", overhead_s=0.01, active_w=2.0))
    with pytest.raises(TargetError, match="which network 'lte' lacks"):
        compile_here(model, tmp_path / "out", limits=frugal, networks=("lte",), device=powered)
    source = 'source = "made up"\nconfidence = "recalled"\n'
    text = 'name = "air"\ndescription = "made up"\n'
    for name, value in (("uplink_bps", 1e7), ("downlink_bps", 1e7), ("rtt_s", 0.02)):
        text += f"[{name}]\ntypical = {value}\n{source}"
    for name in ("uplink_j_per_byte", "downlink_j_per_byte"):
        text += f"[{name}]\nvalue = 1e-6\n{source}"
    (tmp_path / "air.toml").write_text(text, encoding="utf-8")
    networks = (str(tmp_path / "air.toml"),)
    compiled = compile_here(
        model, tmp_path / "out", limits=LimitOptions(max_energy_j=0.1), networks=networks, device=powered
    )
    for cut in compiled.manifest.cuts:
        spent = 1e-6 * (cut.uplink_bytes + cut.downlink_bytes) + (2.0 * cut.head.latency_s if cut.head else 0)
        assert spent <= 0.1 + 1e-9


def test_the_box_is_that_of_the_networks_named(tmp_path: Path) -> None:
    model = save_tiny("tiny_cnn", tmp_path)
    box = compile_here(model, tmp_path / "out", networks=("lte", "wifi")).manifest.box
    assert box.uplink_bps[0] >= 1e6
    assert compile_here(model, tmp_path / "out").manifest.box.uplink_bps == (5e5, 1e9)


def test_all_failures_are_of_one_family(tmp_path: Path) -> None:
    with pytest.raises(SplitcError):
        compile_here(tmp_path / "nothing.onnx", tmp_path / "out")


# --- models that ONNX Runtime takes although the format does not ---

BOTH = LimitOptions(pin_device=("MatMul_a_m",), pin_cloud=("Tanh_y",))


def test_a_domain_of_onnx_runtime_need_not_be_imported(tmp_path: Path) -> None:
    nodes = [*models.dense("x", "a"), models.op("com.microsoft.Gelu", "a", "b"), *models.dense("b", "y")]
    built = models.model(nodes, [models.X], [models.Y], models.dense_weights("a", "y"))
    made = compile_here(save(built, tmp_path / "source"), tmp_path / "bundle", limits=BOTH)
    assert made.manifest.model.opsets["com.microsoft"] == 1
    assert {cut.kind for cut in made.manifest.cuts if cut.check is not None} == {"split"}


def test_an_output_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    built = models.early_output()
    built.graph.output.append(built.graph.output[0])
    made = compile_here(save(built, tmp_path / "source"), tmp_path / "bundle", limits=BOTH)
    assert [entry.name for entry in made.manifest.model.outputs] == ["y", "a"]
    for cut in made.manifest.cuts:
        for part in (cut.head, cut.tail):
            if part is not None:
                names = [port.name for port in onnx.load_model(made.folder / (part.file or "")).graph.output]
                assert len({*names}) == len(names)
    assert {cut.kind for cut in made.manifest.cuts if cut.check is not None} == {"split"}


def test_a_default_of_an_input_is_fixed_and_told(tmp_path: Path) -> None:
    built = models.chain()
    built.graph.input.append(models.floats("a_w", 8, 3, 3, 3))
    made = compile_here(save(built, tmp_path / "source"), tmp_path / "bundle")
    note = "input 'a_w' has a default in the model and is fixed to it in the bundle"
    assert note in made.manifest.notes
