"""What a wrong prediction costs: the cut chosen with it against the best one, on the true times.

The cuts are those along the topological order of the units: after each unit, before the first, after
the last. The cloud takes the measured times of units_x86.csv: one core of a server.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.fit.model import HeldOut
from benchmarks.fit.runtime import Costs, Unit
from benchmarks.fit.tables import MEMORY, PER, Array
from splitc.profile.targets.description import load_network

NETWORKS = ("ethernet", "wifi", "5g", "lte", "3g")
GRAPHS = {
    # model of units_x86.csv: its name in ncnn's tables
    "regnet_y_400mf": "regnety_400m", "mobilenet_v2": "mobilenet_v2", "resnet18": "resnet18",
    "squeezenet1_1": "squeezenet", "googlenet": "googlenet", "efficientnet_b0": "efficientnet_b0",
    "resnet50": "resnet50", "alexnet": "alexnet",
}  # fmt: skip
_OUTPUT_BYTES = 4000.0
_FASTER_CLOUD = 4.0


@dataclass(frozen=True, slots=True)
class Regret:
    """How much slower than the best cut the chosen ones were.

    Attributes:
        best: share of decisions for the best cut.
        mean, high: mean, and 95th percentile.
    """

    network: str
    decisions: int
    best: float
    mean: float
    high: float


def regret(network: str, cases: Sequence[tuple[Array, Array, Array, Array]]) -> Regret:
    """Sum up decisions; a case is units' (predicted seconds, true seconds, cloud seconds, bytes after)."""
    link = load_network(network)
    losses = []
    for predicted, true, cloud, cut_bytes in cases:
        moves = link.rtt_s.typical + 8 * cut_bytes / link.uplink_bps.typical
        moves += 8 * _OUTPUT_BYTES / link.downlink_bps.typical + cloud.sum() - np.cumsum(cloud)
        moves[-1] = 0.0  # everything on the device
        believed, real = np.cumsum(predicted) + moves, np.cumsum(true) + moves
        losses.append(real[believed.argmin()] / real.min() - 1)
    found = np.array(losses)
    return Regret(
        network,
        len(found),
        float((found < 1e-9).mean()),
        float(found.mean()),
        float(np.percentile(found, 95)),
    )


def on_devices(found: HeldOut, per_term: Array, threads: int, units: dict[str, list[Unit]]) -> list[Regret]:
    """Decide for devices held out of ncnn's fit.

    A unit's true time is its predicted one, scaled so that the whole model takes what was measured:
    the tables tell no more. *per_term* has the seconds of each term of each run.
    """
    names = {ncnn: ours for ours, ncnn in GRAPHS.items()}
    cases = []
    for row, spent, off in zip(found.runs.rows, per_term, found.log_ratio, strict=True):
        if row.threads != threads or row.model not in names:
            continue
        model = units[names[row.model]]
        half = np.array([0.5 if row.cores[0].half and PER[name] == MEMORY else 1.0 for name in PER])
        per_amount = np.divide(spent, row.amounts, out=np.zeros(len(spent)), where=np.array(row.amounts) > 0)
        predicted = np.array([unit.amounts for unit in model]) @ (per_amount * half)
        whole = spent.sum() / predicted.sum()  # the graph in ncnn's table may be another version of the model
        predicted *= whole
        cases.append((predicted, predicted * np.exp(off), *_cloud(model, 1.0)))
    return [regret(network, cases) for network in NETWORKS]


def on_this_machine(costs: Costs, per_amount: Array, units: dict[str, list[Unit]]) -> list[Regret]:
    """Decide for the measured machine, with true times per unit, each model predicted from a fit without it.

    *per_amount* is what each term takes at the hardware's peak, per amount.
    """
    names = [name for name in costs.models if name in units]
    cases = []
    for name in names:
        model = units[name]
        predicted = np.array([unit.amounts for unit in model]) @ (costs.without[name] * per_amount)
        cases.append((predicted, np.array([unit.seconds for unit in model]), *_cloud(model, _FASTER_CLOUD)))
    return [regret(network, cases) for network in NETWORKS]


def _cloud(model: list[Unit], faster: float) -> tuple[Array, Array]:
    seconds = np.array([unit.seconds for unit in model]) / faster
    return seconds, np.array([unit.cut_bytes for unit in model])
