"""ONNX Runtime's own costs, on the few machines where it was measured.

ncnn's tables tell how times change from machine to machine. Its kernels are not ONNX Runtime's (Winograd
convolutions, other depthwise ones), so the cost of each kind of work comes from runs of ONNX Runtime:
on x86-64 units of models measured for this purpose, on Arm whole models that Qualcomm AI Hub ran on one
board. Each cost is drawn towards what is known before: on x86-64 ncnn's, on Arm that of x86-64.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.fit.machines import DATA, GHZ, Core, Machines
from benchmarks.fit.model import Design, fit
from benchmarks.fit.tables import CLOCK, CORE_BYTES_PER_CYCLE, MEMORY, PER, Array, Mask, Run, Runs, read, runs
from splitc.profile.targets.coefficients import TERMS

_FREEDOM = 0.7  # how far, in logarithms, a cost may be from what is known before
_PER_MODEL = 5.0
_TIMED_WELL_S = 5e-6
_MULTIPLYING = ("depthwise", "grouped", "pointwise", "dense3x3", "conv", "matmul")

ARM_BOARD, ARM_THREADS = "RB3 Gen 2 (Proxy)", 4  # threads are not stated: one per big core is assumed
_ARM_MEMORY = 25.6 * GHZ  # devices.csv: Snapdragon 778G, the same chip under another name
_TWINS = {
    # AI Hub's name: torchvision's
    "squeezenet1_1": "squeezenet1_1", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3_large": "mobilenet_v3_large",
    "mobilenet_v3_small": "mobilenet_v3_small", "efficientnet_b0": "efficientnet_b0", "mnasnet05": "mnasnet0_5",
    "shufflenet_v2": "shufflenet_v2_x0_5", "googlenet": "googlenet", "inception_v3": "inception_v3",
    "densenet121": "densenet121", "regnet": "regnet_x_3_2gf", "resnet18": "resnet18", "resnet50": "resnet50",
    "resnet101": "resnet101", "resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d",
    "wideresnet50": "wide_resnet50_2", "vit": "vit_b_16", "swin_tiny": "swin_t", "swin_small": "swin_s",
    "swin_base": "swin_b", "fcn_resnet50": "fcn_resnet50",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hardware:
    """What ncnn's fit says of a kind of processor: factors of its first core, exponents of the gain."""

    whole: float
    memory: float
    unit: float
    threads: Array

    def ideal(self, of: Runs) -> Runs:
        """Seconds of each term at the hardware's peak, as this hardware comes to it."""
        per = {MEMORY: self.whole * self.memory, CLOCK: self.whole * self.unit}
        factors = np.array([per.get(PER[name], self.whole) for name in TERMS])
        return Runs(of.rows, of.ideal * factors * of.gain[:, None] ** -self.threads, of.gain, of.log_seconds)


@dataclass(frozen=True, slots=True)
class Costs:
    """Fitted costs, and how far off they are.

    Attributes:
        log_ratio: log(measured / predicted) of each whole model, from a fit without it.
        without: the costs fitted without each model.
    """

    costs: Array
    without: dict[str, Array]
    models: tuple[str, ...]
    log_ratio: Array

    def deviation(self) -> float:
        """Root mean square of the models' errors."""
        return float(np.sqrt(np.mean(self.log_ratio**2)))

    def error(self) -> float:
        """Mean of |predicted / measured - 1|."""
        return float(np.abs(np.exp(-self.log_ratio) - 1).mean())


def fit_costs(of: Runs, before: Array) -> Costs:
    """Fit the cost of each term to *of*, drawn towards *before*."""
    effects = np.broadcast_to(np.eye(len(TERMS)), (len(of.rows), len(TERMS), len(TERMS)))
    plan = Design(
        tuple(("base", name) for name in TERMS), np.log(before), np.full(len(TERMS), _FREEDOM), effects
    )

    models, measured = of.column("model"), np.exp(of.log_seconds)
    whole = {name: measured[models == name].sum() for name in set(models)}
    weights = np.array([_PER_MODEL * took / whole[name] for name, took in zip(models, measured, strict=True)])

    def costs(rows: Mask) -> Array:
        return np.asarray(np.exp(fit(of, plan, rows, weights=weights)))

    names = tuple(sorted(map(str, set(models))))
    without = {name: costs(models != name) for name in names}
    ratios = [whole[name] / (of.ideal[models == name] @ without[name]).sum() for name in names]
    return Costs(costs(np.ones(len(models), bool)), without, names, np.log(ratios))


def x86_core(machines: Machines) -> tuple[Core, float]:
    """Return the core that units_x86.csv was measured on, and its memory's bandwidth."""
    return machines.core("AMD Zen 4", 3.7 * GHZ), 460.8 * GHZ


@dataclass(frozen=True, slots=True)
class Unit:
    """A line of units_x86.csv: a unit, or (number -1) the model's input."""

    amounts: tuple[float, ...]
    cut_bytes: float
    seconds: float


def x86_units() -> dict[str, list[Unit]]:
    """Return the units of every measured model, its input first."""
    models: dict[str, list[Unit]] = {}
    for row in read(DATA, "units_x86.csv"):
        is_input = row["unit"] == "input"
        amounts = tuple((0.0 if is_input else 1.0) if name == "unit" else float(row[name]) for name in TERMS)
        models.setdefault(row["model"], []).append(
            Unit(amounts, float(row["cut_bytes"]), float(row["seconds"]))
        )
    return models


def x86_runs(machines: Machines) -> Runs:
    """Return the measured units, added up by what they mostly do: single ones are too short to time well."""
    core, memory = x86_core(machines)
    rows = []
    for model, units in x86_units().items():
        kinds: dict[str, list[Unit]] = {}
        for unit in units[1:]:
            amounts = dict(zip(TERMS, unit.amounts, strict=True))
            kind = max(_MULTIPLYING, key=lambda name: amounts[name])
            kinds.setdefault(
                kind if amounts[kind] else "transcendental" if amounts["transcendental"] else "moved", []
            ).append(unit)
        for kind in sorted(kinds):
            total = tuple(float(value) for value in np.sum([unit.amounts for unit in kinds[kind]], axis=0))
            seconds = sum(unit.seconds for unit in kinds[kind])
            if seconds > 0:
                rows.append(
                    Run("here", model, model, 1, (core,), memory, older=False, amounts=total, seconds=seconds)
                )
    return runs(rows)


def only_bytes(machines: Machines) -> tuple[float, float]:
    """Return (cost, spread) of a unit of which only the bytes are known: over all measured units."""
    core, memory = x86_core(machines)
    drawn = min(memory, CORE_BYTES_PER_CYCLE * core.hertz)
    touched = [name for name in TERMS if PER[name] == MEMORY]
    costs = []
    for unit in (unit for units in x86_units().values() for unit in units[1:]):
        nbytes = sum(unit.amounts[TERMS.index(name)] for name in touched)
        if nbytes and unit.seconds > _TIMED_WELL_S:
            costs.append(np.log(unit.seconds * drawn / nbytes))
    return float(np.exp(np.mean(costs))), float(np.std(costs))


def arm_cores(machines: Machines) -> tuple[Core, ...]:
    """Return the cores of the board that are assumed to have run."""
    return tuple(replace(machines.core("Cortex-A78", ghz * GHZ), half=False) for ghz in (2.7, 2.4, 2.4, 2.4))


def arm_runs(latencies: list[dict[str, str]], machines: Machines) -> Runs:
    """Return ONNX Runtime's fp32 runs on the board, all layers on the CPU, of models whose work is known."""
    work = {
        row["model"]: tuple(float(row[name]) for name in TERMS) for row in read(DATA, "torchvision_work.csv")
    }
    cores = arm_cores(machines)
    rows = []
    for row in latencies:
        ours = (
            row["device"] == ARM_BOARD
            and row["runtime"] == "onnxruntime"
            and row["precision"] in ("fp32", "float")
        )
        if ours and row["model"] in _TWINS and re.search(r"layers npu/gpu/cpu=0/0/\d+", row["notes"]):
            rows.append(
                Run(ARM_BOARD, row["model"], row["model"], ARM_THREADS, cores, _ARM_MEMORY, older=False,
                    amounts=work[_TWINS[row["model"]]], seconds=float(row["latency_ms_min"]) / 1e3)
            )  # fmt: skip
    return runs(rows)


def unit_errors(costs: Costs, per_amount: Array) -> Array:
    """Return |predicted / measured - 1| of each unit that takes 1 % of its model or more.

    Each is predicted from a fit without its model; *per_amount* is what each term takes at the
    hardware's peak, per amount.
    """
    errors: list[float] = []
    for name, units in x86_units().items():
        predicted = np.array([unit.amounts for unit in units]) @ (costs.without[name] * per_amount)
        measured = np.array([unit.seconds for unit in units])
        long = measured > 0.01 * measured.sum()
        errors.extend(np.abs(predicted[long] / measured[long] - 1).tolist())
    return np.array(errors)


PHONES = ("Galaxy S23", "Galaxy S24")
_CARRIED = "huggingface_wavlm_base_plus"  # matrix products nearly all; its graph is not at hand


def carried(latencies: list[dict[str, str]], machines: Machines) -> list[tuple[str, tuple[Core, ...], float]]:
    """Return phones that ran the same float model as the board: cores of four threads, and time over the board's."""
    found: dict[str, float] = {}
    for row in latencies:
        if (
            row["model"] == _CARRIED
            and row["runtime"] == "onnxruntime"
            and row["precision"] in ("fp32", "float")
        ):
            found[row["device"]] = float(row["latency_ms_min"])
    return [
        (phone, machines.listed(phone)[:ARM_THREADS], found[f"Samsung {phone}"] / found[ARM_BOARD])
        for phone in PHONES
        if f"Samsung {phone}" in found
    ]


@dataclass(frozen=True, slots=True)
class Gpu:
    """ONNX Runtime on graphics chips: one cost for all that multiplies, one per unit started.

    Attributes:
        log_ratio: of each run, predicted from the other chip's runs.
    """

    cost: float
    unit_s: float
    log_ratio: Array


_UNITS_PER_LAYER = 12  # of an encoder: 6 products, 2 normalizations, softmax, gelu, 2 transposes
_BYTES = 4


def fit_gpu() -> Gpu:
    """Fit transformer encoders on two chips."""
    table = read(DATA, "gpu.csv")
    number = {
        name: np.array([float(row[name]) for row in table])
        for name in table[0]
        if name not in ("gpu", "model")
    }
    tokens, hidden, layers = number["batch"] * number["tokens"], number["hidden"], number["layers"]
    macs = layers * tokens * (12 * hidden**2 + 2 * number["tokens"] * hidden)
    ideal = macs / (number["peak_tflops"] / 2 * 1e12)
    weights_s = layers * 12 * hidden**2 * _BYTES / (number["memory_gb_s"] * GHZ)
    units, measured = layers * _UNITS_PER_LAYER, number["milliseconds"] / 1e3
    chips = np.array([row["gpu"] for row in table])

    def solve(rows: Mask) -> Array:
        scaled = np.stack([ideal, units], axis=1)[rows] / measured[rows, None]
        return np.asarray(np.linalg.lstsq(scaled, 1 - (weights_s / measured)[rows], rcond=None)[0])

    ratios = np.zeros(len(table))
    for chip in sorted(set(chips)):
        cost, unit_s = solve(chips != chip)
        ratios[chips == chip] = np.log(measured / (ideal * cost + units * unit_s + weights_s))[chips == chip]
    cost, unit_s = solve(np.ones(len(table), bool))
    return Gpu(float(cost), float(unit_s), ratios)
