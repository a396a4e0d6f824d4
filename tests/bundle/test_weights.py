"""Copies of ONNX files share one file of weights, and mean the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.bundle.folder import WEIGHTS, Bundle
from splitc.bundle.manifest import FileEntry
from splitc.bundle.weights import Span, collect, covers, load, load_part, spans
from splitc.common.errors import BundleError, ModelError
from tests import manifests, models
from tests.bundles import results


def save(built: onnx.ModelProto, folder: Path) -> Path:
    """Save *built* with all weights in a file beside it."""
    folder.mkdir()
    onnx.save_model(built, folder / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    return folder / "m.onnx"


def test_equal_weights_are_written_once_and_on_pages(tmp_path: Path) -> None:
    sources = {
        "a.onnx": save(models.diamond(), tmp_path / "a"),
        "b.onnx": save(models.early_output(), tmp_path / "b"),
    }
    target = tmp_path / "both"
    target.mkdir()
    collect(sources.items(), target)
    assert {path.name for path in target.iterdir()} == {"a.onnx", "b.onnx", WEIGHTS}
    used = {span for name in sources for span in spans(load(target / name))}
    assert {span.location for span in used} == {WEIGHTS}
    assert all(span.offset % 4096 == 0 for span in used)
    assert len(used) == len({"a", "b", "c", "y"})  # a, b and y have the same weights in both
    assert covers(used, (target / WEIGHTS).stat().st_size)
    feeds = models.random_feeds(models.diamond())
    for name, source in sources.items():
        got, want = results(target / name, feeds), results(source, feeds)
        assert all(np.array_equal(got[key], want[key]) for key in want)


def test_packed_forms_move_along(tmp_path: Path) -> None:
    """ONNX Runtime keeps packed weights beside the plain ones, in entries of its own."""
    source = save(models.diamond(), tmp_path / "a")
    proto = load(source)
    tensor = proto.graph.initializer[0]
    data = (source.parent / "w.data").read_bytes()
    tensor.external_data.add(key="prepacked_0", value="MatMul+1|0;100;0|1024;8;0")
    source.write_bytes(proto.SerializeToString())
    target = tmp_path / "b"
    target.mkdir()
    collect({"m.onnx": source}.items(), target)
    moved = load(target / "m.onnx")
    entry = next(item for item in moved.graph.initializer[0].external_data if item.key == "prepacked_0")
    kernel, *parts = entry.value.split("|")
    assert kernel == "MatMul+1"
    written = (target / WEIGHTS).read_bytes()
    for part, (start, length) in zip(parts, [(0, 100), (1024, 8)], strict=True):
        offset, count, zero = map(int, part.split(";"))
        assert (count, zero, offset % 4096) == (length, 0, 0)
        assert written[offset : offset + count] == data[start : start + length]


def test_without_weights_there_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(models.diamond(), path)
    (tmp_path / "b").mkdir()
    collect({"m.onnx": path}.items(), tmp_path / "b")
    assert [item.name for item in (tmp_path / "b").iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("location", ["../w.data", "/etc/passwd", "sub/w.data", "..", ""])
def test_weights_elsewhere_are_not_read(location: str, tmp_path: Path) -> None:
    path = save(models.diamond(), tmp_path / "a")
    proto = onnx.load_model(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="not beside it"):
        load(path)


def constant(**where: str) -> onnx.ModelProto:
    """A model whose only external tensor is the value of a Constant in a function."""
    value = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [0.0])
    value.ClearField("float_data")
    value.data_location = onnx.TensorProto.EXTERNAL
    for key, text in where.items():
        value.external_data.add(key=key, value=text)
    node = onnx.helper.make_node("Constant", [], ["c"], value=value)
    opsets = [onnx.helper.make_opsetid("", 17)]
    built = models.diamond()
    built.functions.append(onnx.helper.make_function("own", "f", [], ["c"], [node], opsets))
    return built


def test_tensors_of_functions_and_attributes_are_found() -> None:
    found = spans(constant(location="w", offset="0", length="4"))
    assert found == {Span("w", 0, 4)}


def listing(folder: Path, *sizes: tuple[str, int]) -> Bundle:
    made = manifests.manifest()
    files = tuple(FileEntry(path, size, manifests.SHA) for path, size in sizes)
    return Bundle(folder, replace(made, files=(*made.files, *files)))


def test_a_part_uses_only_files_that_are_listed(tmp_path: Path) -> None:
    path = save(models.diamond(), tmp_path / "a")
    size = (path.parent / "w.data").stat().st_size
    load_part(listing(path.parent, ("w.data", size)), path.name)
    with pytest.raises(BundleError, match=r"has weights in 'w\.data', which the manifest does not list"):
        load_part(listing(path.parent), path.name)
    with pytest.raises(BundleError, match=r"has weights beyond the end of 'w\.data'"):
        load_part(listing(path.parent, ("w.data", size - 1)), path.name)


@pytest.mark.parametrize(("key", "value"), [("offset", "-8"), ("length", "-1"), ("length", str(1 << 62))])
def test_bytes_that_the_file_does_not_have_are_refused(key: str, value: str, tmp_path: Path) -> None:
    path = save(models.diamond(), tmp_path / "a")
    proto = load(path)
    next(item for item in proto.graph.initializer[0].external_data if item.key == key).value = value
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(BundleError, match="beyond the end"):
        load_part(listing(path.parent, ("w.data", 1 << 20)), path.name)


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"hello, this is text"], ids=["bytes", "text"])
def test_what_is_no_onnx_file_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="no ONNX file"):
        load(tmp_path / "m.onnx")


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6), st.data())
def test_a_file_is_covered_unless_a_tensor_is_missing(sizes: list[int], data: st.DataObject) -> None:
    offset, used = 0, []
    for size in sizes:
        used.append(Span("w", offset, size))
        offset += -(-size // 4096) * 4096
    end = used[-1].offset + used[-1].bytes
    assert covers(set(used), end)
    left_out = data.draw(st.sampled_from(used))
    assert not covers(set(used) - {left_out}, end)
