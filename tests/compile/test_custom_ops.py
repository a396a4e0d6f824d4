"""Models with operators from a library that a person names: compiled, verified, profiled, served and run."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from splitc.bundle.folder import read_bundle
from splitc.common.custom_ops import find_custom_ops
from splitc.common.errors import InputError
from tests.running import LAUNCH, slow_device, splitc

extensions = pytest.importorskip("onnxruntime_extensions", reason="onnxruntime-extensions is not installed")
NAME = "onnxruntime-extensions"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = (x^-1 x) w: the first operator is not ONNX's."""
    path = tmp_path_factory.mktemp("model") / "inverse.onnx"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    nodes = [
        helper.make_node("Inverse", ["x"], ["i"], domain="ai.onnx.contrib"),
        helper.make_node("MatMul", ["i", "x"], ["one"]),
        helper.make_node("MatMul", ["one", "w"], ["y"]),
    ]
    weight = onnx.numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    folder = model.parent
    done = splitc(
        *("compile", model, "--device", slow_device(folder), "--custom-ops", NAME, "-o", "bundle"),
        cwd=folder,
    )
    assert done.code == 0, done.err
    return folder / "bundle"


def test_the_library_is_recorded_and_not_shipped(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    (library,) = manifest.model.custom_ops or ()
    assert (library.name, library.sha256) == (NAME, find_custom_ops([NAME])[0].sha256)
    assert {entry.path.rpartition(".")[2] for entry in manifest.files} <= {"onnx", "bin", "html"}
    assert all(cut.check is not None for cut in manifest.cuts)


def test_without_the_library_it_is_said_what_is_missing(bundle: Path, model: Path) -> None:
    done = splitc("compile", model, "--device", "pixel7", cwd=model.parent)
    assert (done.code, "name the library that has it with --custom-ops" in done.sentence) == (1, True)
    done = splitc("run", bundle, cwd=model.parent)
    assert done.code == 1
    assert f"needs the custom operators of '{NAME}'" in done.sentence
    assert splitc("serve", bundle, "--port", "0", cwd=model.parent).code == 1


def test_verify_and_profile(bundle: Path, model: Path) -> None:
    library = extensions.get_library_path()
    assert splitc("verify", bundle, "--custom-ops", NAME, cwd=model.parent).code == 0
    done = splitc("profile", model, "--custom-ops", library, "--runs", "5", cwd=model.parent)
    assert done.code == 0, done.err


def test_serve_and_run(bundle: Path, model: Path) -> None:
    with serving(bundle) as url:
        done = splitc(
            *("run", bundle, "--custom-ops", NAME, "--server", url, "--cut", last_cut(bundle)),
            *("--wait", "60s", "--json", "-o", "out.npz"),
            cwd=model.parent,
        )
    assert done.code == 0, done.err
    assert json.loads(done.out)["requests"][0]["finished"] == "cloud"
    expected = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(np.load(model.parent / "out.npz")["y"], expected, atol=1e-2)


def test_a_library_that_is_none(model: Path, tmp_path: Path) -> None:
    (tmp_path / "libnothing.so").write_bytes(b"nothing")
    done = splitc("inspect", model, "--custom-ops", tmp_path / "libnothing.so", cwd=tmp_path)
    assert (done.code, "as a library of custom operators" in done.sentence) == (1, True)
    with pytest.raises(InputError, match="no such library of custom operators"):
        find_custom_ops([str(tmp_path / "none.so")])


@pytest.mark.parametrize("file", ["libmine.so", "libmine.so.1.2", "mine.dll", "libmine.dylib"])
def test_a_library_has_one_name_on_all_systems(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"")
    assert find_custom_ops([str(tmp_path / file)])[0].name == "mine"


def last_cut(bundle: Path) -> str:
    return next(cut.id for cut in read_bundle(bundle).manifest.cuts if cut.kind == "all-tail")


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    command = [*LAUNCH, "serve", str(bundle), "--port", "0", "--json", "--custom-ops", NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                assert line, "the server did not start"
                text += line
            yield json.loads(text)["url"]
        finally:
            process.kill()
