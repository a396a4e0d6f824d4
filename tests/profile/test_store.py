"""What is kept is found again under readable names, and never half or damaged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from splitc.model.graph import Work
from splitc.profile.document import MachineFacts, Measurement, NodeTimes, Profile, UnitRun
from splitc.profile.store import Store
from splitc.profile.targets.calibration import CalibrationRun

SHA = "a" * 64
WORK = (Work("Conv", "conv", 1000, 10, 20, 5),)


def measurement(threads: int = 1, whole_s: float = 1.0, **dims: int) -> Measurement:
    return Measurement(threads, dims, 0, (whole_s,), (), (), ())


def profile(*measurements: Measurement, sha256: str = SHA, runtime: str = "onnxruntime") -> Profile:
    units = (UnitRun("u", WORK, tuple(0.5 * item.whole_s[0] for item in measurements)),)
    unknown = MachineFacts(None, None, None, None, None)
    return Profile(1, sha256, "measured", runtime, "1.0", "CPU", unknown, measurements, units)


def calibration_run(model: str = "m", seconds: float = 1.0) -> CalibrationRun:
    return CalibrationRun(model, SHA, 4, (WORK,), (seconds,), seconds)


def test_each_measurement_is_kept_on_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = store.keep_profile(
        "pixel7", "net", profile(measurement(1), measurement(4, seq=128), measurement(4))
    )
    assert [path.parent for path in paths] == [tmp_path / "kept" / "pixel7"] * 3
    assert [path.name.rpartition("-")[0] for path in paths] == [
        "net-1t-whole",
        "net-4t-seq=128-whole",
        "net-4t-whole",
    ]
    found, notes = store.profiles("pixel7", {SHA})
    assert notes == []
    assert {item.path for item in found} == set(paths)
    by_path = {item.path: item.profile for item in found}
    assert by_path[paths[0]].measurements == (measurement(1),)
    assert by_path[paths[0]].units == (UnitRun("u", WORK, (0.5,)),)
    assert by_path[paths[1]].units is None  # its units are said at other sizes


def test_a_newer_one_takes_the_place_of_an_older(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (first,) = store.keep_profile("pixel7", "net", profile(measurement(whole_s=1.0)))
    (second,) = store.keep_profile("pixel7", "net", profile(measurement(whole_s=2.0)))
    assert first == second
    found, _ = store.profiles("pixel7", {SHA})
    assert [item.measurement.whole_s for item in found] == [(2.0,)]


@pytest.mark.parametrize(
    "other",
    [
        profile(measurement(2)),
        profile(measurement(seq=1)),
        profile(measurement(), sha256="b" * 64),
        profile(measurement(), runtime="onnxruntime-web"),
        profile(replace(measurement(), nodes=(NodeTimes("n", "Conv", (), (), (1.0,)),))),
    ],
    ids=["threads", "sizes", "model", "runtime", "nodes"],
)
def test_what_differs_lies_beside_it(other: Profile, tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = {*store.keep_profile("t", "net", profile(measurement())), *store.keep_profile("t", "net", other)}
    assert len(paths) == 2


def test_targets_and_models_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_profile("pixel7", "net", profile(measurement()))
    assert store.profiles("pixel7", {"b" * 64}) == ([], [])
    assert store.profiles("pixel8", {SHA}) == ([], [])


@pytest.mark.parametrize("name", ["../../up", "a/b", ".hidden", "", "..", "x" * 300, "é ü", "nul\0"])
def test_no_name_leaves_the_folder(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    (path,) = store.keep_profile(name, name, profile(measurement()))
    assert path.resolve().is_relative_to((tmp_path / "cache" / "kept").resolve())
    assert path.parent != tmp_path / "cache" / "kept"
    assert [item.path for item in store.profiles(name, {SHA})[0]] == [path]
    assert store.profiles(name + "x", {SHA}) == ([], [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"splitc_profile": 2}', "[" * 100_000, "\xff"])
def test_damaged_files_are_left_out_with_a_note(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    good, bad = store.keep_profile("pixel7", "net", profile(measurement(1), measurement(2)))
    bad.write_bytes(text.encode("latin-1"))
    found, (note,) = store.profiles("pixel7", {SHA})
    assert [item.path for item in found] == [good]
    assert f"kept/pixel7/{bad.name}" in note
    assert str(tmp_path) not in note
    assert "\n" not in note
    store.keep_runs("pixel7", [calibration_run()]).write_bytes(text.encode("latin-1"))  # type: ignore[union-attr]
    runs, (note,) = store.runs("pixel7")
    assert runs == ()
    assert "kept/pixel7/calibration.json" in note


def test_a_file_without_half_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (path,) = store.keep_profile("pixel7", "net", profile(measurement()))
    (path.parent / ".partial-x").write_text("{", encoding="utf-8")
    assert len(store.profiles("pixel7", {SHA})[0]) == 1
    assert json.loads(path.read_bytes())["splitc_profile"] == 1


def test_what_cannot_be_written_leaves_all_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (path,) = store.keep_profile("pixel7", "net", profile(measurement()))
    before = path.read_bytes()
    broken = profile(measurement(whole_s=2.0), measurement(2))
    with pytest.raises(Exception, match="finite"):
        store.keep_profile("pixel7", "net", replace(broken, units=(UnitRun("u", WORK, (float("inf"), 1.0)),)))
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_runs_of_a_calibration(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.runs("pixel7") == ((), [])
    assert not store.forget_runs("pixel7")
    store.keep_profile("pixel7", "net", profile(measurement()))
    assert store.keep_runs("pixel7", [calibration_run()]) == tmp_path / "kept" / "pixel7" / "calibration.json"
    assert store.runs("pixel7") == ((calibration_run(),), [])
    assert store.runs("pixel8") == ((), [])
    assert len(store.profiles("pixel7", {SHA})[0]) == 1
    assert store.forget_runs("pixel7")
    assert store.runs("pixel7") == ((), [])
    assert len(store.profiles("pixel7", {SHA})[0]) == 1


def test_nothing_is_kept_nowhere() -> None:
    store = Store(None)
    assert store.keep_profile("pixel7", "net", profile(measurement())) == ()
    assert store.keep_runs("pixel7", [calibration_run()]) is None
    assert store.profiles("pixel7", {SHA}) == ([], [])
    assert store.runs("pixel7") == ((), [])
    assert not store.forget_runs("pixel7")
