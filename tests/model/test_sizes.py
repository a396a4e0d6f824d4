"""A size is inferred, measured by a run, or absent: never guessed."""

from pathlib import Path

import onnx
import pytest

from splitc.common.errors import ModelError
from splitc.common.values import Input, random_feeds
from splitc.model.model import load
from splitc.model.sizes import Size, sizes
from tests import models
from tests.model.test_simplify import hub
from tests.splitting import save


@pytest.mark.parametrize("name", sorted(set(models.ALL) - {"string_input"}))
def test_every_size_is_what_a_run_shows(name: str, tmp_path: Path) -> None:
    built = models.ALL[name]()
    model = load(save(built, tmp_path))
    dims = {dim: 2 for item in model.inputs() for dim in item.shape if isinstance(dim, str)}
    feeds = models.random_feeds(built, dims)
    inferred = sizes(model, dims, None)
    measured = sizes(model, dims, feeds)
    forced = {node.outputs[0].name for node in model.ir.graph} - {"", *inferred}
    assert forced <= set(measured)
    for output in built.graph.output:
        assert output.name in measured
    for name_, size in measured.items():
        if size.dtype is not None and size.sized is not None:
            assert len(size.shape) == len(size.sized)
            assert all(
                dim in (fixed, "?") or dim in dims for dim, fixed in zip(size.shape, size.sized, strict=True)
            ), name_


def test_inferred_and_measured_agree(tmp_path: Path) -> None:
    built = models.contrib_op()
    path = save(built, tmp_path)
    found = sizes(load(path), {}, models.random_feeds(built))
    assert found["a"] == Size("float32", (2, 16), (2, 16), 128, measured=False, kind="tensor(float)")
    assert found["b"] == Size("float32", ("?", "?"), (2, 16), 128, measured=True, kind="tensor(float)")


def test_a_model_in_a_download_cache_is_measured(tmp_path: Path) -> None:
    built = models.contrib_op()
    found = sizes(load(hub(built, tmp_path)), {}, models.random_feeds(built))
    assert found["b"] == Size("float32", ("?", "?"), (2, 16), 128, measured=True, kind="tensor(float)")


def test_symbols_stay_in_the_shape(tmp_path: Path) -> None:
    model = load(save(models.dynamic_batch(), tmp_path))
    found = sizes(model, {"batch": 3}, None)["a"]
    assert (found.shape, found.sized, found.nbytes) == (("batch", 8, 16, 16), (3, 8, 16, 16), 4 * 3 * 8 * 256)


@pytest.mark.parametrize(
    ("dtype", "nbytes"),
    [
        ("FLOAT16", 64),
        ("BFLOAT16", 64),
        ("INT8", 32),
        ("BOOL", 32),
        ("INT4", 16),
        ("UINT4", 16),
        ("DOUBLE", 256),
    ],
)
def test_bytes_per_element(dtype: str, nbytes: int, tmp_path: Path) -> None:
    cast = models.op("Cast", "x", "y", to=onnx.TensorProto.DataType.Value(dtype))
    port = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DataType.Value(dtype), [2, 16])
    built = models.model([cast], [models.X], [port])
    built.opset_import[0].version = 21
    assert sizes(load(save(built, tmp_path)), {}, None)["y"].nbytes == nbytes


def test_strings_and_sequences_have_bytes_but_cannot_cross(tmp_path: Path) -> None:
    for name, output in (("string_output", "label"), ("sequence_output", "y")):
        built = models.ALL[name]()
        found = sizes(load(save(built, tmp_path, f"{name}.onnx")), {}, models.random_feeds(built))[output]
        assert found.dtype is None
        assert found.nbytes > 0


def test_what_cannot_run_is_as_large_as_declared_or_unknown(tmp_path: Path) -> None:
    built = models.contrib_op()
    built.graph.node[-1].domain = "com.microsoft"  # no shape is known behind it
    built.graph.node[-1].op_type = "QuickGelu"
    found = sizes(load(save(built, tmp_path)), {}, None)
    assert found["y"].nbytes == 128
    assert "b" not in found
    assert "c" not in found


def test_a_copy_of_a_dequantizer_is_as_large_as_the_original(tmp_path: Path) -> None:
    built = models.qdq_residual()
    # An operator that ONNX does not know in front hides all shapes from inference.
    built.graph.node.insert(0, models.op("com.microsoft.QuickGelu", "x", "x_g"))
    built.graph.node[1].input[0] = "x_g"
    built.opset_import.add(domain="com.microsoft", version=1)
    found = sizes(load(save(built, tmp_path)), {}, models.random_feeds(built))
    assert found["a_d/copy1"] == found["a_d"]


def test_inputs_beyond_all_memory_are_refused_in_a_sentence() -> None:
    huge = Input("x", "float32", (2**62, 2))
    with pytest.raises(
        ModelError, match=r"input 'x' of shape .* is not possible or too large for this machine"
    ):
        random_feeds([huge], {}, 0)
