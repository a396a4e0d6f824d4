"""Predictions add up, and their intervals are as wide as what is known allows."""

import math
from dataclasses import replace

import pytest

from splitc.common.errors import TargetError
from splitc.profile.targets.calibration import CalibrationRun, calibrate
from splitc.profile.targets.description import load_target, target_names
from splitc.profile.targets.predict import predict, prediction_interval
from splitc.profile.targets.roofline import costs, machine, unit_seconds
from tests.predicting import cluster, graph, target, unit, work

CONV = work("pointwise", macs=10**8, read=10**6, write=10**6)
UNKNOWN = work("other", read=10**8)


def width(bounds: tuple[float, float]) -> float:
    return bounds[1] / bounds[0]


def test_one_time_per_unit_in_their_order() -> None:
    units = (unit(CONV), unit(CONV, CONV), unit())
    per_amount = costs(machine(target()))
    assert predict(graph(*units), target()) == pytest.approx(
        [sum(unit_seconds(u.work, per_amount)) for u in units]
    )
    assert predict(graph(), target()) == ()


def test_an_interval_holds_one() -> None:
    low, high = prediction_interval(graph(unit(CONV)), target())
    assert 0.2 < low < 1 < high < 5
    empty = prediction_interval(graph(), target())
    assert empty[0] < 1 < empty[1]


def test_unknown_operators_widen_the_interval_by_their_share() -> None:
    """Half the time in an operator of which only the bytes are known, then all of it."""
    known, mixed, unknown = (
        width(prediction_interval(graph(*units), target()))
        for units in ([unit(CONV)], [unit(CONV), unit(UNKNOWN)], [unit(UNKNOWN)])
    )
    assert known < mixed < unknown


def test_a_core_in_the_fit_is_known_best() -> None:
    """Cortex-A76 was measured, Cortex-A710 only its family, this phone's core nothing."""
    widths = [
        width(prediction_interval(graph(unit(CONV)), target(cluster(core))))
        for core in ("Cortex-A76", "Cortex-A710", "Apple A16 P-core")
    ]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_a_calibration_rescales_and_narrows() -> None:
    """A run twice as slow as predicted."""
    run = graph(unit(CONV))
    before = predict(run, target())[0]
    found = calibrate(target(), [CalibrationRun("m", "0" * 64, 1, ((CONV,),), None, 2 * before)])
    after = predict(run, target(), found)[0]
    assert before < after < 2 * before
    assert math.log(after / before) > 0.7 * math.log(2)
    assert width(prediction_interval(run, target(), found)) < 0.7 * width(prediction_interval(run, target()))


def test_a_calibration_of_another_description_is_refused() -> None:
    found = calibrate(target(), [CalibrationRun("m", "0" * 64, 1, ((CONV,),), None, 1.0)])
    with pytest.raises(TargetError, match="run `splitc calibrate board` again"):
        predict(graph(unit(CONV)), target(cluster(ghz=2.1)), found)
    assert predict(graph(unit(CONV)), replace(target(), threads=4), found)


def test_a_machine_without_descriptor_is_measured_not_predicted() -> None:
    """`local` has nothing to predict from."""
    for ask in (predict, prediction_interval):
        with pytest.raises(TargetError, match=r"'local' has no \[descriptor\]"):
            ask(graph(), load_target("local"))


@pytest.mark.parametrize("name", target_names())
def test_every_shipped_target_predicts(name: str) -> None:
    """One GMAC of matrix products takes between a microsecond and a second, and less than by a naive loop."""
    found = load_target(name)
    if found.descriptor is None:
        return
    model = graph(unit(work("matmul", macs=10**9, read=4 * 10**6, write=4 * 10**6)))
    (seconds,) = predict(model, found)
    low, high = prediction_interval(model, found)
    assert 1e-5 < seconds < 1
    assert 0.05 < low < 1 < high < 20
