"""A head that only converts inputs is named in the notes."""

from pathlib import Path

from splitc.compile.limits import LimitOptions
from tests.running import compile_here, save_tiny


def test_a_head_that_only_converts_inputs_is_named(tmp_path: Path) -> None:
    """An int8 input is a gain of its format: nothing of the model runs on the device."""
    limits = LimitOptions(pin_device=("x_d_q",), pin_cloud=("a",))
    compiled = compile_here(save_tiny("qdq_residual", tmp_path), tmp_path / "out", limits=limits)
    assert [cut.kind for cut in compiled.manifest.cuts] == ["split"]
    assert any("the head of cut c0 only converts inputs" in note for note in compiled.manifest.notes)


def test_a_head_that_computes_is_not_named(tmp_path: Path) -> None:
    limits = LimitOptions(pin_device=("a",), pin_cloud=("y",))
    compiled = compile_here(save_tiny("qdq_residual", tmp_path), tmp_path / "out", limits=limits)
    assert {cut.kind for cut in compiled.manifest.cuts} == {"split"}
    assert not any("only converts inputs" in note for note in compiled.manifest.notes)
