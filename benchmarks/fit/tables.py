"""Measured runs as numbers: amounts of work, the machine, seconds."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fit.machines import Board, Core, Machines, Unclear, with_memory
from splitc.profile.targets.coefficients import TERMS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PEAK, MEMORY, CLOCK = "peak", "memory", "clock"
PER = {
    name: CLOCK
    if name == "unit"
    else MEMORY
    if name in ("dense_traffic", "traffic", "moved", "weights", "other")
    else PEAK
    for name in TERMS
}
_CLASSES = {
    # kind of layer in ncnn_layer_costs.csv: class of operators
    "dw": "depthwise", "pw": "pointwise", "c3s1": "dense3x3", "cK": "conv", "group": "grouped",
    "fc": "matmul", "gemm": "matmul", "attn": "matmul",
}  # fmt: skip
_FREE = frozenset({"Input", "Split", "MemoryData", "Noop", "Reshape", "Flatten"})
_TRANSCENDENTAL = frozenset({"Swish", "Sigmoid", "GELU", "Softmax", "LRN"})
_NEWER = "FastestDet"  # tables of older ncnn versions lack this model

CORE_BYTES_PER_CYCLE = 8.0
"""What one core can draw from memory at best: some ten lines of 64 bytes under way, 70 to 100 ns each."""

ARM = ("in-order", "narrow", "wide", "big")
X86 = ("amd", "intel")
LEFT_OUT = {
    "32-bit": "a 32-bit core: ncnn runs other kernels there, and no target is like it",
    "undocumented": "a core of the vendor's own whose pipes nobody has described",
    "apple": "Apple's core: how far it is off is reported apart",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: a model on a machine.

    Attributes:
        device: the table's heading; runs of one device are held out together.
        table: device, threads and cores: runs of one table share an error of its own.
        cores: those that ran, fastest first.
        older: from a table of an older version of the runtime.
        amounts: of each term, in the order of `TERMS`, at the precision that ran.
    """

    device: str
    table: str
    model: str
    threads: int
    cores: tuple[Core, ...]
    memory: float
    older: bool
    amounts: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs as columns.

    Attributes:
        ideal: seconds of each term at the hardware's peak (runs x terms).
        gain: peak of all used cores over that of the first.
    """

    rows: tuple[Run, ...]
    ideal: Array
    gain: Array
    log_seconds: Array

    def where(self, wanted: Iterable[bool]) -> "Runs":
        """The runs for which *wanted* is true."""
        mask = np.fromiter(wanted, bool)
        rows = tuple(row for row, chosen in zip(self.rows, mask, strict=True) if chosen)
        return Runs(rows, self.ideal[mask], self.gain[mask], self.log_seconds[mask])

    def column(self, name: str) -> NDArray[np.str_]:
        """One field of every row, as text: device, table, model, threads, core or family."""
        if name in ("core", "family"):
            first = [row.cores[0] for row in self.rows]
            return np.array([core.name if name == "core" else core.family for core in first])
        return np.array([str(getattr(row, name)) for row in self.rows])


def read(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of one table."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def runs(rows: Sequence[Run]) -> Runs:
    """Turn rows into columns."""
    ideal = np.zeros((len(rows), len(TERMS)))
    for index, row in enumerate(rows):
        first = row.cores[0]
        drawn = CORE_BYTES_PER_CYCLE * sum(core.hertz for core in row.cores)
        memory = min(row.memory, drawn)
        hardware = {PEAK: first.peak * (2 if first.half else 1), MEMORY: memory, CLOCK: first.hertz}
        ideal[index] = [amount / hardware[PER[name]] for name, amount in zip(TERMS, row.amounts, strict=True)]
    gain = np.array([sum(core.peak for core in row.cores) / row.cores[0].peak for row in rows])
    return Runs(tuple(rows), ideal, gain, np.log([row.seconds for row in rows]))


def ncnn_amounts(folder: Path) -> dict[str, tuple[float, ...]]:
    """Return the amounts of every ncnn model in single precision, from its layers."""
    models: dict[str, dict[str, float]] = {}
    for layer in read(folder, "ncnn_layer_costs.csv"):
        found = models.setdefault(layer["model"], dict.fromkeys(TERMS, 0.0))
        if layer["type"] in _FREE:
            continue
        values, written = float(layer["inel"]) + float(layer["outel"]), float(layer["outel"])
        found["unit"] += 1
        if layer["kind"] in _CLASSES:
            name = _CLASSES[layer["kind"]]
            found[name] += float(layer["macs"])
            found["dense_traffic" if name == "dense3x3" else "traffic"] += 4 * values
            found["weights"] += 4 * float(layer["w"])
        else:
            found["moved"] += 4 * values
            found["transcendental"] += written if layer["type"] in _TRANSCENDENTAL else 0
    return {model: tuple(found.values()) for model, found in models.items()}


def ncnn_runs(
    latencies: list[dict[str, str]], machines: Machines, folder: Path, families: Sequence[str]
) -> tuple[Runs, dict[str, str]]:
    """Return ncnn's floating-point runs on cores of these *families*, and why other machines are left out.

    A run is used where it is clear which cores ran it: the threads were pinned to cores of one half of
    the clocks, or all cores are of one kind, and there is a core for each thread.
    """
    boards: dict[str, Board] = {}
    excluded: dict[str, str] = {}
    rows = [
        row
        for row in latencies
        if row["runtime"] == "ncnn" and row["precision"] != "int8" and row["backend"] == "cpu"
    ]
    for heading in dict.fromkeys(row["device"] for row in rows):
        try:
            boards[heading] = machines.board(heading)
        except Unclear as error:
            excluded[heading] = str(error)
    boards = with_memory(boards)
    costs = ncnn_amounts(folder)
    newer = {_table(row) for row in rows if row["model"] == _NEWER}
    found: list[Run] = []
    unclear: dict[str, str] = {}
    for row in rows:
        if row["device"] not in boards or row["model"] not in costs:
            continue
        board, threads = boards[row["device"]], int(row["threads"])
        powersave = int((re.search(r"powersave=(\d)", row["notes"]) or ["", "0"])[1])
        cores = board.cores(threads, powersave)
        if not cores or cores[0].family not in families:
            if cores and board.clusters[0][0].family in LEFT_OUT:
                unclear[row["device"]] = LEFT_OUT[board.clusters[0][0].family]
            continue
        if powersave == 0 and board.unequal():
            unclear[row["device"]] = "not pinned: nobody knows which of its unequal cores ran"
            continue
        if len(cores) < threads:
            unclear[row["device"]] = f"{threads} threads on {len(cores)} cores"
            continue
        assert board.memory is not None
        half = 0.5 if cores[0].half else 1.0
        amounts = [
            amount * (half if PER[name] == MEMORY else 1)
            for name, amount in zip(TERMS, costs[row["model"]], strict=True)
        ]
        found.append(
            Run(row["device"], f"{_table(row)}", row["model"], threads, cores, board.memory,
                _table(row) not in newer, tuple(amounts), float(row["latency_ms_min"]) / 1e3)
        )  # fmt: skip
    used = {row.device for row in found}
    return runs(found), excluded | {name: why for name, why in unclear.items() if name not in used}


def _table(row: dict[str, str]) -> str:
    powersave = re.search(r"powersave=\d", row["notes"])
    return f"{row['device']}|{row['threads']}|{powersave[0] if powersave else ''}"
