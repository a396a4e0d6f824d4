"""What the cloud runs is prepared once per machine, does what it did, and shares its weights."""

import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitc.bundle.folder import WEIGHTS, Bundle, read_bundle
from splitc.bundle.manifest import CutEntry
from splitc.bundle.stacking import stack
from splitc.bundle.weights import load, spans
from splitc.common import ort
from splitc.common.errors import BundleError
from splitc.common.values import difference
from splitc.server.tails.files import cloud_files, in_cloud
from splitc.server.tails.prepare import Prepared, Settings, batch_times, prepare
from tests import bundles, models
from tests.running import tree
from tests.server.pipelines import LAST, STEP, TEXT, write_pipeline

SETTINGS = Settings(threads=1, max_batch=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.compiled("chain", tmp_path_factory.mktemp("chain"))


def run(bundle: Bundle, cache: Path, settings: Settings = SETTINGS) -> tuple[Path, Prepared, list[str]]:
    said: list[str] = []
    folder, prepared = prepare(bundle, in_cloud(bundle), cache, settings, said.append)
    return folder, prepared, said


def file_of(cut: CutEntry) -> str | None:
    return cut.tail.file if cut.tail is not None else None


def content(cache: Path) -> dict[str, bytes]:
    """All files of the cache but its locks, which are empty."""
    return {name: data for name, data in tree(cache).items() if not name.endswith(".lock")}


def test_tails_are_prepared_once(bundle: Bundle, tmp_path: Path) -> None:
    first, prepared, said = run(bundle, tmp_path)
    assert said == ["Preparing what the cloud runs of chain for this machine, once"]
    before = content(tmp_path)
    assert run(bundle, tmp_path) == (first, prepared, [])
    assert content(tmp_path) == before
    files = {item.path for item in prepared.files}
    assert files == {WEIGHTS, *(item.file for item in prepared.models)}
    assert {Path(name).name for name in before} == files | {"prepared.json"}
    assert [item.file for item in prepared.models] == [file_of(cut) for cut in bundles.tails(bundle)]


@pytest.mark.parametrize(
    "settings", [Settings(2, 4), Settings(1, 2), Settings(1, 1)], ids=["threads", "batch", "no batch"]
)
def test_other_settings_are_prepared_apart(settings: Settings, bundle: Bundle, tmp_path: Path) -> None:
    first, *_ = run(bundle, tmp_path)
    second, prepared, said = run(bundle, tmp_path, settings)
    assert second != first
    assert said
    assert all(tail.max_batch <= settings.max_batch for tail in prepared.models)


def test_what_was_built_again_is_not_prepared_again(bundle: Bundle, tmp_path: Path) -> None:
    first, *_ = run(bundle, tmp_path)
    again = replace(bundle, manifest=replace(bundle.manifest, notes=("another time",)))
    folder, _, said = run(again, tmp_path)
    assert (folder, said) == (first, [])


@pytest.mark.parametrize("file", [WEIGHTS, "tail-c1.onnx", "prepared.json"])
@pytest.mark.parametrize("damage", ["gone", "changed", "empty"])
def test_what_is_damaged_is_prepared_again(file: str, damage: str, bundle: Bundle, tmp_path: Path) -> None:
    folder, _, _ = run(bundle, tmp_path)
    before = content(tmp_path)
    path = folder / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            b"" if damage == "empty" else bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
        )
    again, _, said = run(bundle, tmp_path)
    assert said
    assert again == folder
    after = content(tmp_path)
    assert after.keys() == before.keys()
    assert (folder / WEIGHTS).read_bytes() == before[str((folder / WEIGHTS).relative_to(tmp_path))]


def test_what_a_killed_process_left_is_removed(bundle: Bundle, tmp_path: Path) -> None:
    folder, _, _ = run(bundle, tmp_path)
    folder.rename(folder.with_suffix(".partial"))
    folder.with_suffix(".scratch").mkdir()
    (folder.with_suffix(".scratch") / "left").touch()
    _, _, said = run(bundle, tmp_path)
    assert said
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_a_failure_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    gone = Bundle(shutil.copytree(bundle.folder, tmp_path / "gone"), bundle.manifest)
    gone.path(WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError):
        run(gone, tmp_path / "cache")
    assert not content(tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache" / "files").iterdir()} == {".lock"}


def test_a_bundle_that_is_rebuilt_meanwhile_is_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    read = read_bundle(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    name = min(item.file for item in cloud_files(read, in_cloud(read)))
    proto = load(read.path(name))
    proto.doc_string = "rebuilt"
    read.path(name).write_bytes(proto.SerializeToString())
    with pytest.raises(BundleError, match=f"rebuilt or changed while it was being read \\('{name}' differs"):
        run(read, tmp_path / "cache")
    assert not content(tmp_path / "cache")


def test_two_processes_prepare_once(bundle: Bundle, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        waiting = [pool.apply_async(run, (bundle, tmp_path)) for _ in range(2)]
        found = [item.get(timeout=120) for item in waiting]
    assert found[0][:2] == found[1][:2]
    assert sorted(len(said) for _, _, said in found) == [0, 1]


TORTURE = [
    *models.TORTURE,
    "loop_captures",
    "qdq_residual",
    "fp16_chain",
    "dynamic_batch",
    "recurrent",
    "string_output",
]


@pytest.mark.parametrize("name", TORTURE)
def test_a_prepared_tail_does_what_the_tail_does(name: str, tmp_path: Path) -> None:
    bundle = bundles.compiled(name, tmp_path)
    folder, prepared, _ = run(bundle, tmp_path / "cache")
    for cut, tail in zip(bundles.tails(bundle), prepared.models, strict=True):
        assert tail.optimised
        session = ort.session(folder / tail.file, level=ort.UNCHANGED, threads=1)
        got = ort.run(session, bundles.request(bundle, cut))
        want = bundles.wanted(bundle, cut)
        assert got.keys() == want.keys()
        assert max(difference(got[key], want[key]).max_rel for key in want) <= 2e-2


def test_requests_to_a_model_of_batch_one_can_run_as_one(bundle: Bundle, tmp_path: Path) -> None:
    folder, prepared, _ = run(bundle, tmp_path)
    ready = [
        (cut, tail)
        for cut, tail in zip(bundles.tails(bundle), prepared.models, strict=True)
        if tail.max_batch > 1
    ]
    assert all(
        len(tail.run_s) > 1 for tail in prepared.models
    )  # each was found to be safe, whether it pays or not
    for cut, tail in ready:
        session = ort.session(folder / tail.file, level=ort.UNCHANGED)
        made = ort.run(session, stack([bundles.request(bundle, cut, index) for index in (0, 3)]))
        for index, row in zip((0, 3), (0, 1), strict=True):
            want = bundles.wanted(bundle, cut, index)
            assert np.allclose(made["y"][row : row + 1], want["y"], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compared_is_served_as_it_is(tmp_path: Path) -> None:
    """Another result each time: nobody can say whether a saved form is right."""
    bundle = bundles.compiled("random_normal", tmp_path)
    folder, prepared, _ = run(bundle, tmp_path / "cache")
    (tail,) = prepared.models
    assert (tail.optimised, tail.max_batch, [size for size, _ in tail.run_s]) == (False, 1, [1])
    ort.session(folder / tail.file)


def weights_of(folder: Path, prepared: Prepared) -> Iterator[set[object]]:
    for tail in prepared.models:
        yield set(spans(load(folder / tail.file)))


def test_tails_refer_to_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    """The tail of a later cut is the end of that of an earlier one, and so are its weights."""
    folder, prepared, _ = run(bundle, tmp_path, Settings(1, 1))
    *later, whole = weights_of(folder, prepared)
    assert whole
    assert all(used <= whole for used in later)


# --- files of pipelines ---


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


def test_a_file_of_several_cuts_is_prepared_once(pipeline: Bundle, tmp_path: Path) -> None:
    folder, prepared, _ = run(pipeline, tmp_path)
    assert [item.file for item in prepared.models] == [TEXT, STEP, LAST]
    assert all(item.optimised for item in prepared.models)
    feeds = {name: np.ones((1, 16), np.float32) for name in ("latents", "context")}
    feeds["t"] = np.full((1, 1), 0.5, np.float32)
    got = ort.run(ort.session(folder / STEP, level=ort.UNCHANGED), feeds)
    want = ort.run(ort.session(pipeline.path(STEP)), feeds)
    assert difference(got, want).max_rel < 1e-5


def test_what_has_requests_meet_runs_alone(pipeline: Bundle, tmp_path: Path) -> None:
    """Its first axis is a batch by name, but what one request gives changes what another one gets."""
    _, prepared, _ = run(pipeline, tmp_path)
    last = next(item for item in prepared.models if item.file == LAST)
    assert (last.max_batch, [size for size, _ in last.run_s]) == (1, [1])


def test_what_batches_take_can_be_asked_for(pipeline: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    times = batch_times(pipeline, tmp_path, SETTINGS, said.append)
    assert len(said) == 1
    assert batch_times(pipeline, tmp_path, SETTINGS, said.append) == times  # from the cache
    assert len(said) == 1
    assert times.keys() == {TEXT, STEP, LAST}
    _, prepared, _ = run(pipeline, tmp_path)
    for item in prepared.models:
        assert [size for size, _ in times[item.file]] == [1, 2, 4][: len(times[item.file])]
        assert times[item.file][-1][0] == item.max_batch
        assert dict(times[item.file]).items() <= dict(item.run_s).items()
