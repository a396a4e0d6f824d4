"""A name of its own for a model whose file is called like all others."""

from pathlib import Path

import pytest

from splitc.bundle.folder import read_bundle
from splitc.bundle.pairing import pairing
from tests.conftest import Tiny
from tests.running import splitc


def test_a_name_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    done = splitc(
        "compile", tiny.model, "--name", "cats", "--device", tiny.device, "--cloud", tiny.device, cwd=tmp_path
    )
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "artifacts").iterdir()
    assert folder.name.startswith("cats-")
    manifest = read_bundle(folder).manifest
    assert manifest.model.name == "cats"
    others = {pairing(tiny.bundle.manifest, cut) for cut in tiny.bundle.manifest.cuts}
    assert {pairing(manifest, cut) for cut in manifest.cuts if cut.kind != "split"} <= others


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 101])
def test_what_cannot_be_a_name(name: str, tiny: Tiny, tmp_path: Path) -> None:
    done = splitc("compile", tiny.model, "--name", name, "--device", tiny.device, cwd=tmp_path)
    assert done.code == 2
    assert "cannot be a name" in done.sentence
