"""What a unit costs is what one would work out by hand, and moves the right way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.common.errors import TargetError
from splitc.model.graph import Work
from splitc.profile.targets.coefficients import TERMS, load_coefficients
from splitc.profile.targets.roofline import MULTIPLYING, amounts, costs, machine, unit_seconds
from tests.predicting import cluster, quantity, target, work

ARM = load_coefficients("onnxruntime-arm64")


def spent(*items: Work, threads: int = 1) -> dict[str, float]:
    per_amount = costs(machine(target(), threads))
    return dict(zip(TERMS, unit_seconds(items, per_amount), strict=True))


def counted(*items: Work) -> dict[str, float]:
    return {name: amount for name, amount in zip(TERMS, amounts(items), strict=True) if amount}


def test_amounts_of_a_convolution() -> None:
    """Weights are told from activations; dense 3x3 convolutions have a traffic of their own."""
    pointwise = work("pointwise", macs=1000, read=700, write=300, weights=200)
    assert counted(pointwise) == {"pointwise": 1000, "traffic": 800, "weights": 200, "unit": 1}
    assert counted(replace(pointwise, op_class="dense3x3")) == {
        "dense3x3": 1000, "dense_traffic": 800, "weights": 200, "unit": 1,
    }  # fmt: skip


def test_elementwise_work_in_a_unit_that_multiplies_moves_nothing_again() -> None:
    conv, relu = work("conv", macs=1), work("memory", read=1000, write=1000)
    assert counted(conv, relu) == {"conv": 1, "unit": 1}
    assert counted(relu) == {"moved": 2000, "unit": 1}
    sigmoid = work("transcendental", read=400, write=400)
    assert counted(conv, sigmoid) == {"conv": 1, "transcendental": 100, "unit": 1}
    assert counted(sigmoid) == {"transcendental": 100, "moved": 800, "unit": 1}


def test_views_move_nothing_and_picking_only_what_is_picked() -> None:
    assert counted(work("memory", read=10, write=10, op="Reshape")) == {"unit": 1}
    assert counted(work("memory", read=10**9, write=10, op="Gather")) == {"moved": 20, "unit": 1}


def test_seconds_are_amount_times_cost_over_hardware() -> None:
    """A Cortex-A76 at 2 GHz: 16e9 multiply-accumulates per second, 10 GB/s."""
    core = ARM.core("Cortex-A76")
    assert core is not None
    family = ARM.family(core.family)
    whole = core.whole * family.whole
    found = spent(work("matmul", macs=16_000_000, read=30_000, write=0, weights=20_000))
    assert found["matmul"] == pytest.approx(1e-3 * ARM.terms.matmul.cost * whole)
    assert found["traffic"] == pytest.approx(1e-6 * ARM.terms.traffic.cost * whole * family.memory)
    assert found["weights"] == pytest.approx(2e-6 * ARM.terms.weights.cost * whole * family.memory)
    assert found["unit"] == pytest.approx(ARM.terms.unit.cost / 2e9 * whole * family.unit)


def test_four_threads_are_not_four_times_one() -> None:
    for name in ("pointwise", "dense3x3", "matmul"):
        one, four = (spent(work(name, macs=10**9), threads=n)[name] for n in (1, 4))
        assert 1.5 < one / four <= 4.0
    moved = work("memory", read=10**9)
    assert spent(moved)["moved"] / spent(moved, threads=4)["moved"] < 3


def test_one_core_cannot_draw_all_that_a_server_s_memory_gives() -> None:
    """8 bytes per cycle at 2 GHz: 16 GB/s of the 400."""
    server = target(cluster())
    assert server.descriptor is not None
    wide = replace(server, descriptor=replace(server.descriptor, memory_bytes_per_s=quantity(400e9)))
    ratio = costs(machine(server))[TERMS.index("moved")] / costs(machine(wide))[TERMS.index("moved")]
    assert ratio == pytest.approx(1.6)


def test_the_fastest_cores_run_the_threads() -> None:
    little, big = cluster("Cortex-A55", 4, 1.0), cluster("Cortex-A76", 2, 2.0)
    on = machine(target(little, big, threads=3))
    assert [core.core for core in on.cores] == ["Cortex-A76", "Cortex-A76", "Cortex-A55"]
    assert on.gain() == pytest.approx(2.5)
    assert machine(target(big), 64).gain() == 2.0


def test_a_core_that_nobody_knows_takes_no_factors() -> None:
    unknown = costs(machine(target(cluster("Somebody's core"))))
    assert unknown[TERMS.index("matmul")] == pytest.approx(ARM.terms.matmul.cost / 16e9)


sizes = st.integers(min_value=0, max_value=10**12)


@given(st.sampled_from(sorted(MULTIPLYING)), sizes, sizes, sizes, sizes)
def test_more_work_never_takes_less_time(
    op_class: str, macs: int, more_macs: int, read: int, more: int
) -> None:
    less = sum(spent(work(op_class, macs, read)).values())
    assert sum(spent(work(op_class, macs + more_macs, read)).values()) >= less
    assert sum(spent(work(op_class, macs, read, more)).values()) >= less


def test_a_class_that_nobody_knows_is_refused() -> None:
    """A misspelt class does not silently become free."""
    with pytest.raises(TargetError, match="'X' has the unknown class 'dense5x5'"):
        amounts([work("dense5x5")])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TargetError, match=r"'board' has no \[descriptor\]"):
        machine(replace(target(), descriptor=None))
    with pytest.raises(TargetError, match="no thread count"):
        machine(target(threads=None))
    clockless = replace(cluster(), clock_hz=None)
    with pytest.raises(TargetError, match="'Cortex-A76' has no clock_hz"):
        costs(machine(target(clockless)))
    assert costs(machine(target(replace(clockless, core="NVIDIA T4"), coefficients="onnxruntime-cuda")))
