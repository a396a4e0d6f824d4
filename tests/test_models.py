"""The tiny models are what they claim: valid, runnable, and sensitive to their inputs."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests import models

# Outputs that may not change with the input.
FIXED = {("constant_output", "z")}


def run(built: onnx.ModelProto, seed: int) -> dict[str, Any]:
    session = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, models.random_feeds(session, seed=seed)), strict=True))


@pytest.mark.parametrize("name", models.ALL)
def test_is_valid(name: str) -> None:
    # ONNX shape inference takes a sparse initializer for a sparse tensor, which no operator accepts.
    onnx.checker.check_model(models.ALL[name](), full_check=name != "sparse_initializer")


@pytest.mark.parametrize("name", models.ALL)
def test_outputs_depend_on_inputs(name: str) -> None:
    built = models.ALL[name]()
    outputs = [run(built, seed) for seed in range(4)]
    for output in outputs[0]:
        changed = any(not same(outputs[0][output], other[output]) for other in outputs[1:])
        assert changed is ((name, output) not in FIXED), output


@pytest.mark.parametrize("name", sorted(set(models.ALL) - {"random_normal"}))
def test_is_reproducible(name: str) -> None:
    maker = models.ALL[name]
    assert maker().SerializeToString(deterministic=True) == maker().SerializeToString(deterministic=True)
    first, again = run(maker(), 0), run(maker(), 0)
    assert all(same(first[output], again[output]) for output in first)


@pytest.mark.parametrize("name", ["if_captures", "nested_if", "local_function_in_if"])
def test_random_feeds_reach_all_branches(name: str) -> None:
    built = models.ALL[name]()
    conditions = {node.input[0] for node in built.graph.node if node.op_type == "If"} | {"q"}
    made = {output for node in built.graph.node for output in node.output}
    for condition in conditions & made:
        probe = models.ALL[name]()
        probe.graph.output.append(onnx.helper.make_tensor_value_info(condition, onnx.TensorProto.BOOL, []))
        assert {bool(run(probe, seed)[condition]) for seed in range(8)} == {False, True}


def test_feeds_are_reproducible_and_follow_dims() -> None:
    first, again = (models.random_feeds(models.named_dims(), {"height": 5}, seed=7) for _ in range(2))
    assert first["x"].shape == (2, 3, 5, 2)
    np.testing.assert_array_equal(first["x"], again["x"])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return np.array_equal(one, other)
