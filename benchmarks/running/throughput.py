"""Throughput: `splitc serve` under load against ONNX Runtime in a loop, on the same core, in turns.

Raw is the faster of two, by their medians: the tail's file from the bundle, opened as it is, and the file that the
server prepared of it on this machine, each run over and over on the same input by a program that does nothing else.
Both sides are started several times: where the system puts a process's pages decides how they share the caches, and
alone makes one start of the same program some per cent slower than another.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.running.models import Compiled
from benchmarks.running.programs import CLOUD_CORE, DEVICE_CORE, here, running, serving

CLIENTS = 16
LIMIT_SHARE = 0.90
LEAST_TAIL_S, MOST_PAYLOAD_BYTES = 5e-3, 256 << 10
STARTS = 3
ROUNDS = 9  # over all starts; short ones: within one, the machine should not change its speed
_WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of raw runs and of load."""

    shipped_per_s: float
    prepared_per_s: float
    served_per_s: float
    refused: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A server against raw ONNX Runtime; runs or answers a second, medians over turns."""

    model: str
    cut: str
    payload_bytes: int
    shipped_per_s: float
    prepared_per_s: float
    served_per_s: float
    share: float
    refused: int


@dataclass(frozen=True, slots=True)
class Batching:
    """A server that batches against one that does not; answers a second, medians over turns."""

    model: str
    cut: str
    alone_per_s: float
    batched_per_s: float
    gain: float


def against_raw(models: Sequence[Compiled], folder: Path, seconds: float) -> Iterator[Raw]:
    """Measure the longest fitting tail of each of *models*, for about so many *seconds* each."""
    for model in models:
        cut = fitting(model)
        if cut is None:
            continue
        turns = [turn for _ in range(STARTS) for turn in _turns(model, cut, folder, seconds / ROUNDS / 3)]
        yield compared(model.name, cut, model.cut(cut).uplink_bytes, turns)


def _turns(model: Compiled, cut: str, folder: Path, turn_s: float) -> Iterator[Turn]:
    """Start both sides; measure a part of the turns."""
    bundle = str(model.folder)
    with (
        serving([model.folder], folder, here, "127.0.0.1", "--max-batch", "1", port=0) as server,
        running("cloud", here, CLOUD_CORE) as cloud,
        running("load", here, DEVICE_CORE) as load,
    ):
        cloud.ask("open", bundle=bundle, cut=cut, cache=str(folder / "cache" / "served"))
        load.ask("connect", server=server, bundle=bundle, cut=cut, clients=CLIENTS)
        load.ask("load", seconds=_WARM_S)
        for _ in range(ROUNDS // STARTS):
            shipped = cloud.ask("run", cut=cut, form="shipped", seconds=turn_s)["per_s"]
            served = load.ask("load", seconds=turn_s)
            prepared = cloud.ask("run", cut=cut, form="served", seconds=turn_s)["per_s"]
            yield Turn(shipped, prepared, served["per_s"], served["refused"])


def compared(model: str, cut: str, payload_bytes: int, turns: Sequence[Turn]) -> Raw:
    """The medians over *turns*; the share is that of the raw form which is faster by them, in each turn."""
    shipped_per_s = median(turn.shipped_per_s for turn in turns)
    prepared_per_s = median(turn.prepared_per_s for turn in turns)
    served_per_s = median(turn.served_per_s for turn in turns)
    is_shipped = shipped_per_s > prepared_per_s
    share = median(
        turn.served_per_s / (turn.shipped_per_s if is_shipped else turn.prepared_per_s) for turn in turns
    )
    refused = sum(turn.refused for turn in turns)
    return Raw(model, cut, payload_bytes, shipped_per_s, prepared_per_s, served_per_s, share, refused)


def fitting(model: Compiled) -> str | None:
    """The cut with the longest tail that takes long enough and whose payload is not too large."""
    cuts = [
        cut
        for cut in model.cuts
        if cut.tail is not None
        and cut.tail.latency_s >= LEAST_TAIL_S
        and cut.uplink_bytes <= MOST_PAYLOAD_BYTES
    ]
    return max(cuts, key=lambda cut: cut.tail.latency_s if cut.tail else 0.0).id if cuts else None


def batching(models: Sequence[Compiled], folder: Path, seconds: float) -> Iterator[Batching]:
    """Measure all-tail of each of *models* with and without batches, for about so many *seconds* each."""
    for model in models:
        cut = next(item.id for item in model.cuts if item.kind == "all-tail")
        bundle, turn_s = str(model.folder), seconds / ROUNDS / 2
        with ExitStack() as stack:
            loads = []
            for options in (("--max-batch", "1"), ()):
                server = stack.enter_context(
                    serving([model.folder], folder, here, "127.0.0.1", *options, port=0)
                )
                load = stack.enter_context(running("load", here, DEVICE_CORE))
                load.ask("connect", server=server, bundle=bundle, cut=cut, clients=CLIENTS)
                load.ask("load", seconds=_WARM_S)
                loads.append(load)
            turns = [[load.ask("load", seconds=turn_s)["per_s"] for load in loads] for _ in range(ROUNDS)]
        alone, batched = (median(turn[n] for turn in turns) for n in range(2))
        yield Batching(model.name, cut, alone, batched, median(turn[1] / turn[0] for turn in turns))


# --- tables ---


def raw_table(rows: Sequence[Raw]) -> Table:
    table = Table(
        title=f"Throughput with {CLIENTS} clients on the other core, a second", title_justify="left"
    )
    for column in ("tail", "payload", "raw, as shipped", "raw, as prepared", "served", "share", "refused"):
        table.add_column(column, justify="left" if column == "tail" else "right")
    for row in rows:
        counts = (row.shipped_per_s, row.prepared_per_s, row.served_per_s)
        table.add_row(
            f"{row.model} {row.cut}",
            f"{row.payload_bytes / 1024:.0f} KB",
            *(f"{value:.1f}" for value in counts),
            f"{row.share:.1%}",
            str(row.refused),
        )
    return table


def batching_table(rows: Sequence[Batching]) -> Table:
    table = Table(title=f"What batching gains, {CLIENTS} clients, answers a second", title_justify="left")
    for column in ("tail", "--max-batch 1", "default", "gain"):
        table.add_column(column, justify="left" if column == "tail" else "right")
    for row in rows:
        table.add_row(
            f"{row.model} {row.cut}",
            f"{row.alone_per_s:.1f}",
            f"{row.batched_per_s:.1f}",
            f"{row.gain:.2f}x",
        )
    return table


def verdict(rows: Sequence[Raw]) -> str:
    worst = min(rows, key=lambda row: row.share)
    enough = sum(row.share >= LIMIT_SHARE for row in rows)
    return (
        f"throughput: {enough} of {len(rows)} at {LIMIT_SHARE:.0%} of raw ONNX Runtime or more; "
        f"least {worst.share:.1%} ({worst.model} {worst.cut})"
    )
