"""Runs on a device move what they inform, and no more than they can tell."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.common.errors import ProfileError
from splitc.common.records import decode, encode
from splitc.model.graph import Work
from splitc.profile.targets.calibration import Calibration, CalibrationRun, belief, calibrate
from splitc.profile.targets.coefficients import TERMS
from splitc.profile.targets.predict import predict
from splitc.profile.targets.roofline import costs, machine, unit_seconds
from tests.predicting import graph, target, unit, work

CONV = work("pointwise", macs=10**8, read=10**6, write=10**6)
MOVE = work("memory", read=5 * 10**7, write=5 * 10**7)
BOTH = ((CONV,), (MOVE,))


def predicted_s(units: tuple[tuple[Work, ...], ...] = BOTH, threads: int = 1) -> list[float]:
    per_amount = costs(machine(target(), threads))
    return [sum(unit_seconds(items, per_amount)) for items in units]


def run(slower: float = 1.0, *, seconds: tuple[float, ...] | None = None, threads: int = 1) -> CalibrationRun:
    whole_s = sum(seconds) if seconds else slower * sum(predicted_s(threads=threads))
    return CalibrationRun("m", "0" * 64, threads, BOTH, seconds, whole_s)


def log_scale(found: Calibration, name: str) -> float:
    return found.log_scale[1 + TERMS.index(name)]


@given(st.floats(0.05, 20))
def test_a_run_pulls_towards_itself_but_never_beyond(slower: float) -> None:
    model = graph(*(unit(*items) for items in BOTH))
    change = math.log(sum(predict(model, target(), calibrate(target(), [run(slower)]))) / sum(predicted_s()))
    assert abs(change) <= abs(math.log(slower)) + 1e-9
    assert change * math.log(slower) >= -1e-12


def test_a_run_as_predicted_changes_nothing_but_is_worth_knowing() -> None:
    found = calibrate(target(), [run()])
    assert found.log_scale == pytest.approx([0.0] * (1 + len(TERMS)), abs=1e-12)
    assert found.covariance[0][0] < belief(machine(target())).covariance[0][0] / 2
    assert found.notes == ()


def test_more_runs_are_known_better() -> None:
    widths = [calibrate(target(), [run(1.5)] * count).covariance[0][0] for count in (1, 2, 3)]
    assert widths == sorted(widths, reverse=True)


def test_times_of_units_tell_apart_what_a_whole_run_cannot() -> None:
    """Convolutions as predicted, moving four times slower."""
    conv_s, move_s = predicted_s()
    whole = calibrate(target(), [run((conv_s + 4 * move_s) / (conv_s + move_s))])
    each = calibrate(target(), [run(seconds=(conv_s, 4 * move_s))])

    def apart(found: Calibration) -> float:
        return log_scale(found, "moved") - log_scale(found, "pointwise")

    assert apart(each) > 2 * apart(whole)


def test_what_no_run_informs_stays_as_uncertain_as_it_was() -> None:
    found, before = calibrate(target(), [run(1.5)]), belief(machine(target()))
    place = 1 + TERMS.index("matmul")
    assert log_scale(found, "matmul") == 0
    assert found.covariance[place][place] == before.covariance[place, place]


@given(st.lists(st.floats(0.2, 5), min_size=1, max_size=4))
def test_what_is_believed_stays_a_normal_distribution(slower: list[float]) -> None:
    found = calibrate(
        target(), [run(ratio, threads=1 + 3 * (place % 2)) for place, ratio in enumerate(slower)]
    )
    covariance = np.array(found.covariance)
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [run(1.3), run(0.7, threads=4)]
    one, other = calibrate(target(), runs), calibrate(target(), runs[::-1])
    assert one.log_scale == pytest.approx(other.log_scale)


def test_a_wildly_different_run_is_taken_but_said() -> None:
    """Ten times slower, ten times faster."""
    (slow,) = calibrate(target(), [run(12.0)]).notes
    assert "'m' ran 12 times slower than predicted for 'board'" in slow
    (fast,) = calibrate(target(), [run(0.05)]).notes
    assert "20 times faster" in fast


@pytest.mark.parametrize("whole_s", [0.0, -1.0, math.nan, math.inf])
def test_impossible_times_are_refused(whole_s: float) -> None:
    with pytest.raises(ProfileError, match="'m' has times that are not positive"):
        calibrate(target(), [replace(run(), whole_s=whole_s)])


@pytest.mark.parametrize("seconds", [(1.0,), (0.0, 0.0), (1.0, math.nan), (1.0, -1.0), (1.0, 1.0, 1.0)])
def test_times_of_units_must_be_of_each(seconds: tuple[float, ...]) -> None:
    with pytest.raises(
        ProfileError, match=r"the run of 'm' (has times that are not positive|lacks times of some units)"
    ):
        calibrate(target(), [replace(run(), seconds=seconds)])


def test_no_run_and_no_work_are_refused() -> None:
    with pytest.raises(ProfileError, match="no runs to calibrate 'board'"):
        calibrate(target(), [])
    with pytest.raises(ProfileError, match="lacks the work of its units"):
        calibrate(target(), [replace(run(), work=())])


def test_a_calibration_survives_its_file() -> None:
    found = calibrate(target(), [run(1.5), run(2.0, threads=4)])
    assert decode(Calibration, encode(found), "calibration.json") == found
    assert [used.threads for used in found.runs] == [1, 4]


def test_a_damaged_calibration_is_refused() -> None:
    plain = encode(calibrate(target(), [run()]))
    assert isinstance(plain, dict)
    plain["log_scale"] = [0.0]
    with pytest.raises(Exception, match="must be of size"):
        decode(Calibration, plain, "calibration.json")
