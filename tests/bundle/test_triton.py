"""config.pbtxt says what Triton must know, in its own words."""

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from splitc.bundle.triton import config
from splitc.common.errors import ModelError
from tests import models, textproto


def port(name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def parsed(*ports: onnx.ValueInfoProto, max_batch: int = 0, name: str = "m.c1") -> Any:
    return textproto.parse(config(name, ports, ports, max_batch=max_batch, origin="made here"))


def test_it_states_everything() -> None:
    found = parsed(port("x", 1, 3, "h", None))
    assert (found.name, found.backend, found.max_batch_size) == ("m.c1", "onnxruntime", 0)
    assert not found.HasField("dynamic_batching")
    for item in (*found.input, *found.output):
        assert (item.name, textproto.type_name(item.data_type)) == ("x", "TYPE_FP32")
        assert list(item.dims) == [1, 3, -1, -1]
        assert not item.HasField("reshape")


def test_the_axis_of_a_batch_is_left_out() -> None:
    found = parsed(port("x", "n", 3), max_batch=8)
    assert (found.max_batch_size, list(found.input[0].dims)) == (8, [3])
    assert found.HasField("dynamic_batching")


@pytest.mark.parametrize(("shape", "max_batch"), [((), 0), (("n",), 8)], ids=["scalar", "batch of scalars"])
def test_scalars_are_reshaped(shape: tuple[str, ...], max_batch: int) -> None:
    """Triton knows no tensor without dimensions."""
    found = parsed(port("x", *shape), max_batch=max_batch)
    assert list(found.input[0].dims) == [1]
    assert found.input[0].HasField("reshape")
    assert not found.input[0].reshape.shape


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("BOOL", "BOOL"),
        ("UINT8", "UINT8"),
        ("INT64", "INT64"),
        ("FLOAT16", "FP16"),
        ("DOUBLE", "FP64"),
        ("STRING", "STRING"),
    ],
)
def test_types_have_triton_s_names(kind: str, name: str) -> None:
    found = parsed(port("x", 1, kind=TensorProto.DataType.Value(kind)))
    assert textproto.type_name(found.input[0].data_type) == f"TYPE_{name}"


def test_what_the_backend_does_not_take_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the input 'x' has a type .* serve the bundle with splitc serve"):
        parsed(port("x", 1, kind=TensorProto.BFLOAT16))
    sequence = models.sequence_output().graph.output[0]
    with pytest.raises(ModelError, match="the input 'y'"):
        parsed(sequence)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_survives(name: str) -> None:
    found = parsed(port(name, 1), name=name)
    assert (found.name, found.input[0].name) == (name, name)
