"""Predict the time of each unit on a machine that is not at hand, from its descriptor.

A roofline sum, not a simulation: for a unit,

    seconds = overhead + macs / (efficiency x peak) + bytes / memory bandwidth

with one efficiency per class of operators. `benchmarks/fit_targets.py` fits the coefficients on
measured tables and says how far they are off. A prediction is never a measurement: use it together
with `prediction_interval`.
"""

from dataclasses import dataclass

from splitc.errors import TargetError
from splitc.graph import Graph, Unit, Work
from splitc.targets import Descriptor, Target

MEMORY = "memory"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Rates:
    """A descriptor at one thread count; `macs_per_s` has one entry per class with an efficiency."""

    macs_per_s: dict[str, float]
    bytes_per_s: float
    unit_overhead_s: float


def predict(graph: Graph, target: Target) -> tuple[float, ...]:
    """Return the predicted seconds of each unit of *graph* on *target*, at the target's thread count.

    Raises:
        TargetError: the target has no descriptor or thread count to predict from.
    """
    rates = _rates(target)
    return tuple(_unit_s(unit, rates) for unit in graph.units)


def predict_unit_s(unit: Unit, target: Target) -> float:
    """Return the predicted seconds of one unit on *target*; see `predict`."""
    return _unit_s(unit, _rates(target))


def prediction_interval(graph: Graph, target: Target) -> tuple[float, float]:
    """Return (low, high): the measured time of *graph* is expected between these multiples of the predicted.

    The more of the predicted time goes to operators of which only the bytes are known, the closer
    the interval is to the much wider one for those: a sum's bounds are the sums of its parts' bounds.
    """
    descriptor = _descriptor(target)
    rates = _rates(target)
    total_s = sum(_unit_s(unit, rates) for unit in graph.units)
    unknown_s = sum(_unit_s(unit, rates) for unit in graph.units if _is_unknown(unit))
    share = unknown_s / total_s if total_s else 0.0
    known, unknown = descriptor.interval, descriptor.interval_unknown
    return _mix(known.low, unknown.low, share), _mix(known.high, unknown.high, share)


def peak_macs_per_s(descriptor: Descriptor, threads: int) -> float:
    """Return the multiply-accumulates per second that *threads* threads can use, fastest cores first.

    The first core counts in full, each further one by `thread_gain`. Threads beyond the number of
    cores add nothing.
    """
    peaks = [cluster.peak_macs_per_s.value for cluster in descriptor.clusters for _ in range(cluster.cores)]
    used = sorted(peaks, reverse=True)[:threads]
    return used[0] + descriptor.thread_gain.value * sum(used[1:])


def _rates(target: Target) -> _Rates:
    descriptor = _descriptor(target)
    if target.threads is None:
        raise TargetError(
            f"target '{target.name}' has no thread count to predict for; give one with `--threads`"
        )
    peak = peak_macs_per_s(descriptor, target.threads)
    efficiency = descriptor.efficiency
    return _Rates(
        macs_per_s={
            "depthwise": efficiency.depthwise.value * peak,
            "pointwise": efficiency.pointwise.value * peak,
            "dense3x3": efficiency.dense3x3.value * peak,
            "conv": efficiency.conv.value * peak,
            "matmul": efficiency.matmul.value * peak,
        },
        bytes_per_s=descriptor.memory_bytes_per_s.value,
        unit_overhead_s=descriptor.unit_overhead_s.value,
    )


def _descriptor(target: Target) -> Descriptor:
    if target.descriptor is None:
        raise TargetError(f"target '{target.name}' has no [descriptor] to predict from; measure it instead")
    return target.descriptor


def _unit_s(unit: Unit, rates: _Rates) -> float:
    fused = any(work.op_class in rates.macs_per_s for work in unit.work)
    return rates.unit_overhead_s + sum(_work_s(work, rates, fused=fused) for work in unit.work)


def _work_s(work: Work, rates: _Rates, *, fused: bool) -> float:
    """Return the seconds of one source node, without the overhead of its unit.

    Elementwise work in a unit that also convolves or multiplies is done on the way out, while the
    result is still in registers or cache, so its bytes are not moved again.
    """
    if work.op_class == MEMORY and fused:
        return 0.0
    transfer_s = (work.read_bytes + work.write_bytes) / rates.bytes_per_s
    rate = rates.macs_per_s.get(work.op_class)
    if rate is not None:
        return transfer_s + work.macs / rate
    if work.op_class in (MEMORY, OTHER):
        return transfer_s
    raise TargetError(f"operator '{work.op}' is of class '{work.op_class}', which no target describes")


def _is_unknown(unit: Unit) -> bool:
    return any(work.op_class == OTHER for work in unit.work)


def _mix(known: float, unknown: float, share: float) -> float:
    return known + share * (unknown - known)
