"""All tails of some bundles are open at once, on one copy of the weights, within a limit."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitc.bundle import Bundle
from splitc.errors import BundleError, ModelError, RuntimeFailure
from splitc.inference import difference
from splitc.limits import LimitOptions
from splitc.packing import pack
from splitc.server.tails import Tail, open_tails
from tests import bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.compiled("chain", tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def opened(
    *folders: Path, cache: Path, limit: int | None = None, max_batch: int = 4
) -> tuple[tuple[Tail, ...], list[str]]:
    said: list[str] = []
    tails = open_tails(
        folders,
        threads=1,
        max_batch=max_batch,
        memory_limit_bytes=limit,
        cache_folder=cache,
        say=said.append,
    )
    return tails, said


def check(bundle: Bundle, tail: Tail, index: int = 0) -> None:
    """See that *tail* answers as its file in the bundle does."""
    got = tail.run(bundles.request(bundle, tail.cut, index), [item.name for item in tail.outputs])
    want = bundles.wanted(bundle, tail.cut, index)
    assert got.keys() == want.keys()
    assert max(difference(got[key], want[key]).max_rel for key in want) <= 1e-4


def test_every_tail_is_there_and_right(bundle: Bundle, cache: Path) -> None:
    tails, _ = opened(bundle.folder, cache=cache)
    assert [tail.name for tail in tails] == [f"chain.{cut.id}" for cut in bundles.tails(bundle)]
    assert {tail.bundle for tail in tails} == {bundle.digest}
    for tail in tails:
        for index in range(3):
            check(bundle, tail, index)


def test_inputs_and_outputs_are_those_of_the_manifest(bundle: Bundle, cache: Path) -> None:
    """Also where a form is served that takes several requests as one."""
    tails, _ = opened(bundle.folder, cache=cache)
    for tail in tails:
        described = [(item.name, item.dtype, item.shape, item.bytes) for item in tail.cut.boundary]
        assert [(item.name, item.dtype, item.shape, item.bytes) for item in tail.inputs] == described
        assert tail.outputs == bundle.manifest.model.outputs


def test_symbolic_sizes_keep_their_names(tmp_path: Path) -> None:
    bundle = bundles.compiled("dynamic_batch", tmp_path)
    tails, _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert {item.shape[0] for tail in tails for item in (*tail.inputs, *tail.outputs)} == {"batch"}
    whole = tails[-1].inputs[0]
    assert (whole.shape, whole.bytes) == (("batch", 3, 32, 32), 2 * 3 * 32 * 32 * 4)


def test_strings_are_called_so(tmp_path: Path) -> None:
    bundle = bundles.compiled("string_output", tmp_path)
    (tail,), _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert {item.name: item.dtype for item in tail.outputs} == {"y": "float32", "label": "string"}
    check(bundle, tail)


def test_what_the_protocol_cannot_carry_is_not_offered(tmp_path: Path) -> None:
    bundle = bundles.compiled("sequence_output", tmp_path)
    with pytest.raises(RuntimeFailure, match=r"sequence_output.c1 is not offered: 'y' is no tensor"):
        opened(bundle.folder, cache=tmp_path / "cache")


def test_only_wanted_outputs_are_made(tmp_path: Path) -> None:
    bundle = bundles.compiled("two_inputs_two_outputs", tmp_path)
    (tail, *_), _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert tail.run(bundles.request(bundle, tail.cut), ["u"]).keys() == {"u"}


def test_wrong_inputs_are_a_model_error(bundle: Bundle, cache: Path) -> None:
    (tail, *_), _ = opened(bundle.folder, cache=cache)
    with pytest.raises(ModelError):
        tail.run({tail.inputs[0].name: np.zeros((1, 2), np.float32)}, ["y"])


def test_a_tail_can_be_run_by_many_threads(bundle: Bundle, cache: Path) -> None:
    tails, _ = opened(bundle.folder, cache=cache)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(check, bundle, tail, index) for index in range(6) for tail in tails * 3]
        for job in jobs:
            job.result(timeout=120)


def test_a_pack_for_the_cloud_serves_as_the_bundle_does(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    opened(bundle.folder, cache=cache)
    pack(bundle.folder, "cloud", tmp_path / "cloud")
    tails, said = opened(tmp_path / "cloud", cache=cache)
    assert not said  # what was prepared for the bundle serves the pack too
    for tail in tails:
        check(bundle, tail)


def test_a_pack_for_the_device_is_refused(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    pack(bundle.folder, "device", tmp_path / "device")
    with pytest.raises(BundleError, match="only what the device needs; pack it again with --side cloud"):
        opened(tmp_path / "device", cache=cache)


def test_several_bundles_are_served_at_once(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    other = bundles.compiled("diamond", tmp_path)
    tails, _ = opened(bundle.folder, other.folder, cache=cache)
    assert {tail.name.partition(".")[0] for tail in tails} == {"chain", "diamond"}
    assert {tail.bundle for tail in tails} == {bundle.digest, other.digest}


def test_two_of_one_name_are_refused(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    pack(bundle.folder, "cloud", tmp_path / "cloud")
    with pytest.raises(
        BundleError, match=f"its model is called 'chain', as the one in {re.escape(str(bundle.folder))}"
    ):
        opened(bundle.folder, tmp_path / "cloud", cache=cache)


def test_a_damaged_bundle_is_refused(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    pack(bundle.folder, "cloud", tmp_path / "cloud")
    (tmp_path / "cloud" / "weights.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"weights\.bin"):
        opened(tmp_path / "cloud", cache=cache)


# --- memory ---


def mappings(file: Path) -> list[dict[str, int]]:
    """What the kernel knows of each mapping of *file* in this process, in kB."""
    found: list[dict[str, int]] = []
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            found.append({"ours": line.endswith(str(file))})
        elif values[-1] == "kB":
            found[-1][key.removesuffix(":")] = int(values[0])
    return [item for item in found if item["ours"]]


def test_weights_are_pages_of_one_file(bundle: Bundle, tmp_path: Path) -> None:
    tails, _ = opened(bundle.folder, cache=tmp_path, max_batch=1)
    (weights,) = tmp_path.glob("tails/*/weights.bin")
    found = mappings(weights)
    assert len(found) >= len(tails)
    assert all(item["Anonymous"] == 0 for item in found)  # no page was copied to be changed
    assert sum(item["Pss"] for item in found) * 1024 <= weights.stat().st_size + 4096 * len(found)


def test_what_does_not_fit_is_left_out_and_said(bundle: Bundle, cache: Path, monkeypatch: Any) -> None:
    """Memory as the kernel tells it moves by pages of others: here each tail takes 10 MB, the second 50."""
    taken = iter([100, 110, 160, 120, 130])
    monkeypatch.setattr("splitc.server.tails._memory_bytes", lambda: next(taken) * 10**6)
    tails, said = opened(bundle.folder, cache=cache, limit=30_000_000)
    names = [f"chain.{cut.id}" for cut in bundles.tails(bundle)]
    assert [tail.name for tail in tails] == [names[0], *names[2:]]
    assert f"{names[1]} is not offered: with it the open tails take 60 MB, and 30 MB are allowed" in said


def test_a_limit_that_nothing_fits_into_is_one_error(bundle: Bundle, cache: Path, monkeypatch: Any) -> None:
    taken = iter([100, 120, 150, 112, 130])
    monkeypatch.setattr("splitc.server.tails._memory_bytes", lambda: next(taken) * 10**6)
    with pytest.raises(
        RuntimeFailure,
        match="no tail fits into 10 MB: the smallest takes 12 MB; allow more with --memory-limit",
    ):
        opened(bundle.folder, cache=cache, limit=10_000_000)


def test_all_fit_into_plenty(bundle: Bundle, cache: Path) -> None:
    opened(bundle.folder, cache=cache)
    tails, said = opened(bundle.folder, cache=cache, limit=10**9)
    assert (len(tails), said) == (len(bundles.tails(bundle)), [])


def test_a_bundle_without_tails_is_said_to_have_none(tmp_path: Path) -> None:
    bundle = bundles.compiled("diamond", tmp_path, limits=LimitOptions(pin_head=("y",)))
    assert not bundles.tails(bundle)
    with pytest.raises(RuntimeFailure, match="nothing to serve: all cuts run on the device alone"):
        opened(bundle.folder, cache=tmp_path / "cache")
