"""`splitc pack` writes what one side needs as a folder, a .zip, or a model repository for Triton."""

from pathlib import Path

import pytest

from splitc.bundle.folder import read_bundle
from splitc.cli.main import group
from splitc.runtime.unpack import unpacked
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    group.main([str(item) for item in arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_an_app_gets_heads_only(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "pack", tiny.bundle.folder, "--side", "device", "-o", tmp_path / "app.zip")
    assert text.startswith(f"wrote {tmp_path / 'app.zip'} (")
    facts = run(
        capsys, "pack", tiny.bundle.folder, "--side", "device", "-o", tmp_path / "again.zip", "--json"
    )
    size = (tmp_path / "app.zip").stat().st_size
    assert printed("pack", facts) == {"path": str(tmp_path / "again.zip"), "bytes": size}
    packed = unpacked(tmp_path / "app.zip", tmp_path / "cache")
    names = {entry.path for entry in packed.manifest.files}
    assert not any(name.startswith("tail") or name.endswith(".html") for name in names)
    assert packed.digest == tiny.bundle.digest


def test_the_cloud_gets_a_folder(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "pack", tiny.bundle.folder, "--side", "cloud", "-o", tmp_path / "cloud")
    assert read_bundle(tmp_path / "cloud").manifest.side == "cloud"


def test_triton_gets_a_repository(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        capsys, "pack", tiny.bundle.folder, "--side", "cloud", "--format", "triton", "-o", tmp_path / "models"
    )
    found = {path.name for path in (tmp_path / "models").iterdir()}
    assert found == {f"tiny_cnn.{cut.id}" for cut in tiny.bundle.manifest.cuts if cut.tail is not None}


def test_wrong_usage(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, output = tiny.bundle.folder, tmp_path / "x"
    assert_sentence(
        call(capsys, "pack", bundle, "--side", "device", "--format", "triton", "-o", output),
        2,
        "Triton serves tails",
    )
    assert_sentence(call(capsys, "pack", bundle, "-o", output), 2, "missing option '--side'")
    assert call(capsys, "pack", tmp_path, "--side", "cloud", "-o", output).code == 1
    assert not output.exists()
