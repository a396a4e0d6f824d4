"""Fit the coefficients of `splitc/predict.py` on public tables of measured latencies.

    python benchmarks/fit_targets.py DATA_FOLDER

DATA_FOLDER holds device_latency.csv, model_costs.csv and devices.csv. Needs numpy and scipy.
Two tables answer two questions:

1. ncnn on 15 boards and phones with out-of-order Armv8 cores: how does a time change from one
   device to another, and from one thread to four? Gives `thread_gain`, and the error of carrying
   a prediction to a device that was not in the fit. Boards with the same cores are left out together.
2. ONNX Runtime fp32 on the CPU of one device (RB3 Gen 2): how fast is *this runtime* per class of
   operators? Its depthwise convolutions are several times slower than ncnn's, and it has no
   Winograd 3x3, so ncnn's efficiencies would be wrong. Gives the efficiencies and the overhead,
   and the error on a model that was not in the fit.

The interval is the product of both errors, each from what was held out. What is printed last goes
into targets/pixel7.toml.
"""

import argparse
import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

LANES = 4  # fp32 lanes of a 128-bit vector
PIPES = {"A57": 1, "A72": 1, "A73": 1, "A76": 2, "A78": 2, "A715": 2, "A720": 2, "X3": 4, "X4": 4}
"""128-bit multiply-add pipes per core, as in devices.csv."""

BOARDS: dict[str, tuple[int, tuple[tuple[str, float, int], ...]]] = {
    # start of the device name: (ncnn's powersave setting that uses these cores, ((core, GHz, count), ...))
    "MediaTek Dimensity 9300": (2, (("X4", 3.25, 1), ("X4", 2.85, 3))),
    "NVIDIA Jetson AGX Orin": (0, (("A78", 2.2, 12),)),
    "OrangePi5": (2, (("A76", 2.4, 4),)),
    "Qualcomm MSM8994": (2, (("A57", 2.0, 4),)),
    "Qualcomm MSM8998": (2, (("A73", 2.45, 4),)),
    "Qualcomm SDM660": (2, (("A73", 2.2, 4),)),
    "Qualcomm SM8150": (2, (("A76", 2.96, 1), ("A76", 2.42, 3))),
    "Qualcomm SM8550": (2, (("X3", 3.2, 1), ("A715", 2.8, 4))),
    "Radxa Orion O6": (2, (("A720", 2.6, 4),)),
    "Raspberry Pi 4 ": (0, (("A72", 1.8, 4),)),
    "Raspberry Pi 5 Broadcom BCM2712,": (0, (("A76", 2.4, 4),)),
    "Rockchip RK3399": (2, (("A72", 1.8, 2),)),
    "Rockchip RK3588 (Cortex": (2, (("A76", 2.4, 4),)),
    "Rockchip RK3588 (Quad": (0, (("A76", 2.4, 4),)),
    "Station-M3": (0, (("A76", 2.4, 4),)),
}

TWINS = {
    # AI Hub model: (same architecture in the ncnn table, in torchvision's, activations relative to ncnn's)
    "efficientnet_b0": ("efficientnet_b0", "efficientnet_b0", 1.0),
    "googlenet": ("googlenet", "googlenet", 1.0),
    "mnasnet05": ("mnasnet", "mnasnet0_5", 0.5),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2", 1.0),
    "mobilenet_v3_large": ("mobilenet_v3", "mobilenet_v3_large", 1.0),
    "resnet18": ("resnet18", "resnet18", 1.0),
    "resnet50": ("resnet50", "resnet50", 1.0),
    "shufflenet_v2": ("shufflenet_v2", "shufflenet_v2_x0_5", 0.5),
    "squeezenet1_1": ("squeezenet", "squeezenet1_1", 1.0),
    "vit": ("vision_transformer", "vit_b_16", 197 / 145),  # tokens: 16x16 patches of 224, 32x32 of 384
}
CHECKS = {"resnet101": "resnet101", "resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d",
          "wideresnet50": "wide_resnet50_2", "densenet121": "densenet121", "regnet": "regnet_x_3_2gf",
          "swin_tiny": "swin_t", "swin_small": "swin_s", "swin_base": "swin_b"}  # fmt: skip
"""No depthwise convolutions; only total MACs and weights are known. Used to check, not to fit."""

REFERENCE, REFERENCE_THREADS = "Qualcomm RB3 Gen 2", 4  # threads are not stated: one per big core is assumed
TARGET, TARGET_THREADS = "Pixel 7", 4
MEMORY_BYTES_PER_S = 21.5e9  # devices.csv, Pixel 7: measured_effective_memory_bw


@dataclass(frozen=True, slots=True)
class Table:
    """Measured runs. `macs` has one column per class; `rest_peak` excludes the first core.

    Runs with the same `family` are held out together.
    """

    groups: tuple[str, ...]
    families: tuple[str, ...]
    threads: Array
    first_peak: Array
    rest_peak: Array
    half: Array
    clock_hz: Array
    macs: Array
    nbytes: Array
    units: Array
    seconds: Array


Model = Callable[[Array, Table], Array]


def across_devices(x: Array, table: Table) -> Array:
    """Predict ncnn: five efficiencies, bytes and cycles per unit, thread gain, gain of half precision."""
    efficiency, per_cycle, cycles, gain, half = (
        np.exp(x[:5]),
        np.exp(x[5]),
        np.exp(x[6]),
        np.exp(x[7]),
        np.exp(x[8]),
    )
    peak = (table.first_peak + gain * table.rest_peak) * np.where(table.half > 0, half, 1.0)
    compute = np.asarray((table.macs / efficiency).sum(axis=1)) / peak
    return np.asarray(compute + (table.nbytes / per_cycle + table.units * cycles) / table.clock_hz)


def on_reference(x: Array, table: Table) -> Array:
    """Predict ONNX Runtime on the reference: depthwise and other efficiency, seconds per unit.

    One efficiency for all that becomes a matrix product: ten models do not tell more apart.
    `first_peak` already holds the peak at the reference's thread count.
    """
    compute = (
        table.macs[:, 0] / np.exp(x[0]) + table.macs[:, 1:].sum(axis=1) / np.exp(x[1])
    ) / table.first_peak
    return np.asarray(compute + table.nbytes / MEMORY_BYTES_PER_S + table.units * np.exp(x[2]))


def fit(model: Model, table: Table, start: Array, rows: NDArray[np.bool_]) -> Array:
    """Return the parameters (logarithms) with the smallest robust log error on *rows*."""

    def residuals(x: Array) -> Array:
        # the weak pull towards the start keeps a parameter that the rows do not determine in range
        return np.concatenate([np.log(model(x, table)[rows] / table.seconds[rows]), 0.1 * (x - start)])

    return np.asarray(least_squares(residuals, start, loss="soft_l1", f_scale=0.3).x)


def held_out(model: Model, table: Table, start: Array) -> Array:
    """Return measured over predicted time, each family predicted from a fit without it."""
    predicted = np.zeros(len(table.seconds))
    for family in sorted(set(table.families)):
        rows = np.array([name == family for name in table.families])
        predicted[rows] = model(fit(model, table, start, ~rows), table)[rows]
    return table.seconds / predicted


def read(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of one table."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cores_of(devices: list[dict[str, str]], device: str) -> list[tuple[str, float, float]]:
    """Return (core, Hz, peak MACs/s) of each core of *device*, fastest first."""
    facts = {row["field"]: row["value"] for row in devices if row["device"].strip() == device}
    cores = []
    for key in sorted(key for key in facts if re.fullmatch(r"cpu_cluster\d", key)):
        count, core, ghz = re.fullmatch(r"(\d+)x (\S+) @ ([\d.]+) GHz", facts[key]).groups()  # type: ignore[union-attr]
        cores += [(core, float(ghz) * 1e9, float(facts[f"{key}_peak_fp32_per_core"]) / 2 * 1e9)] * int(count)
    return sorted(cores, key=lambda core: -core[2])


def peak_of(cores: list[tuple[str, float, float]], threads: int, gain: float) -> float:
    """Return the MACs per second of *threads* threads, as `predict.peak_macs_per_s` does."""
    return cores[0][2] + gain * sum(core[2] for core in cores[1:threads])


def by_class(row: dict[str, str]) -> list[float]:
    """Return MACs: depthwise, pointwise, dense 3x3 (stride 1), other convolutions, matrix products."""
    names = (
        "macs_dw_M",
        "macs_pw_M",
        "macs_3x3s1_M",
        "macs_otherconv_M",
        "macs_group_M",
        "macs_fc_gemm_attn_M",
    )
    dw, pw, dense, other, group, matmul = (float(row[name]) * 1e6 for name in names)
    return [dw, pw, dense, other + group, matmul]


def board_table(latencies: list[dict[str, str]], costs: dict[str, dict[str, str]]) -> Table:
    """Return ncnn's runs with one and four threads on the big cores; half precision where ncnn uses it."""
    rows = []
    for row in latencies:
        board = next((name for name in BOARDS if row["device"].startswith(name)), None)
        if (
            board is None
            or row["runtime"] != "ncnn"
            or row["precision"] == "int8"
            or row["threads"] not in ("1", "4")
        ):
            continue
        powersave, clusters = BOARDS[board]
        threads, cost = int(row["threads"]), costs[row["model"]]
        peaks = [LANES * PIPES[core] * ghz * 1e9 for core, ghz, count in clusters for _ in range(count)]
        uses_big = f"powersave={powersave} " in row["notes"] or (board.endswith("(Quad") and threads == 4)
        if uses_big and len(peaks) >= threads:
            half = row["precision"].startswith("fp16")
            moved = sum(
                float(cost[k]) for k in ("weight_bytes_fp32", "act_read_bytes_fp32", "act_write_bytes_fp32")
            )
            nbytes, units = moved / (2 if half else 1), float(cost["n_layers"])
            seconds, clock_hz = float(row["latency_ms_min"]) / 1e3, clusters[0][1] * 1e9
            first, rest = peaks[0], sum(peaks[1:threads])
            macs = by_class(cost)
            rows.append((board, clusters, threads, first, rest, half, clock_hz, macs, nbytes, units, seconds))
    return table_of(rows)


def reference_table(
    latencies: list[dict[str, str]], costs: dict[str, dict[str, str]], peak: float, names: list[str]
) -> Table:
    """Return ONNX Runtime's fp32 runs on the reference, all layers on the CPU, for the models *names*."""
    rows = []
    for row in latencies:
        ours = (
            row["device"] == "RB3 Gen 2 (Proxy)"
            and row["runtime"] == "onnxruntime"
            and row["precision"] == "fp32"
        )
        layers = re.search(r"layers npu/gpu/cpu=0/0/(\d+)", row["notes"])
        if ours and layers and row["model"] in names:
            macs, moved = reference_costs(row["model"], costs)
            seconds = float(row["latency_ms_min"]) / 1e3
            rows.append(
                (row["model"], row["model"], 4, peak, 0.0, False, 1.0, macs, moved, float(layers[1]), seconds)
            )
    return table_of(rows)


def reference_costs(model: str, costs: dict[str, dict[str, str]]) -> tuple[list[float], float]:
    """Return MACs by class and bytes; totals are torchvision's, depthwise share and activations ncnn's."""
    if model in CHECKS:
        total = costs[f"torchvision/{CHECKS[model]}"]
        return [0.0, float(total["macs_M"]) * 1e6, 0.0, 0.0, 0.0], float(total["weight_bytes_fp32"])
    twin, total_name, scale = TWINS[model]
    total, row = costs[f"torchvision/{total_name}"], costs[twin]
    depthwise = float(row["macs_dw_M"]) * 1e6 * scale
    activations = (float(row["act_read_bytes_fp32"]) + float(row["act_write_bytes_fp32"])) * scale
    macs = [depthwise, float(total["macs_M"]) * 1e6 - depthwise, 0.0, 0.0, 0.0]
    return macs, float(total["weight_bytes_fp32"]) + activations


def table_of(rows: Sequence[tuple[object, ...]]) -> Table:
    """Turn rows into columns."""
    groups, families, *columns = zip(*rows, strict=True)
    return Table(
        tuple(map(str, groups)),
        tuple(map(str, families)),
        *(np.array(column, dtype=np.float64) for column in columns),
    )


def percentiles(ratios: Array) -> tuple[float, float]:
    """Return the 5th and 95th percentile, rounded as they are shipped."""
    low, high = np.percentile(ratios, [5, 95])
    return round(float(low), 2), round(float(high), 2)


def fit_boards(boards: Table) -> tuple[float, list[float]]:
    """Print the fit across devices; return the thread gain, and each device's offset with four threads."""
    start = np.log(np.array([0.2, 0.5, 1.0, 0.5, 0.5, 4.0, 1e4, 0.5, 2.0]))
    x = np.exp(fit(across_devices, boards, start, np.ones(len(boards.seconds), dtype=bool)))
    print(
        f"ncnn: {len(boards.seconds)} runs, {len(set(boards.groups))} devices; efficiencies {x[:5].round(3)},"
    )
    print(f"  {x[5]:.1f} bytes/cycle, {x[6]:.0f} cycles/unit, thread gain {x[7]:.2f}, fp16 x{x[8]:.2f}")
    ratios = held_out(across_devices, boards, start)
    offsets: list[float] = []
    for threads in (1, 4):
        chosen = boards.threads == threads
        low, high = percentiles(ratios[chosen])
        error = np.abs(1 / ratios[chosen] - 1).mean()
        print(f"  leaving one processor out, {threads} thread(s): mean error {error:.0%}, x{low} to x{high}")
        groups = sorted({name for name, here in zip(boards.groups, chosen, strict=True) if here})
        masks = [chosen & np.array([name == group for name in boards.groups]) for group in groups]
        offsets = [float(np.exp(np.log(ratios[mask]).mean())) for mask in masks]
        for group, mask, offset in zip(groups, masks, offsets, strict=True):
            print(f"    {group:34} {int(mask.sum()):3} runs  x{offset:.2f}")
    return round(float(x[7]), 2), offsets


def fit_reference(runs: Table, checks: Table) -> tuple[Array, Array]:
    """Print the fit of ONNX Runtime; return its parameters, and the ratio of each held-out model."""
    start = np.log(np.array([0.05, 0.6, 1e-5]))
    x = fit(on_reference, runs, start, np.ones(len(runs.seconds), dtype=bool))
    ratios = held_out(on_reference, runs, start)
    print(
        f"ONNX Runtime on {REFERENCE}: leaving one model out, mean error {np.abs(1 / ratios - 1).mean():.0%}"
    )
    for name, seconds, ratio in zip(runs.groups, runs.seconds, ratios, strict=True):
        print(f"    {name:34} {seconds * 1e3:6.1f} ms  x{ratio:.2f}")
    print("  not in the fit, activations unknown and left out:")
    for name, ratio in zip(checks.groups, checks.seconds / on_reference(x, checks), strict=True):
        print(f"    {name:34}            x{ratio:.2f}")
    return x, ratios


def check_phones(latencies: list[dict[str, str]], devices: list[dict[str, str]], gain: float) -> None:
    """Print how one model, run by ONNX Runtime on three devices, scales against their peaks."""
    runs = {
        row["device"]: float(row["latency_ms_min"])
        for row in latencies
        if row["runtime"] == "onnxruntime"
        and row["precision"] == "fp32"
        and row["model"].endswith("wavlm_base_plus")
    }
    base = runs["RB3 Gen 2 (Proxy)"] * peak_of(cores_of(devices, REFERENCE), REFERENCE_THREADS, gain)
    for phone in ("Galaxy S23", "Galaxy S24"):
        ratio = runs[f"Samsung {phone}"] * peak_of(cores_of(devices, phone), 4, gain) / base
        print(f"  wavlm_base_plus carried from {REFERENCE} to {phone}: x{ratio:.2f}")


def main() -> None:
    """Print the errors of both fits, and the fitted part of the target's description."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    latencies, devices = read(folder, "device_latency.csv"), read(folder, "devices.csv")
    costs = {row["model"]: row for row in read(folder, "model_costs.csv")}
    reference, target = cores_of(devices, REFERENCE), cores_of(devices, TARGET)

    gain, offsets = fit_boards(board_table(latencies, costs))
    peak = peak_of(reference, REFERENCE_THREADS, gain)
    runs = reference_table(latencies, costs, peak, list(TWINS))
    x, across_models = fit_reference(runs, reference_table(latencies, costs, peak, list(CHECKS)))
    check_phones(latencies, devices, gain)
    # the efficiencies hold the reference's own offset, so carrying them over errs by a ratio of two offsets
    moves = np.array([to / at for i, to in enumerate(offsets) for j, at in enumerate(offsets) if i != j])
    print(f"from one device to another {percentiles(moves)}, across models {percentiles(across_models)}")
    depthwise, product, overhead = (float(value) for value in np.exp(x))
    rates = [2e-9 * product * peak_of(target, threads, gain) for threads in (1, TARGET_THREADS)]
    print(f"{TARGET}, matrix products: {rates[0]:.0f} GFLOP/s with one thread, {rates[1]:.0f} with four;")
    print("  runs in an app process reached 16.8 (7 to 18)")

    print(f"for targets/ ({TARGET}):")
    for core, hertz, each in dict.fromkeys(target):
        count = target.count((core, hertz, each))
        print(f"  {count} x {core}: clock_hz {hertz:.4g}, peak_macs_per_s {each:.4g}")
    overhead *= reference[0][1] / target[0][1]
    print(
        f"  thread_gain {gain}, memory_bytes_per_s {MEMORY_BYTES_PER_S:.3g}, unit_overhead_s {overhead:.2g}"
    )
    print(f"  efficiency: depthwise {depthwise:.2g}; pointwise, dense3x3, conv, matmul {product:.2g}")
    low, high = percentiles(np.outer(moves, across_models).ravel())
    print(f"  interval {low} {high}")
    # an operator of which only the bytes are known may do no arithmetic at all, so the lower end stays
    only_bytes = runs.seconds / (runs.nbytes / MEMORY_BYTES_PER_S + runs.units * np.exp(x[2]))
    print(f"  interval_unknown {low} {percentiles(np.outer(moves, only_bytes).ravel())[1]}")


if __name__ == "__main__":
    main()
