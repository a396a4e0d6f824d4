"""Targets and graphs for the tests of predictions: the numbers are made up, the arithmetic is not."""

from splitc.model.graph import Graph, Unit, Work
from splitc.profile.targets.description import Cluster, Descriptor, Target
from splitc.profile.targets.quantity import Quantity

MADE_UP = "made up"


def quantity(value: float) -> Quantity:
    return Quantity(value, MADE_UP, "recalled")


def target(*clusters: Cluster, threads: int | None = 1, coefficients: str = "onnxruntime-arm64") -> Target:
    """A board with a memory of 10 GB/s."""
    descriptor = Descriptor(coefficients, clusters or (cluster(),), quantity(10e9))
    return Target("board", "device", "a board", "onnxruntime", "CPU", threads=threads, descriptor=descriptor)


def cluster(core: str = "Cortex-A76", cores: int = 4, ghz: float = 2.0) -> Cluster:
    """Eight multiply-accumulates per cycle."""
    return Cluster(core, cores, quantity(8e9 * ghz), quantity(ghz * 1e9))


def work(
    op_class: str, macs: int = 0, read: int = 0, write: int = 0, weights: int = 0, op: str = "X"
) -> Work:
    return Work(op, op_class, macs, read, write, weights)


def unit(*items: Work) -> Unit:
    return Unit(name="u", nodes=(0,), inputs=(), outputs=(), weights=(), work=items)


def graph(*units: Unit) -> Graph:
    return Graph(units=units, tensors=(), weights=())
