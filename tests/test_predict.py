"""Predicted times are the hand-computed ones, and move the right way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.errors import TargetError
from splitc.graph import Graph, Unit, Work
from splitc.predict import peak_macs_per_s, predict, predict_unit_s, prediction_interval
from splitc.targets import Cluster, Descriptor, Efficiencies, Interval, Quantity, Target, load_target

CLASSES = ("depthwise", "pointwise", "dense3x3", "conv", "matmul")


def q(value: float) -> Quantity:
    return Quantity(value, "made up", "recalled")


DESCRIPTOR = Descriptor(
    clusters=(Cluster("little", 2, q(1e9), q(1e9)), Cluster("big", 1, q(2e9), q(8e9))),
    thread_gain=q(0.5),
    memory_bytes_per_s=q(1e9),
    unit_overhead_s=q(1e-5),
    efficiency=Efficiencies(q(0.1), q(0.5), q(0.6), q(0.4), q(0.8)),
    interval=Interval(0.5, 2.0, "made up", "recalled"),
    interval_unknown=Interval(0.5, 20.0, "made up", "recalled"),
    caveat="made up",
)
BOARD = Target("board", "device", "a board", "onnxruntime", "CPU", threads=2, descriptor=DESCRIPTOR)


def unit(*work: Work) -> Unit:
    return Unit(name="u", nodes=(0,), inputs=(), outputs=(), weights=(), work=work)


def graph(*units: Unit) -> Graph:
    return Graph(units=units, tensors=(), weights=())


def test_the_peak_counts_the_fastest_cores_first() -> None:
    """The first core counts in full, each further one by the thread gain."""
    assert [peak_macs_per_s(DESCRIPTOR, n) for n in (1, 2, 3, 4)] == [8e9, 8.5e9, 9e9, 9e9]


def test_a_unit_is_overhead_plus_work_plus_bytes() -> None:
    """8.5e9 MACs/s at half efficiency, 1e9 bytes/s, 10 us."""
    conv = Work("Conv", "pointwise", macs=4_250_000, read_bytes=700_000, write_bytes=300_000)
    assert predict_unit_s(unit(conv), BOARD) == pytest.approx(1e-5 + 1e-3 + 1e-3)


def test_fused_elementwise_work_is_free() -> None:
    """A Relu after a convolution of the same unit moves no bytes; alone it does. Overhead is paid once."""
    conv = Work("Conv", "pointwise", macs=4_250_000, read_bytes=0, write_bytes=0)
    relu = Work("Relu", "memory", macs=0, read_bytes=1000, write_bytes=1000)
    assert predict_unit_s(unit(conv, relu), BOARD) == predict_unit_s(unit(conv), BOARD)
    assert predict_unit_s(unit(relu), BOARD) == pytest.approx(1e-5 + 2e-6)


def test_predict_gives_one_time_per_unit() -> None:
    """The times are in the order of the units."""
    units = (unit(Work("Relu", "memory", 0, 10, 10)), unit())
    assert predict(graph(*units), BOARD) == tuple(predict_unit_s(each, BOARD) for each in units)
    assert predict(graph(), BOARD) == ()


sizes = st.integers(min_value=0, max_value=10**12)


@given(st.sampled_from(CLASSES), sizes, sizes, sizes, sizes)
def test_more_work_never_takes_less_time(
    op_class: str, macs: int, more_macs: int, nbytes: int, more: int
) -> None:
    """Time grows with multiply-accumulates and with bytes."""
    time_s = predict_unit_s(unit(Work("X", op_class, macs, nbytes, 0)), BOARD)
    assert predict_unit_s(unit(Work("X", op_class, macs + more_macs, nbytes, 0)), BOARD) >= time_s
    assert predict_unit_s(unit(Work("X", op_class, macs, nbytes, more)), BOARD) >= time_s


@given(st.sampled_from(CLASSES), sizes, sizes)
def test_more_threads_never_take_more_time(op_class: str, macs: int, nbytes: int) -> None:
    """A thread adds peak or nothing."""
    work = unit(Work("X", op_class, macs, nbytes, 0))
    times = [predict_unit_s(work, replace(BOARD, threads=threads)) for threads in (1, 2, 3, 4)]
    assert times == sorted(times, reverse=True)


@given(st.sampled_from(CLASSES), sizes, st.integers(min_value=1, max_value=1000))
def test_time_beyond_the_overhead_scales_with_the_work(op_class: str, macs: int, factor: int) -> None:
    """Ten times the work takes ten times as long."""
    once = predict_unit_s(unit(Work("X", op_class, macs, 0, 0)), BOARD) - 1e-5
    many = predict_unit_s(unit(Work("X", op_class, macs * factor, 0, 0)), BOARD) - 1e-5
    assert many == pytest.approx(factor * once, rel=1e-6, abs=1e-12 * factor)


def test_unknown_operators_widen_the_interval_by_their_share() -> None:
    """Of 40 us predicted, 30 go to an operator of which only the bytes are known."""
    known = unit()
    unknown = unit(Work("my.domain.Thing", "other", macs=0, read_bytes=20_000, write_bytes=0))
    assert prediction_interval(graph(known), BOARD) == (0.5, 2.0)
    assert prediction_interval(graph(unknown), BOARD) == (0.5, 20.0)
    assert prediction_interval(graph(known, unknown), BOARD) == pytest.approx((0.5, 2.0 + 0.75 * 18.0))
    assert prediction_interval(graph(), BOARD) == (0.5, 2.0)


def test_a_class_that_nobody_knows_is_refused() -> None:
    """A misspelt class does not silently become free."""
    with pytest.raises(TargetError, match="'Conv' is of class 'dense5x5'"):
        predict_unit_s(unit(Work("Conv", "dense5x5", 1, 1, 1)), BOARD)


def test_a_machine_without_descriptor_is_measured_not_predicted() -> None:
    """`local` has nothing to predict from."""
    with pytest.raises(TargetError, match=r"'local' has no \[descriptor\]"):
        predict(graph(), load_target("local"))
    with pytest.raises(TargetError, match=r"'local' has no \[descriptor\]"):
        prediction_interval(graph(), load_target("local"))


def test_a_prediction_needs_a_thread_count() -> None:
    """Without one there is no peak."""
    with pytest.raises(TargetError, match="no thread count"):
        predict(graph(), replace(BOARD, threads=None))


def test_the_shipped_phone_predicts() -> None:
    """One GMAC of matrix products on a Pixel 7: 0.92 of 45.6e9 + 0.51 x (45.6e9 + 2 x 18.8e9)."""
    work = unit(Work("MatMul", "matmul", 1_000_000_000, 0, 0))
    assert predict_unit_s(work, load_target("pixel7")) == pytest.approx(4.3e-6 + 1 / 80.977, rel=1e-3)
