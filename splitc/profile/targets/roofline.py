"""Compute the predicted time of a unit on a machine, by kind of work.

    seconds = sum over terms of  amount x cost / hardware x gain ** -threads

*amount* belongs to the unit: multiply-accumulates by class, bytes of activations and weights, one start.
*hardware* belongs to the machine: peak and clock of its fastest core, bandwidth of its memory. *cost* and the
exponent *threads* belong to the runtime: they come from its coefficients. *gain* is the peak of all cores that
run a thread over that of the fastest; the exponent is needed because four threads are not four times as fast
as one, least of all where memory is the limit. This is a roofline model with sums in place of maxima (Williams,
Waterman and Patterson, CACM 52(4), 2009), because a runtime does not overlap computation and data movement
perfectly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from splitc.common.errors import TargetError
from splitc.model.graph import Work
from splitc.profile.targets.coefficients import TERMS, Coefficients, Term, load_coefficients
from splitc.profile.targets.description import Cluster, Descriptor, Target

MULTIPLYING = frozenset({"depthwise", "grouped", "pointwise", "dense3x3", "conv", "matmul"})
_ELEMENTWISE = frozenset({"memory", "transcendental"})
_VALUE_BYTES = 4  # of a value in single precision
# Operators that return a view of their input, and operators that read no more than they write.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size"})
_PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})


@dataclass(frozen=True, slots=True)
class Machine:
    """A target with its coefficients and the cores that it uses.

    Attributes:
        target: its name, for messages.
        cores: the cores that run a thread, fastest first.
    """

    target: str
    descriptor: Descriptor
    coefficients: Coefficients
    cores: tuple[Cluster, ...]

    def gain(self) -> float:
        """Return the peak of all used cores over that of the fastest; 1 with one thread."""
        peaks = [core.peak_macs_per_s.value for core in self.cores]
        return fsum(peaks) / peaks[0]


def machine(target: Target, threads: int | None = None) -> Machine:
    """Return *target* with its coefficients, for *threads* threads (None for its own thread count).

    Raises:
        TargetError: it has no descriptor or thread count, or its coefficients are missing.
    """
    threads = threads or target.threads
    if target.descriptor is None:
        raise TargetError(
            f"target '{target.name}' has no [descriptor] to predict times from; add one, or record a profile with "
            "`splitc profile`"
        )
    if threads is None:
        raise TargetError(
            f"target '{target.name}' has no thread count to predict for; give one with --threads"
        )
    described = target.descriptor
    cores = [cluster for cluster in described.clusters for _ in range(cluster.cores)]
    cores.sort(key=lambda core: -core.peak_macs_per_s.value)
    return Machine(target.name, described, load_coefficients(described.coefficients), tuple(cores[:threads]))


def amounts(work: Sequence[Work]) -> tuple[float, ...]:
    """Return the amount of each term in one unit, in the order of `TERMS`.

    Elementwise work in a unit with convolutions or matrix products is fused with them: the result is still in
    registers or cache, so its bytes are not counted again.

    Raises:
        TargetError: an operator has an unknown class.
    """
    found = dict.fromkeys(TERMS, 0.0)
    found["unit"] = 1.0
    fused = any(item.op_class in MULTIPLYING for item in work)
    for item in work:
        if item.op_class in MULTIPLYING:
            traffic = "dense_traffic" if item.op_class == "dense3x3" else "traffic"
            found[item.op_class] += item.macs
            found[traffic] += item.read_bytes - item.weight_bytes + item.write_bytes
            found["weights"] += item.weight_bytes
        elif item.op_class in _ELEMENTWISE:
            if item.op_class == "transcendental":
                found["transcendental"] += item.write_bytes / _VALUE_BYTES
            if not fused:
                found["moved"] += _moved_bytes(item)
        elif item.op_class == "other":
            found["other"] += item.read_bytes + item.write_bytes
        else:
            raise TargetError(
                f"operator '{item.op}' has the unknown class '{item.op_class}'; record the profile again with this "
                "version of splitc"
            )
    return tuple(found.values())


def costs(on: Machine) -> tuple[float, ...]:
    """Return the seconds per amount of each term, in the order of `TERMS`.

    Raises:
        TargetError: a term is per clock cycle, and the descriptor has no clock.
    """
    core = on.coefficients.core(on.cores[0].core)
    family = on.coefficients.family(core.family) if core else None
    whole = core.whole * family.whole if core and family else 1.0
    factors = {
        "peak": whole / on.cores[0].peak_macs_per_s.value,
        "memory": whole * (family.memory if family else 1.0) / _memory_bytes_per_s(on),
        "second": 1.0,
    }
    terms: list[Term] = [getattr(on.coefficients.terms, name) for name in TERMS]
    if any(term.per == "clock" for term in terms):
        factors["clock"] = whole * (family.unit if family else 1.0) / _clock_hz(on, on.cores[0])
    return tuple(term.cost * factors[term.per] * on.gain() ** -term.threads for term in terms)


def unit_seconds(work: Sequence[Work], per_amount: Sequence[float]) -> tuple[float, ...]:
    """Return the seconds that each term of one unit takes, in the order of `TERMS`."""
    return tuple(amount * cost for amount, cost in zip(amounts(work), per_amount, strict=True))


def _moved_bytes(item: Work) -> int:
    if item.op in _VIEWS:
        return 0
    return 2 * item.write_bytes if item.op in _PICKING else item.read_bytes + item.write_bytes


def _memory_bytes_per_s(on: Machine) -> float:
    """Return the memory bandwidth of the used cores together, at most that of the memory."""
    most, per_cycle = on.descriptor.memory_bytes_per_s.value, on.coefficients.core_bytes_per_cycle
    if per_cycle is None:
        return most
    return min(most, per_cycle.value * fsum(_clock_hz(on, core) for core in on.cores))


def _clock_hz(on: Machine, core: Cluster) -> float:
    if core.clock_hz is None:
        raise TargetError(
            f"target '{on.target}': core '{core.core}' has no clock_hz, but the coefficients "
            f"'{on.coefficients.name}' need it; add it to the description"
        )
    return core.clock_hz.value
