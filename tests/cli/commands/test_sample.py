"""`splitc sample` writes models and pipelines, and reports what it wrote."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from splitc.cli.main import group
from tests.cli.commands.test_inspect import run
from tests.cli.printed import printed

EXTRA = ("torch", "diffusers", "transformers", "onnxscript")


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        group.main([str(argument) for argument in arguments], prog_name="splitc")
    assert ended.value.code == code
    return capsys.readouterr().err.splitlines()[-1]


def test_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "sample", "tiny_cnn") == "wrote tiny_cnn.onnx (17.6 kB)\n"
    facts = printed("sample", run(capsys, "sample", "tiny_cnn", "-o", "sub/two.onnx", "--json"))
    assert facts == {"path": "sub/two.onnx", "bytes": (tmp_path / "tiny_cnn.onnx").stat().st_size}
    assert (tmp_path / "tiny_cnn.onnx").read_bytes() == (tmp_path / "sub" / "two.onnx").read_bytes()
    assert "-o sub is a folder, but tiny_cnn is a single file" in fails(
        capsys, 2, "sample", "tiny_cnn", "-o", "sub"
    )


def test_a_file_that_exists_is_replaced_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "sample", "tiny_cnn")
    run(capsys, "sample", "tiny_cnn")  # what is there already needs no force
    sample = (tmp_path / "tiny_cnn.onnx").read_bytes()
    (tmp_path / "mine.onnx").write_text("years of work")
    (tmp_path / "link.onnx").symlink_to("mine.onnx")
    for name in ("mine.onnx", "link.onnx"):
        assert f"{name}: exists; choose another name with -o, or replace it with --force" in fails(
            capsys, 1, "sample", "tiny_cnn", "-o", name
        )
        assert (tmp_path / "mine.onnx").read_text() == "years of work"
    run(capsys, "sample", "tiny_cnn", "-o", "link.onnx", "--force")
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "mine.onnx").read_bytes() == sample
    assert "--force is only for single files" in fails(capsys, 2, "sample", "tiny_diffusion", "--force")


def test_a_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(capsys, "sample", "tiny_diffusion")
    assert said.startswith("wrote tiny_diffusion/pipeline.toml (2.7")
    assert said.endswith(" MB with its models)\n")
    options = ("--steps", "20", "--scheduler", "euler", "--json")
    facts = printed("sample", run(capsys, "sample", "tiny_diffusion", "-o", "sub/td", *options))
    assert facts["path"] == "sub/td/pipeline.toml"
    assert facts["bytes"] == sum(path.stat().st_size for path in (tmp_path / "sub" / "td").iterdir())
    description = (tmp_path / "sub" / "td" / "pipeline.toml").read_text()
    assert "times = 20\n" in description
    assert "prepare.onnx" in description
    assert "exists and is not an empty folder" in fails(capsys, 1, "sample", "tiny_diffusion")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny_cnn", "--steps", "3"], "--steps is only for tiny_diffusion and stable_diffusion"),
        (["tiny_cnn", "--scheduler", "ddim"], "--scheduler is only for tiny_diffusion and stable_diffusion"),
        (["tiny_diffusion", "--width", "0.5"], "--width is only for stable_diffusion"),
        (["tiny_diffusion", "--size", "512"], "--size is only for stable_diffusion"),
        (["tiny_diffusion", "--steps", "1000"], "1000 is not in the range 1<=x<=999"),
        (["tiny_diffusion", "--scheduler", "pndm"], "'pndm' is not one of 'ddim', 'euler'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_fit(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in fails(capsys, 2, "sample", *arguments)


@pytest.mark.skipif(all(map(find_spec, EXTRA)), reason="the extra 'diffusion' is installed")
def test_without_the_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, 1, "sample", "stable_diffusion", "-o", tmp_path / "sd")
    assert said.startswith("error: `splitc sample stable_diffusion` needs ")
    assert said.endswith("; install it with `pip install 'splitc[diffusion]'`")
    assert not list(tmp_path.iterdir())
