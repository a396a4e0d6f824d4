"""DeviceParts are opened once, when needed, and not twice at the same time."""

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CutEntry, TensorEntry, part_files
from splitc.common import ort
from splitc.common.errors import BundleError, InputError, ModelError, ProtocolError
from splitc.common.values import difference
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.tensor_checks import check_outputs, checked_inputs, symbol_sizes
from tests.conftest import Tiny
from tests.runtime import servers

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)


def of_kind(bundle: Bundle, kind: str) -> CutEntry:
    return next(cut for cut in bundle.manifest.cuts if cut.kind == kind)


def eventually(is_so: Callable[[], bool]) -> bool:
    """Wait for it, but not for ever."""
    until = time.monotonic() + servers.LONGEST_S
    while not (so := is_so()) and time.monotonic() < until:
        time.sleep(0.005)
    return so


def test_a_head_runs_and_says_how_long(tiny: Tiny) -> None:
    heads = DeviceParts(tiny.bundle)
    cut = of_kind(tiny.bundle, "all-head")
    assert not heads.is_ready(cut)
    values, took_s = heads.run(cut, {"image": IMAGE})
    assert heads.is_ready(cut)
    want = ort.run(ort.session(tiny.model), {"image": IMAGE})
    assert values.keys() == want.keys()
    assert difference(values["logits"], want["logits"]).max_rel < 1e-4
    assert 0 < took_s < servers.LONGEST_S


def test_all_tail_has_nothing_to_open(tiny: Tiny) -> None:
    heads = DeviceParts(tiny.bundle)
    cut = of_kind(tiny.bundle, "all-tail")
    heads.preload(cut)
    assert heads.is_ready(cut)


def test_a_head_is_opened_ahead(tiny: Tiny) -> None:
    heads = DeviceParts(tiny.bundle)
    cuts = [cut for cut in tiny.bundle.manifest.cuts if cut.head is not None]
    heads.preload(*cuts)
    assert eventually(lambda: all(heads.is_ready(cut) for cut in cuts))
    before = threading.active_count()
    heads.preload(*cuts)
    assert threading.active_count() == before


def test_a_head_that_cannot_be_opened_is_reported_by_run(tiny: Tiny, tmp_path: Path) -> None:
    for entry in tiny.bundle.manifest.files:
        (tmp_path / entry.path).write_bytes(b"no model")
    broken = Bundle(tmp_path, tiny.bundle.manifest)
    heads, cut = DeviceParts(broken), of_kind(broken, "all-head")
    heads.preload(cut)
    with pytest.raises(ModelError, match="cannot load"):
        heads.run(cut, {"image": IMAGE})
    assert not heads.is_ready(cut)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return shutil.copytree(tiny.bundle.folder, tmp_path / "copy")


def rename_over(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("write", [rename_over, Path.write_bytes])
@pytest.mark.parametrize("name", ["weights.bin", "head-c1.onnx"])
def test_a_part_of_a_bundle_that_was_built_later_is_not_opened(
    folder: Path, name: str, write: Callable[[Path, bytes], object]
) -> None:
    bundle = read_bundle(folder)
    parts, cut = DeviceParts(bundle), next(cut for cut in bundle.manifest.cuts if cut.id == "c1")
    data = (folder / name).read_bytes()
    write(folder / name, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"was rebuilt or changed after it was opened.*open a new Session"):
        parts.run(cut, {"image": IMAGE})
    rename_over(folder / name, data)  # the same contents in another file are fine
    assert parts.run(cut, {"image": IMAGE})


def test_an_open_part_outlives_its_folder(folder: Path) -> None:
    bundle = read_bundle(folder)
    parts, cut = DeviceParts(bundle), of_kind(bundle, "all-head")
    before, _ = parts.run(cut, {"image": IMAGE})
    rename_over(folder / "weights.bin", b"other")
    shutil.rmtree(folder)
    after, _ = parts.run(cut, {"image": IMAGE})
    assert np.array_equal(before["logits"], after["logits"])


def test_a_part_whose_weights_are_cut_off_does_not_end_the_process(folder: Path) -> None:
    bundle = read_bundle(folder)
    parts, cut = DeviceParts(bundle), of_kind(bundle, "all-head")
    parts.run(cut, {"image": IMAGE})
    os.truncate(folder / "weights.bin", 0)
    with pytest.raises(BundleError, match=r"'weights\.bin' differs"):
        parts.run(cut, {"image": IMAGE})


def test_files_stay_open_no_longer_than_what_uses_them(folder: Path) -> None:
    bundle = read_bundle(folder)
    before = set(Path("/proc/self/fd").iterdir())
    parts = DeviceParts(bundle)
    for cut in bundle.manifest.cuts:
        if cut.device is not None:
            parts.run(cut, {"image": IMAGE})
    del parts
    gc.collect()
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_threads_share_a_head(tiny: Tiny) -> None:
    heads, cut = DeviceParts(tiny.bundle, threads=2), of_kind(tiny.bundle, "split")
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(heads.run(cut, {"image": IMAGE}))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(servers.LONGEST_S)
    assert len(results) == 8


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # since Python 3.12, where there are threads
def test_a_fork_opens_heads_of_its_own(tiny: Tiny) -> None:
    """Also while a thread of the parent holds a head's lock; with two threads, a session would hang in a child."""
    heads, cut = DeviceParts(tiny.bundle, threads=2), of_kind(tiny.bundle, "all-head")
    want, _ = heads.run(cut, {"image": IMAGE})
    lock = heads._slots[os.getpid(), part_files(cut.head)[0]].lock if cut.head else threading.Lock()
    with lock:
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                got, _ = heads.run(cut, {"image": IMAGE})
                status = 0 if np.array_equal(got["logits"], want["logits"]) else 2
            os._exit(status)
    assert servers.exit_status(child) == 0


# --- values ---

ENTRIES = (
    TensorEntry("x", "float32", ("batch", 3), None),
    TensorEntry("z", "int64", ("batch", "?"), None),
)
X, Z = np.zeros((2, 3), np.float32), np.zeros((2, 5), np.int64)


def test_inputs_that_fit_pass_in_native_byte_order() -> None:
    got = checked_inputs(ENTRIES, {"z": Z.astype(">i8"), "x": X})
    assert list(got) == ["x", "z"]
    assert got["x"] is X
    assert got["z"].dtype.isnative


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": X}, "'z' is missing; the model takes 'x', 'z'"),
        ({"x": X, "z": Z, "y": X}, "no input 'y'"),
        ({"x": [[0.0] * 3], "z": Z}, "'x' must be a numpy array of float32, found list"),
        ({"x": X.astype(np.float64), "z": Z}, "must be of float32, found float64"),
        ({"x": X[:, :2], "z": Z}, r"shape \[batch, 3\], found \[2, 2\]"),
        ({"x": X[0], "z": Z}, r"shape \[batch, 3\], found \[3\]"),
        ({"x": X, "z": Z[:1]}, "share the dimension 'batch', but have sizes 2 and 1"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked_inputs(ENTRIES, inputs)


def test_strings_and_sequences_are_left_to_the_runtime() -> None:
    entry = TensorEntry("s", "object", ("n",), None)
    assert checked_inputs([entry], {"s": ["a", "b"]}) == {"s": ["a", "b"]}


@pytest.mark.parametrize(
    "outputs", [{}, {"x": X}, {"x": X, "z": X}, {"x": X, "z": Z, "more": X}, {"x": X.T, "z": Z}]
)
def test_outputs_that_are_not_those_promised(outputs: dict[str, object]) -> None:
    check_outputs(ENTRIES, {"x": X, "z": Z}, {})
    with pytest.raises(ProtocolError, match="the server"):
        check_outputs(ENTRIES, outputs, {})


FREE = TensorEntry("w", "float32", ("made", "?"), None)


@pytest.mark.parametrize(
    ("sizes", "outputs", "says"),
    [
        (
            {"batch": 1},
            {"x": X, "w": X},
            r"'x' must have the shape \[batch, 3\], found \[2, 3\] with batch = 1",
        ),
        ({"batch": 2}, {"x": X[:0], "w": X}, r"found \[0, 3\] with batch = 2"),
        (
            {"made": 3},
            {"x": X, "w": X},
            r"'w' must have the shape \[made, \?\], found \[2, 3\] with made = 3",
        ),
    ],
)
def test_symbolic_sizes_of_outputs_are_those_of_the_request(
    sizes: dict[str, int], outputs: dict[str, object], says: str
) -> None:
    check_outputs([ENTRIES[0], FREE], {"x": X, "w": X}, {"batch": 2})
    with pytest.raises(ProtocolError, match=says):
        check_outputs([ENTRIES[0], FREE], outputs, sizes)


def test_a_symbolic_size_that_no_input_has_is_the_same_in_all_outputs() -> None:
    check_outputs(ENTRIES, {"x": X, "z": Z}, {})
    with pytest.raises(
        ProtocolError, match=r"'z' must have the shape \[batch, \?\], found \[1, 5\] with batch = 2"
    ):
        check_outputs(ENTRIES, {"x": X, "z": Z[:1]}, {})


def test_the_first_tensor_that_has_a_symbol_says_its_size() -> None:
    text = TensorEntry("s", "object", ("batch",), None)
    assert symbol_sizes([text, *ENTRIES], {"s": ["a", "b", "c"], "x": X, "z": Z}) == {"batch": 2}
