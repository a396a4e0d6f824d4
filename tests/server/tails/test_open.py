"""What the cloud does of the cuts of some bundles is open at once, on one copy of the weights, within a limit."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from splitc.bundle.decide import latency_s, middle_of
from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.pack import pack
from splitc.bundle.pairing import pairing
from splitc.common.errors import BundleError, ModelError, RuntimeFailure
from splitc.common.values import Feeds, difference
from splitc.compile.limits import LimitOptions
from splitc.runtime.session import Session
from splitc.server.tails.open import open_parts
from splitc.server.tails.part import File, ServedPart
from splitc.server.tails.sessions import Sessions
from tests import bundles, models
from tests.running import compile_here, save_tiny
from tests.runtime.test_cloud_first import compiled as compiled_cloud_first
from tests.server.serving import infer_once, running
from tests.server.weighing import Weights


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.compiled("chain", tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def opened(
    *folders: Path,
    cache: Path,
    limit: int | None = None,
    max_batch: int = 4,
    known: tuple[ServedPart, ...] = (),
) -> tuple[tuple[ServedPart, ...], list[str]]:
    said: list[str] = []
    parts = open_parts(
        folders,
        threads=1,
        max_batch=max_batch,
        memory_limit_bytes=limit,
        cache_folder=cache,
        say=said.append,
        known=known,
    )
    return parts, said


def run(part: ServedPart, feeds: Feeds, *outputs: str) -> Mapping[str, Any]:
    assert isinstance(part.runs, File)
    return part.runs.run(feeds, outputs)


def check(bundle: Bundle, part: ServedPart, index: int = 0) -> None:
    """See that *part* answers as its file in the bundle does."""
    got = run(part, bundles.request(bundle, part.cut, index), *(item.name for item in part.outputs))
    want = bundles.wanted(bundle, part.cut, index)
    assert got.keys() == want.keys()
    assert max(difference(got[key], want[key]).max_rel for key in want) <= 1e-4


def test_every_tail_is_there_and_right(bundle: Bundle, cache: Path) -> None:
    parts, _ = opened(bundle.folder, cache=cache)
    assert [part.name for part in parts] == [f"chain.{cut.id}" for cut in bundles.tails(bundle)]
    assert {part.bundle for part in parts} == {bundle.digest}
    for part in parts:
        for index in range(3):
            check(bundle, part, index)


def test_inputs_and_outputs_are_those_of_the_manifest(bundle: Bundle, cache: Path) -> None:
    """Also where a form is served that takes several requests as one."""
    parts, _ = opened(bundle.folder, cache=cache)
    for part in parts:
        described = [(item.name, item.dtype, item.shape, item.bytes) for item in part.cut.boundary]
        assert [(item.name, item.dtype, item.shape, item.bytes) for item in part.inputs] == described
        assert part.outputs == bundle.manifest.model.outputs


def test_symbolic_sizes_keep_their_names(tmp_path: Path) -> None:
    bundle = bundles.compiled("dynamic_batch", tmp_path)
    parts, _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert {item.shape[0] for part in parts for item in (*part.inputs, *part.outputs)} == {"batch"}
    whole = parts[-1].inputs[0]
    assert (whole.shape, whole.bytes) == (("batch", 3, 32, 32), 2 * 3 * 32 * 32 * 4)


def test_strings_are_called_so(tmp_path: Path) -> None:
    bundle = bundles.compiled("string_output", tmp_path)
    (part,), _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert {item.name: item.dtype for item in part.outputs} == {"y": "float32", "label": "string"}
    check(bundle, part)
    with running(part) as server:
        answer = infer_once(server, part.name, bundles.request(bundle, part.cut))
    assert answer.outputs().keys() == {"y", "label"}


def test_sizes_of_outputs_that_a_model_declares_wrongly_are_not_believed(tmp_path: Path) -> None:
    """Some exporters declare the sizes of their example; ONNX Runtime only warns of that."""
    path = save_tiny("dynamic_batch", tmp_path)
    proto = onnx.load_model(path)
    (output,) = proto.graph.output
    output.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save_model(proto, path)
    bundle = read_bundle(compile_here(path, tmp_path / "bundle", dims={"batch": 2}).folder)
    (*_, part), _ = opened(bundle.folder, cache=tmp_path / "cache")
    with running(part) as server:
        answer = infer_once(server, part.name, bundles.request(bundle, part.cut))
    assert answer.outputs()[output.name].shape[0] == 2


def test_what_the_protocol_cannot_carry_is_not_offered(tmp_path: Path) -> None:
    """No cut that splitc writes has such a tail, so one is put in the place of another."""
    bundle = bundles.compiled("diamond", tmp_path)
    for cut in bundles.tails(bundle):
        assert cut.tail is not None
        onnx.save_model(models.sequence_output(), bundle.path(cut.tail.file or ""))
    files = tuple(file_entry(bundle.folder, entry.path) for entry in bundle.manifest.files)
    write_manifest(bundle.folder, replace(bundle.manifest, files=files))
    with pytest.raises(RuntimeFailure, match=r"diamond.c\d is not offered: 'y' is not a tensor"):
        opened(bundle.folder, cache=tmp_path / "cache")


def test_only_wanted_outputs_are_made(tmp_path: Path) -> None:
    bundle = bundles.compiled("two_inputs_two_outputs", tmp_path)
    (part, *_), _ = opened(bundle.folder, cache=tmp_path / "cache")
    assert run(part, bundles.request(bundle, part.cut), "u").keys() == {"u"}


def test_wrong_inputs_are_a_model_error(bundle: Bundle, cache: Path) -> None:
    (part, *_), _ = opened(bundle.folder, cache=cache)
    with pytest.raises(ModelError):
        run(part, {part.inputs[0].name: np.zeros((1, 2), np.float32)}, "y")


def test_a_tail_can_be_run_by_many_threads(bundle: Bundle, cache: Path) -> None:
    parts, _ = opened(bundle.folder, cache=cache)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(check, bundle, part, index) for index in range(6) for part in parts * 3]
        for job in jobs:
            job.result(timeout=120)


def test_a_pack_for_the_cloud_serves_as_the_bundle_does(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    opened(bundle.folder, cache=cache)
    pack(bundle.folder, "cloud", tmp_path / "cloud")
    parts, said = opened(tmp_path / "cloud", cache=cache)
    assert not said  # what was prepared for the bundle serves the pack too
    for part in parts:
        check(bundle, part)


def test_a_pack_for_the_device_is_refused(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    pack(bundle.folder, "device", tmp_path / "device")
    with pytest.raises(BundleError, match="only what the device needs; pack it again with --side cloud"):
        opened(tmp_path / "device", cache=cache)


def test_several_bundles_are_served_at_once(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    other = bundles.compiled("diamond", tmp_path)
    parts, _ = opened(bundle.folder, other.folder, cache=cache)
    assert {part.name.partition(".")[0] for part in parts} == {"chain", "diamond"}
    assert {part.bundle for part in parts} == {bundle.digest, other.digest}


def test_equal_parts_of_several_bundles_are_opened_once(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    pack(bundle.folder, "cloud", tmp_path / "cloud")
    parts, _ = opened(bundle.folder, tmp_path / "cloud", cache=cache)
    half = len(parts) // 2
    assert [part.name for part in parts[:half]] == [part.name for part in parts[half:]]
    assert all(one.runs is two.runs for one, two in zip(parts[:half], parts[half:], strict=True))


def test_other_bundles_of_the_same_model_are_served_beside_it(
    bundle: Bundle, cache: Path, tmp_path: Path
) -> None:
    """Built for another device, it has other cuts, which may have the same names."""
    other = bundles.compiled("chain", tmp_path, max_cuts=3)
    parts, _ = opened(bundle.folder, other.folder, cache=cache)
    assert {part.pairing for part in parts} == {
        pairing(found.manifest, cut) for found in (bundle, other) for cut in bundles.tails(found)
    }
    assert len({part.pairing for part in parts}) == len({id(part.runs) for part in parts})


def test_what_is_open_already_stays(bundle: Bundle, cache: Path) -> None:
    first, _ = opened(bundle.folder, cache=cache)
    again, said = opened(bundle.folder, cache=cache, known=first)
    assert [part.runs for part in again] == [part.runs for part in first]
    assert not said


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
    parts, _ = opened(bundle.folder, cache=tmp_path, max_batch=1)
    (weights,) = tmp_path.glob("files/*/weights.bin")
    found = mappings(weights)
    assert len(found) >= len(parts)
    assert all(item["Anonymous"] == 0 for item in found)  # no page was copied to be changed
    assert sum(item["Pss"] for item in found) * 1024 <= weights.stat().st_size + 4096 * len(found)


def rank(bundle: Bundle) -> Callable[[ServedPart], float]:
    return lambda part: latency_s(part.cut, middle_of(bundle.manifest.box))


def ranked(bundle: Bundle, cache: Path) -> list[str]:
    """The names of its parts, those that will be asked for most first."""
    return [part.name for part in sorted(opened(bundle.folder, cache=cache)[0], key=rank(bundle))]


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Memory as the kernel tells it moves by pages of others: here the test says what files take."""
    found = Weights()
    monkeypatch.setattr(
        "splitc.server.tails.open.Sessions", lambda limit, say: Sessions(limit, say, found.taken)
    )
    monkeypatch.setattr("splitc.server.tails.open.ort.session", found.open)
    return found


def test_what_does_not_fit_is_opened_when_it_is_asked_for(
    bundle: Bundle, cache: Path, weights: Weights
) -> None:
    first, second, *others = ranked(bundle, cache)
    weights.by_file = {
        file(bundle, first): 10,
        file(bundle, second): 25,
        **{file(bundle, name): 1 for name in others},
    }
    parts, said = opened(bundle.folder, cache=cache, limit=30)
    assert [part.name for part in parts] == [part.name for part in opened(bundle.folder, cache=cache)[0]]
    assert said == [
        f"{second} is opened when it is asked for: with it 35 B would be taken, and 30 B are allowed"
    ]
    by_name = {part.name: part for part in parts}
    for name in (second, first, *others, second, second):
        check(bundle, by_name[name])
        assert weights.taken() <= 30


def test_what_is_opened_later_is_what_was_there_at_the_start(
    bundle: Bundle, weights: Weights, tmp_path: Path
) -> None:
    first, second, *_ = ranked(bundle, tmp_path)
    weights.by_file = {file(bundle, first): 10, file(bundle, second): 25}
    parts, _ = opened(bundle.folder, cache=tmp_path, limit=30)
    part = next(part for part in parts if part.name == second)
    (path,) = tmp_path.rglob(file(bundle, second))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"was rebuilt or changed .*; restart the server"):
        check(bundle, part)


def test_what_is_larger_than_the_limit_is_not_offered(bundle: Bundle, cache: Path, weights: Weights) -> None:
    first, *others = ranked(bundle, cache)
    weights.by_file = {file(bundle, first): 50}
    parts, said = opened(bundle.folder, cache=cache, limit=30)
    assert {part.name for part in parts} == set(others)
    assert said == [f"{first} is not offered: {first} takes 50 B, and 30 B are allowed"]


def test_a_limit_that_nothing_fits_into_is_one_error(bundle: Bundle, cache: Path, weights: Weights) -> None:
    weights.by_file = {file(bundle, name): 12 + number for number, name in enumerate(ranked(bundle, cache))}
    with pytest.raises(
        RuntimeFailure,
        match="no part fits into 10 B: each has a file that takes 12 B or more; allow more with --memory-limit",
    ):
        opened(bundle.folder, cache=cache, limit=10)


def file(bundle: Bundle, name: str) -> str:
    """The file of the part of that name."""
    cut = next(cut for cut in bundle.manifest.cuts if name.endswith(f".{cut.id}"))
    assert cut.cloud is not None
    return cut.cloud.file or ""


def test_files_that_are_asked_for_most_come_first(tmp_path: Path) -> None:
    """Under a limit, those of the cut that is best on a middling link, for every bundle in turn."""
    found = [bundles.compiled(name, tmp_path / name) for name in ("chain", "diamond")]
    folders = [bundle.folder for bundle in found]
    order: list[str] = []

    class Watched(Sessions):
        def add(self, name: str, *arguments: Any) -> Any:
            order.append(name)
            return super().add(name, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitc.server.tails.open.Sessions", Watched)
        parts, _ = opened(*folders, cache=tmp_path / "cache")
    for bundle in found:
        mine = [part for part in parts if part.bundle == bundle.digest]
        wanted = [part.name for part in sorted(mine, key=rank(bundle))]
        assert [name for name in order if name in wanted] == wanted
    assert {name.partition(".")[0] for name in order[:2]} == {"chain", "diamond"}


def test_all_fit_into_plenty(bundle: Bundle, cache: Path) -> None:
    opened(bundle.folder, cache=cache)
    parts, said = opened(bundle.folder, cache=cache, limit=10**9)
    assert (len(parts), said) == (len(bundles.tails(bundle)), [])


def test_a_bundle_without_tails_is_said_to_have_none(tmp_path: Path) -> None:
    bundle = bundles.compiled("diamond", tmp_path, limits=LimitOptions(pin_device=("y",)))
    assert not bundles.tails(bundle)
    with pytest.raises(RuntimeFailure, match="nothing to serve: all cuts run on the device alone"):
        opened(bundle.folder, cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["tiny_cnn", "raw_input_reused", "early_output", "two_inputs_two_outputs"])
def test_of_a_cloud_first_cut_the_head_is_served(name: str, tmp_path: Path) -> None:
    bundle, feeds, want = compiled_cloud_first(name, tmp_path)
    parts, _ = opened(bundle.folder, cache=tmp_path / "cache")
    cuts = [cut for cut in bundle.manifest.cuts if cut.is_cloud_first]
    assert cuts
    by_id = {part.cut.id: part for part in parts}
    with running(*parts) as server:
        for cut in cuts:
            assert [item.name for item in by_id[cut.id].inputs] == [item.name for item in cut.sent]
            assert {item.name: item.bytes for item in by_id[cut.id].outputs} == {
                item.name: item.bytes for item in cut.downloads or ()
            }
            with Session(bundle.folder, server=server.server.url, cut=cut.id) as session:
                outcome = session.request(feeds)
            assert (outcome.finished, outcome.fallback) == ("device", None)
            assert max(difference(outcome.outputs[key], want[key]).max_rel for key in want) <= 1e-4
