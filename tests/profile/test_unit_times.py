"""The best times that there are: a profile that is named, one that was kept, measured here, predicted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError, TargetError
from splitc.common.ort import RUNTIME_VERSION, usable_cores
from splitc.model.analysis import Analysis
from splitc.profile.document import MachineFacts, Measurement, NodeTimes, Profile, UnitTimes, write_profile
from splitc.profile.store import Store
from splitc.profile.targets.calibration import CalibrationRun
from splitc.profile.targets.description import Target, load_target
from splitc.profile.unit_times import caveats, unit_times
from tests.profile.test_ort_trace import look
from tests.running import save_tiny

PIXEL = load_target("pixel7")
LOCAL = load_target("local")
UNKNOWN = MachineFacts(None, None, None, None, None)


@pytest.fixture
def found(tmp_path: Path) -> Analysis:
    return look(save_tiny("diamond", tmp_path))


def measured(
    found: Analysis, *, threads: int = 4, whole_s: Sequence[float] = (1.0,), nodes: bool = True, **dims: int
) -> Measurement:
    each = tuple(
        NodeTimes(item.name or "", item.op_type, (), (item.outputs[0].name or "",), (0.1,))
        for item in found.sources.nodes
    )
    return Measurement(threads, dims, 0, tuple(whole_s), (), (), each if nodes else ())


def profile(
    found: Analysis, *measurements: Measurement, runtime: str = "onnxruntime", version: str = "1.0"
) -> Profile:
    provider = "CPUExecutionProvider" if runtime == "onnxruntime" else "wasm"
    sha256 = found.original.sha256
    return Profile(1, sha256, "measured", runtime, version, provider, UNKNOWN, measurements)


def times_of(
    found: Analysis, cache: Path | None, target: Target = PIXEL, recorded: Path | None = None
) -> UnitTimes:
    return unit_times(target, recorded, "--device-profile", found, Cache(cache))


def keep(cache: Path, found: Analysis, *profiles: Profile, target: str = "pixel7") -> None:
    for item in profiles:
        Store(cache).keep_profile(target, found.original.name, item)


def test_a_named_profile_comes_first(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path / "cache", found, profile(found, measured(found, whole_s=[2.0])))
    write_profile(profile(found, measured(found, whole_s=[3.0])), tmp_path / "p.json")
    times = times_of(found, tmp_path / "cache", recorded=tmp_path / "p.json")
    assert sum(times.seconds) == pytest.approx(3.0)
    assert times.source == "measured"


def test_a_kept_profile_comes_before_a_prediction(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path, found, profile(found, measured(found, whole_s=[2.0, 2.0, 4.0])))
    times = times_of(found, tmp_path)
    assert sum(times.seconds) == pytest.approx(2.0)
    assert (times.source, times.here) == ("measured", False)
    assert times.interval is not None
    assert times.notes == ()
    assert times_of(found, None).source == "predicted"


def test_the_best_of_several(found: Analysis, tmp_path: Path) -> None:
    keep(
        tmp_path,
        found,
        profile(found, measured(found, whole_s=[2.0]), runtime="onnxruntime-web"),
        profile(found, measured(found, whole_s=[3.0], threads=1)),
    )
    times = times_of(found, tmp_path)
    assert sum(times.seconds) == pytest.approx(2.0)
    assert times.runtime == "onnxruntime-web"
    assert times.notes == ("times on pixel7 were measured with onnxruntime-web, not with onnxruntime",)
    keep(tmp_path, found, profile(found, measured(found, whole_s=[4.0])))
    times = times_of(found, tmp_path)
    assert sum(times.seconds) == pytest.approx(4.0)
    assert times.runtime == "onnxruntime"


def test_other_threads_are_told_and_not_taken(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path, found, profile(found, measured(found, threads=1), measured(found, threads=2)))
    times = times_of(found, tmp_path)
    assert times.source == "predicted"
    assert times.notes == (
        "kept profiles of diamond on pixel7 were not used: they have 1 thread, 2 threads, but this build needs 4 threads",
    )
    assert times_of(found, tmp_path, replace(PIXEL, threads=2)).source == "measured"


def test_other_sizes_are_told_and_not_taken(tmp_path: Path) -> None:
    found = look(save_tiny("dynamic_batch", tmp_path))
    keep(tmp_path, found, profile(found, measured(found, batch=2)))
    times = times_of(found, tmp_path)
    assert times.source == "predicted"
    (note,) = times.notes
    assert "they have 4 threads batch=2, but this build needs 4 threads batch=1" in note
    keep(tmp_path, found, profile(found, measured(found, batch=1)))
    assert times_of(found, tmp_path).source == "measured"


def test_a_damaged_one_is_told(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path, found, profile(found, measured(found)))
    (path,) = (tmp_path / "kept" / "pixel7").iterdir()
    path.write_text("{", encoding="utf-8")
    times = times_of(found, tmp_path)
    assert times.source == "predicted"
    assert f"kept/pixel7/{path.name}" in times.notes[0]


def test_this_machine_keeps_to_its_runtime(found: Analysis, tmp_path: Path) -> None:
    """A kept profile of another version would be of other kernels: it is measured instead."""
    cores = usable_cores()
    old = profile(found, measured(found, threads=cores, whole_s=[1e3]), version="0.1")
    keep(tmp_path, found, old, target="local")
    assert sum(times_of(found, tmp_path, LOCAL).seconds) < 100
    new = profile(found, measured(found, threads=cores, whole_s=[1e3]), version=RUNTIME_VERSION)
    keep(tmp_path, found, new, target="local")
    times = times_of(found, tmp_path, LOCAL)
    assert sum(times.seconds) == pytest.approx(1e3)
    assert times.here


def test_measured_here_once(found: Analysis, tmp_path: Path) -> None:
    times = times_of(found, tmp_path, LOCAL)
    assert (times.source, times.here) == ("measured", True)
    assert times_of(found, tmp_path, LOCAL) == times


def test_several_measurements_in_one_file(found: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    both = [measured(found, threads=1, whole_s=[5.0]), measured(found, threads=4, whole_s=[2.0])]
    write_profile(profile(found, *both), path)
    assert times_of(found, None, recorded=path).threads == 4
    with pytest.raises(
        ProfileError, match=r"was recorded with 1 and 4 threads, but target 'pixel7' uses 3; record it with"
    ):
        times_of(found, None, replace(PIXEL, threads=3), path)
    write_profile(profile(found, both[0]), path)
    assert times_of(found, None, recorded=path).threads == 1  # the only one


def test_measurements_at_several_sizes_in_one_file(tmp_path: Path) -> None:
    found = look(save_tiny("dynamic_batch", tmp_path))
    path = tmp_path / "p.json"
    write_profile(profile(found, measured(found, batch=3), measured(found, whole_s=[2.0], batch=1)), path)
    assert sum(times_of(found, None, recorded=path).seconds) == pytest.approx(2.0)
    write_profile(profile(found, measured(found, batch=3)), path)
    with pytest.raises(
        ProfileError, match=r"was recorded with batch=3, .* batch=1; give --dim batch=3 or record"
    ):
        times_of(found, None, recorded=path)


def test_of_another_model(found: Analysis, tmp_path: Path) -> None:
    write_profile(replace(profile(found, measured(found)), model="0" * 64), tmp_path / "p.json")
    with pytest.raises(
        ProfileError,
        match=r"is a profile of another model .*; record one of this model with `splitc profile`",
    ):
        times_of(found, None, recorded=tmp_path / "p.json")


def test_the_whole_is_divided_as_predicted(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path, found, profile(found, measured(found, whole_s=[2.0, 3.0, 5.0], nodes=False)))
    times, predicted = times_of(found, tmp_path), times_of(found, None)
    assert sum(times.seconds) == pytest.approx(3.0)
    shares = [value / sum(predicted.seconds) for value in predicted.seconds]
    assert [value / 3.0 for value in times.seconds] == pytest.approx(shares)
    # Its parts are estimates, less uncertain than without the run.
    assert times.interval is not None
    assert predicted.interval is not None
    assert predicted.interval[0] < times.interval[0] < 1 < times.interval[1] < predicted.interval[1]
    assert "only the time of the whole model on pixel7 is known" in times.notes[0]
    bare = replace(PIXEL, descriptor=None)
    with pytest.raises(
        TargetError, match="only the time of the whole model on pixel7 is known, and it cannot be divided"
    ):
        times_of(found, tmp_path, bare)


def test_a_whole_model_number_counts_once(found: Analysis, tmp_path: Path) -> None:
    """Also where the target is calibrated with the very same run."""
    whole = profile(found, measured(found, whole_s=[3.0], nodes=False))
    keep(tmp_path, found, whole)
    alone = times_of(found, tmp_path).interval
    work = tuple(unit.work for unit in found.partition.graph.units)
    run = CalibrationRun("again", whole.model, whole.measurements[0].threads, work, None, 3.0)
    Store(tmp_path).keep_runs("pixel7", [run])
    assert times_of(found, tmp_path).interval == alone
    Store(tmp_path).keep_runs("pixel7", [replace(run, sha256="1" * 64)])
    narrower = times_of(found, tmp_path).interval
    assert alone is not None
    assert narrower is not None
    assert alone[0] < narrower[0]
    assert narrower[1] < alone[1]


def test_caveats_say_each_thing_once(found: Analysis, tmp_path: Path) -> None:
    keep(tmp_path, found, profile(found, measured(found), runtime="onnxruntime-web"))
    times = times_of(found, tmp_path)
    assert caveats((PIXEL, times), (PIXEL, times)) == times.notes
    predicted = times_of(found, None)
    assert PIXEL.descriptor is not None
    assert caveats((PIXEL, predicted)) == (f"times on pixel7 are predicted: {PIXEL.descriptor.caveat}",)


def test_what_times_are_made_from_is_told_apart(found: Analysis, tmp_path: Path) -> None:
    """The digest changes with whatever changes the times, and with nothing else."""
    digests = [times_of(found, None).sha256, times_of(found, None).sha256]
    for whole_s in (2.0, 3.0):
        keep(tmp_path, found, profile(found, measured(found, whole_s=[whole_s], nodes=False)))
        digests.append(times_of(found, tmp_path).sha256)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
