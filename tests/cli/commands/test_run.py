"""`splitc run` on the device alone; tests/system runs it with a server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitc.cli.main import group
from splitc.common import ort
from splitc.common.values import concrete_shape, difference
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    group.main([str(item) for item in arguments], standalone_mode=False)
    return capsys.readouterr().out


def image(tiny: Tiny, folder: Path) -> tuple[Path, Any]:
    (given,) = tiny.bundle.manifest.model.inputs
    shape = concrete_shape(given.shape, tiny.bundle.manifest.model.dims)
    value = np.random.default_rng(7).standard_normal(shape, np.float32)
    np.save(folder / "image.npy", value)
    return folder / "image.npy", {given.name: value}


def test_outputs_are_those_of_the_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, feeds = image(tiny, tmp_path)
    (name,) = feeds
    text = run(
        capsys,
        "run",
        tiny.bundle.folder,
        "--input",
        f"{name}={path}",
        "--repeat",
        "3",
        "-o",
        tmp_path / "o.npz",
    )
    assert "all-head" in text
    assert f"wrote {tmp_path / 'o.npz'}" in text
    want = ort.run(ort.session(tiny.model), feeds)
    with np.load(tmp_path / "o.npz") as found:
        assert set(found) == set(want)
        assert all(difference(found[key], want[key]).max_rel < 1e-4 for key in want)


def test_outputs_are_written_to_the_name_that_was_given_and_never_over_an_input(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, feeds = image(tiny, tmp_path)
    (name,) = feeds
    run(capsys, "run", tiny.bundle.folder, "-o", tmp_path / "o.bin")
    assert {item.name for item in tmp_path.iterdir()} == {path.name, "o.bin"}
    with np.load(tmp_path / "o.bin") as found:
        assert set(found) == {item.name for item in tiny.bundle.manifest.model.outputs}
    before = path.read_bytes()
    with pytest.raises(SystemExit) as ended:
        group.main(
            ["run", str(tiny.bundle.folder), "--input", f"{name}={path}", "-o", str(path)], prog_name="splitc"
        )
    assert ended.value.code == 2
    assert "is also an input" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_json_lists_every_request(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(
        "run", run(capsys, "run", tiny.bundle.folder, "--repeat", "2", "--network", "lte", "--json")
    )
    assert [item["finished"] for item in told["requests"]] == ["device", "device"]
    assert all(item["predicted_s"] > 0 and item["latency_s"] > 0 for item in told["requests"])
    assert told["conditions"]["uplink_bps"] == pytest.approx(6.3e6, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input", "image"], 2, ["'image' is not NAME=FILE"]),
        (["--input", "picture=small.npy"], 1, ["picture"]),
        (["--input", "image=none.npy"], 1, ["none.npy"]),
        (["--input", "image=text.npy"], 1, ["text.npy", "save one array with numpy.save"]),
        (["--input", "image=several.npz"], 1, ["several.npz", "contains several arrays"]),
        (["--input", "image=small.npy"], 1, ["image"]),
        (["--cut", "c99"], 1, ["there is no cut 'c99'; choose one of c0"]),
        (["--cut", "c1"], 2, ["cut c1 needs the cloud: add --server, or leave out --cut"]),
        (["--server", "ftp://x"], 1, ["ftp"]),
        (["--token-file", "empty"], 1, ["the file is empty, but should contain a token"]),
        (["--network", "ltee"], 1, ["unknown network 'ltee', did you mean 'lte'?"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_each_mistake_gives_one_sentence(
    arguments: list[str],
    code: int,
    words: list[str],
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("dear diary", encoding="utf-8")
    Path("empty").write_text("\n", encoding="utf-8")
    np.savez("several.npz", a=np.ones(1), b=np.ones(1))
    np.save("small.npy", np.ones((1, 1), np.float32))
    assert_sentence(call(capsys, "run", tiny.bundle.folder, *arguments), code, *words)
