"""From the heading of a benchmark table to the cores that ran and the memory behind them.

A heading such as "Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)" describes the
clusters itself. data/machines.csv adds what headings lack: memory, vendors' names of Arm's cores,
clusters of machines whose headings name none. data/cores.csv tells what a core does per cycle.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

DATA = Path(__file__).resolve().parent.parent / "data"
GHZ = 1e9

_PART = re.compile(r"\s\+\s|\+")
_CLOCK = re.compile(r"([\d.]+)\s*([GM])hz", re.IGNORECASE)
_COUNT = re.compile(r"(?:[x*\u00d7]\s*|\bx)(\d+)(?!\s*[\d.]*\s*[GM]hz)", re.IGNORECASE)
_WORDS = {"single": 1, "dual": 2, "quad": 4, "hexa": 6, "octa": 8}
_NOT_A_CPU = re.compile(
    r"mali|adreno|powervr|ampere|volta|pascal|radeon|immortal|gpu|videocore|tensor cores", re.IGNORECASE
)
_OVERRIDE = re.compile(r"(\d+)x (.+) @ ([\d.]+)")


@dataclass(frozen=True, slots=True)
class Core:
    """One core: its kind, what it does per cycle in single precision, whether it computes in half."""

    name: str
    family: str
    macs_per_cycle: float
    half: bool
    hertz: float

    @property
    def peak(self) -> float:
        """Multiply-accumulates per second, single precision."""
        return self.macs_per_cycle * self.hertz


@dataclass(frozen=True, slots=True)
class Board:
    """A machine of a table: its clusters, fastest core first, and its memory's bandwidth, if known."""

    heading: str
    clusters: tuple[tuple[Core, int], ...]
    memory: float | None

    def cores(self, threads: int, powersave: int) -> tuple[Core, ...]:
        """The cores that run *threads* threads, fastest first.

        ncnn's powersave 2 means those in the upper half of the range of clocks, 1 those in the lower.
        """
        clocks = [core.hertz for core, _ in self.clusters]
        middle = (min(clocks) + max(clocks)) / 2
        if min(clocks) == max(clocks) or powersave == 0:
            chosen = list(self.clusters)
        else:
            chosen = [pair for pair in self.clusters if (pair[0].hertz >= middle) == (powersave == 2)]
        cores = [core for core, count in chosen for _ in range(count)]
        return tuple(sorted(cores, key=lambda core: -core.peak)[:threads])

    def unequal(self) -> bool:
        """Whether its cores are of several kinds."""
        return len({core.name for core, _ in self.clusters}) > 1


class Unclear(Exception):  # noqa: N818 - the name says what happened
    """A machine that cannot be described, and why."""


class Machines:
    """Everything known of machines; `board` looks one up."""

    def __init__(self, folder: Path) -> None:
        """Read data/*.csv here and devices.csv in *folder*."""
        with (DATA / "cores.csv").open(encoding="utf-8", newline="") as file:
            self._kinds = list(csv.DictReader(file))
        with (DATA / "machines.csv").open(encoding="utf-8", newline="") as file:
            self._facts = list(csv.DictReader(file))
        with (folder / "devices.csv").open(encoding="utf-8", newline="") as file:
            self._devices = list(csv.DictReader(file))
        spellings = {name: row for row in self._kinds for name in (row["core"], *row["aliases"].split())}
        spellings |= {row["core"].replace(" ", "-"): row for row in self._kinds}
        self._names: dict[str, dict[str, str]] = dict(
            sorted(spellings.items(), key=lambda item: -len(item[0]))
        )

    def families(self) -> dict[str, str]:
        """Map every core to its family."""
        return {row["core"]: row["family"] for row in self._kinds}

    def spellings(self) -> list[tuple[str, str]]:
        """Every core with its family, under the names that descriptions of machines use."""
        longer = {name: row for name, row in self._names.items() if " " in name or "-" in name}
        return sorted((name, row["family"]) for name, row in longer.items())

    def board(self, heading: str) -> Board:
        """Return the machine that *heading* names.

        Raises:
            Unclear: its cores are not told, or not documented.
        """
        heading = heading.replace("\u2011", "-")
        fact = next((row for row in self._facts if row["heading"] in heading), None)
        if fact and fact["left_out"]:
            raise Unclear(fact["left_out"])
        if fact and fact["clusters"]:
            clusters = [self._override(part) for part in fact["clusters"].split(" + ")]
        else:
            names = re.findall(r"(?:Cortex-|Neoverse )?\S+", fact["cores"]) if fact and fact["cores"] else []
            clusters = self._parsed(heading, names)
        if not clusters:
            raise Unclear("the heading tells no cores")
        memory = float(fact["memory_gb_s"]) * GHZ if fact and fact["memory_gb_s"] else self._memory(heading)
        return Board(heading, tuple(sorted(clusters, key=lambda pair: -pair[0].peak)), memory)

    def listed(self, device: str) -> tuple[Core, ...]:
        """Return the cores of a device in devices.csv, fastest first."""
        cores: list[Core] = []
        for row in self._devices:
            told = re.fullmatch(r"(\d+)x (\S+) @ ([\d.]+) GHz", row["value"])
            if row["device"].strip() == device and re.fullmatch(r"cpu_cluster\d", row["field"]) and told:
                cores += [self.core(told[2], float(told[3]) * GHZ)] * int(told[1])
        return tuple(sorted(cores, key=lambda core: -core.peak))

    def core(self, name: str, hertz: float) -> Core:
        """Return the core called *name* at a clock."""
        row = self._names[name]
        return Core(row["core"], row["family"], float(row["macs_per_cycle"]), row["half"] == "1", hertz)

    def _override(self, text: str) -> tuple[Core, int]:
        found = _OVERRIDE.fullmatch(text)
        assert found is not None, text
        return self.core(found[2], float(found[3]) * GHZ), int(found[1])

    def _parsed(self, heading: str, names: list[str]) -> list[tuple[Core, int]]:
        """Read the clusters off the heading; *names* are their cores where the heading uses a vendor's."""
        clusters: list[tuple[Core, int]] = []
        name = None
        for part in _PART.split(heading):
            clock = _CLOCK.search(part)
            if clock is None or _NOT_A_CPU.search(part):
                continue
            before = len(clusters)
            name = names[min(before, len(names) - 1)] if names else self._named(part) or name
            if name is None:
                return []
            hertz = float(clock[1]) * (GHZ if clock[2] in "Gg" else 1e6)
            clusters.append((self.core(name, hertz), _count(part)))
        return clusters

    def _named(self, part: str) -> str | None:
        for name in self._names:
            if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![0-9])", part):
                return name
        return None

    def _memory(self, heading: str) -> float | None:
        """Look in devices.csv by the name of the chip."""
        for row in self._devices:
            chip = row["soc"].strip()
            if row["field"] == "memory_bandwidth" and len(chip) > 4 and chip in heading:
                return float(row["value"]) * GHZ
        return None


def _count(part: str) -> int:
    counted = _COUNT.findall(part)
    if counted:
        return int(counted[-1])
    return next((count for word, count in _WORDS.items() if word in part.lower()), 1)


def with_memory(boards: dict[str, Board]) -> dict[str, Board]:
    """Fill in unknown memory: the median of known machines whose fastest core is of the same family.

    A family of which no memory is known gets the median of all.
    """
    known: dict[str, list[float]] = {}
    for board in boards.values():
        if board.memory is not None:
            known.setdefault(board.clusters[0][0].family, []).append(board.memory)
    everything = [value for values in known.values() for value in values]
    return {
        name: board
        if board.memory is not None
        else Board(board.heading, board.clusters, median(known.get(board.clusters[0][0].family, everything)))
        for name, board in boards.items()
    }
