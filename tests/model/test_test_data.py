"""Samples as folders: of ONNX's protobuf files, or of numpy's arrays."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.common.errors import ModelError
from splitc.common.values import Input
from splitc.model.feeds import make_feeds
from splitc.model.test_data import read_test_data

INPUTS = (Input("image", "float32", (2, 3)), Input("a/size", "int64", (1,)))
IMAGE, SIZE = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7])


@pytest.mark.parametrize("first", ["input_0.npy", "image.npy", "input_0.pb"])
def test_arrays_by_place_or_by_name(first: str, tmp_path: Path) -> None:
    if first.endswith(".npy"):
        np.save(tmp_path / first, IMAGE)
    else:
        (tmp_path / first).write_bytes(onnx.numpy_helper.from_array(IMAGE).SerializeToString())
    np.save(tmp_path / "input_1.npy", SIZE)
    (found,) = make_feeds(INPUTS, {}, (tmp_path,))
    np.testing.assert_array_equal(found["image"], IMAGE)
    np.testing.assert_array_equal(found["a/size"], SIZE)


def test_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input_0\.pb: cannot be read .* such as image\.npy"):
        read_test_data(tmp_path, INPUTS)
    (tmp_path / "image.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ModelError, match=r"image\.npy: does not hold an array"):
        read_test_data(tmp_path, INPUTS)
    np.savez(tmp_path / "two.npz", a=IMAGE)
    (tmp_path / "two.npz").rename(tmp_path / "image.npy")
    with pytest.raises(ModelError, match="holds several arrays, not one"):
        read_test_data(tmp_path, INPUTS)
