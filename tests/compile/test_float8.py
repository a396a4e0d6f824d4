"""Inputs of 8-bit floats: random or given by value, and never sent."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from splitc.bundle.folder import read_bundle
from splitc.runtime.session import Session
from tests.running import compile_here

TYPES = {
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("given", [False, True], ids=["random", "samples"])
def test_inputs_of_8_bits(name: str, given: bool, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TYPES[name], [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    x = np.arange(8, dtype=np.float32).reshape(1, 8).astype(np.dtype(getattr(ml_dtypes, name)))
    samples: tuple[Path, ...] = ()
    if given:
        np.savez(tmp_path / "s.npz", x=x.view(np.uint8))  # numpy cannot read all such types again
        samples = (tmp_path / "s.npz",)
    bundle = read_bundle(compile_here(path, tmp_path / "bundle", samples=samples).folder)
    assert all(cut.check is not None for cut in bundle.manifest.cuts)
    assert "x" not in {entry.name for cut in bundle.manifest.cuts for entry in cut.sent}
    with Session(bundle.folder) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], x.astype(np.float32))
