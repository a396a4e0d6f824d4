"""`splitc targets` says how a build would get a target's times."""

import re
from pathlib import Path

import pytest

from splitc.model.graph import Work
from splitc.profile.availability import least_interval, times_here
from splitc.profile.store import Store
from splitc.profile.targets.calibration import CalibrationRun
from splitc.profile.targets.description import coefficients_paths, load_target

pytestmark = pytest.mark.skipif(not coefficients_paths(), reason="unknown coefficients shipped yet")

RUN = CalibrationRun(
    model="net",
    sha256="0" * 64,
    threads=4,
    work=((Work("Conv", "pointwise", macs=10**8, read_bytes=10**6, write_bytes=10**6, weight_bytes=10**5),),),
    seconds=None,
    whole_s=0.01,
)


def target_without(key: str, folder: Path) -> Path:
    """A shipped phone without a part of its description."""
    text = load_text("pixel7").replace('"pixel7"', '"bare"')
    path = folder / "bare.toml"
    path.write_text(text.partition(key)[0], encoding="utf-8")
    return path


def load_text(name: str) -> str:
    return (Path(__file__).parents[2] / "targets" / f"{name}.toml").read_text(encoding="utf-8")


def test_this_machine_is_measured(tmp_path: Path) -> None:
    assert times_here(load_target("local"), Store(tmp_path)) == "measured here"


def test_a_described_machine_is_predicted(tmp_path: Path) -> None:
    target = load_target("pixel7")
    low, high = least_interval(target)
    assert 0.1 < low < 1 < high < 10
    assert re.fullmatch(r"predicted, 0\.\d+x to [\d.]+x or wider", times_here(target, Store(tmp_path)))
    assert times_here(target, Store(None)) == times_here(target, Store(tmp_path))


def test_a_machine_without_descriptor_needs_a_profile(tmp_path: Path) -> None:
    target = load_target(target_without("[descriptor]", tmp_path))
    assert times_here(target, Store(tmp_path)) == "needs a recorded profile"


def test_an_unknown_core_is_less_certain(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(load_text("pixel7").replace("Cortex-X1", "Cortex-X99"), encoding="utf-8")
    known, odd = least_interval(load_target("pixel7")), least_interval(load_target(path))
    assert odd[0] < known[0] < known[1] < odd[1]


def test_unknown_coefficients_are_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(load_text("pixel7").replace("onnxruntime-arm64", "onnxruntime-arm46"), encoding="utf-8")
    assert times_here(load_target(path), Store(tmp_path)).startswith(
        "cannot be predicted: unknown coefficients"
    )


def test_a_calibration_and_kept_profiles_are_told(tmp_path: Path) -> None:
    store, target = Store(tmp_path), load_target("pixel7")
    store.keep_runs("pixel7", [RUN])
    assert times_here(target, store) == "predicted, calibrated with 1 run"
    assert "calibrated" not in times_here(load_target("pixel6"), store)
    (tmp_path / "kept" / "pixel7" / "net-4t-0123abcd.json").write_text("{}", encoding="utf-8")
    assert times_here(target, store) == "from 1 kept profile, else predicted, calibrated with 1 run"
