"""`splitc compile` as a process: what it prints for people, and the same facts as JSON."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from splitc.bundle.folder import file_entry, read_bundle, write_manifest
from splitc.common.formatting import format_seconds, format_seconds_range
from splitc.compile.verdict import judge
from splitc.profile.targets.description import load_network
from tests.cli.printed import printed
from tests.conftest import Tiny
from tests.running import save_tiny, splitc, tree

NETWORKS = ("wifi", "5g", "lte", "3g")


def test_names_every_cut_and_every_network(tiny: Tiny) -> None:
    manifest, out = tiny.bundle.manifest, tiny.done.out
    lines = [line for line in out.splitlines() if line.strip()]
    rows = {
        line.split()[0]: line for line in reversed(lines)
    }  # the first line that begins with the word: the row of the table
    assert {cut.kind for cut in manifest.cuts} == {"all-head", "split", "all-tail"}
    for cut in manifest.cuts:
        assert cut.kind in rows[cut.id]
        for tensor in cut.boundary:
            assert f"\n {cut.id} up: {tensor.name} {tensor.dtype}" in out
    for item in judge(manifest, [load_network(name) for name in NETWORKS]):
        assert f"{item.decision.cut.id} {item.decision.cut.kind}" in rows[item.network]
        assert f"• {item.sentence()}" in out
    assert "• on lte the whole model is best kept on the device" in out
    assert "wrote out/tiny" in out


def test_marks_what_is_predicted_and_only_that(tiny: Tiny) -> None:
    out = tiny.done.out
    assert "nine of ten real times are expected between 0.5x and 2x of it" in out
    assert "this machine does not exist" in out  # the caveat of the descriptor
    for cut in tiny.bundle.manifest.cuts:
        row = next(line for line in out.splitlines() if line.split()[:1] == [cut.id])
        if cut.head is not None:
            assert f"~{format_seconds(cut.head.latency_s)}" in row
        if cut.tail is not None:
            assert f" {format_seconds(cut.tail.latency_s)}" in row
            assert f"~{format_seconds(cut.tail.latency_s)}" not in row
    (lte,) = judge(tiny.bundle.manifest, [load_network("lte")])
    assert lte.range_s is not None
    assert f"~{format_seconds(lte.decision.latency_s)} " in out
    assert format_seconds_range(*lte.range_s) in out


@pytest.mark.parametrize("changed", ["model", "--samples", "--device-profile", "--device"])
def test_what_is_read_is_not_replaced(tiny: Tiny, tmp_path: Path, changed: str) -> None:
    """Not even where it is a file of an older bundle in the output folder."""
    folder = shutil.copytree(tiny.bundle.folder, tmp_path / "out")
    inside = {
        "model": "head-c0.onnx",
        "--samples": "report.html",
        "--device-profile": "report.html",
        "--device": "report.html",
    }
    given: dict[str, Path] = {"model": tiny.model, "--device": tiny.device} | {
        changed: folder / inside[changed]
    }
    if changed == "--device":
        given[changed] = (folder / "report.html").rename(folder / "device.toml")
        given[changed].write_bytes(tiny.device.read_bytes())
        edited = replace(
            tiny.bundle.manifest,
            files=(
                *(entry for entry in tiny.bundle.manifest.files if entry.path != "report.html"),
                file_entry(folder, "device.toml"),
            ),
        )
        write_manifest(folder, edited)
    before = tree(tmp_path)
    model = given.pop("model")
    done = splitc(
        "compile", model, *(word for pair in given.items() for word in pair), "-o", folder, cwd=tmp_path
    )
    assert done.code == 1
    assert "is read, but is in the folder that would be replaced" in done.err
    assert tree(tmp_path) == before


def test_progress_goes_to_stderr(tiny: Tiny) -> None:
    stages = tiny.done.err.splitlines()
    assert stages[0] == "Loading ..."
    assert stages[-1] == "Writing the report ..."
    assert not any("..." in line for line in tiny.done.out.splitlines())


def test_json_holds_the_same_facts(tiny: Tiny, home: Path) -> None:
    folder = tiny.model.parent
    done = splitc(
        *(
            "compile",
            tiny.model,
            "--device",
            tiny.device,
            "--cache-dir",
            home / "tiny",
            "-o",
            "out/json",
            "--json",
        ),
        cwd=folder,
    )
    assert done.code == 0, done.err
    facts = printed("compile", done.out)
    assert facts["bundle"] == "out/json"
    assert facts["manifest"] == json.loads((folder / "out" / "json" / "manifest.json").read_bytes())
    assert [item["network"] for item in facts["networks"]] == list(NETWORKS)
    for item in facts["networks"]:
        assert f"• {item['sentence']}" in tiny.done.out
        assert item["meets_sla"] is None
        assert item["cut"] in {cut["id"] for cut in facts["manifest"]["cuts"]}


def test_the_default_folder_and_a_target_latency(tmp_path: Path) -> None:
    save_tiny("tiny_cnn", tmp_path)
    done = splitc(
        *(
            "compile",
            "tiny_cnn.onnx",
            "--device",
            "pixel7",
            "--cloud",
            "pixel7",
            "--no-simplify",
            "--no-cache",
        ),
        *("--network", "lte", "--sla", "1us", "--json"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    facts = printed("compile", done.out)
    assert facts["bundle"] == "artifacts/tiny_cnn-pixel7"
    assert read_bundle(tmp_path / facts["bundle"]).manifest.targets.cloud.source == "predicted"
    (lte,) = facts["networks"]
    assert (lte["sla_s"], lte["meets_sla"]) == (pytest.approx(1e-6), False)
    assert lte["sentence"].startswith("on lte nothing meets the target; ")


def test_says_when_too_few_cuts_were_allowed(tiny: Tiny, home: Path, tmp_path: Path) -> None:
    common = ("compile", tiny.model, "--device", tiny.device, "--cache-dir", home / "tiny", "--regret", "0")
    few = splitc(*common, "--max-cuts", "2", "-o", "few", cwd=tmp_path)
    many = splitc(*common, "--max-cuts", "99", "-o", "many", cwd=tmp_path)
    assert (few.code, many.code) == (0, 0), few.err + many.err
    assert "more than the limit of 0 %; raise --max-cuts to ship more cuts" in few.out
    assert "raise --max-cuts" not in many.out
