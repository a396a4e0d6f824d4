"""How close to the physical limit? A request against what it cannot do without, each measured alone.

Head and tail alone in ONNX Runtime, each on the core where it also runs in a request, with pauses as long as a
request: after a pause a run is slower, because caches are cold. The round trip of a byte and the rates of long
transfers over TCP, in Python, on the same link. All of it in turns.

What is over is not the run time's alone: the column "of it TCP" is by how much a plain exchange of the same bytes
over one TCP connection, kept for that, is slower than round trip and rates say; the kernel's congestion control decides that.
The server's side keeps its windows over pauses, as docs/running.md advises for servers.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.running.models import Compiled
from benchmarks.running.networks import link, start, typical
from benchmarks.running.programs import (
    CLOUD_CORE,
    DEVICE_CORE,
    PORT,
    Program,
    Start,
    here,
    running,
    serving,
)
from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import CutEntry
from splitc.common.errors import TestBedError
from splitc.testbed.bed import Bed

LOOPBACK = "loopback"
LINKS = (LOOPBACK, "wifi", "5g")
LIMIT_S, LIMIT_SHARE = 1e-3, 0.05
ROUNDS = 3  # of turns
LOOPBACK_ROUNDS = 15  # there a millisecond counts, by which head and tail differ from turn to turn
# The first request after a pause finds the device's windows closed, and the second may; the median is of what follows.
LEAST = 6
_LOOPBACK = Conditions(uplink_bps=1e10, downlink_bps=1e10, rtt_s=1e-4)
_SLOW_START_AFTER_IDLE = "/proc/sys/net/ipv4/tcp_slow_start_after_idle"
_BULK_S, _LEAST_BULK_BYTES, _MOST_BULK_BYTES = 0.3, 1 << 17, 1 << 25


@dataclass(frozen=True, slots=True)
class Parts:
    """One turn of measurements, or medians over all of them."""

    request_s: float
    head_s: float
    tail_s: float
    rtt_s: float
    uplink_s: float
    downlink_s: float
    exchange_s: float

    @property
    def link_s(self) -> float:
        """What the bytes cannot do without."""
        return self.rtt_s + self.uplink_s + self.downlink_s

    @property
    def least_s(self) -> float:
        """What a request cannot do without."""
        return self.head_s + self.tail_s + self.link_s


@dataclass(frozen=True, slots=True)
class Row:
    """A cut on a link; *parts* are medians, *over_s* the median of what each turn took beyond its parts."""

    model: str
    link: str
    cut: str
    parts: Parts
    over_s: float
    over_in_tcp_s: float

    @property
    def allowed_s(self) -> float:
        """The limit."""
        return max(LIMIT_S, LIMIT_SHARE * self.parts.least_s)


@dataclass(frozen=True, slots=True)
class _Place:
    """Both sides of a link, and a server."""

    network: str
    conditions: Conditions
    device: Program
    cloud: Program
    server: str


def measure(models: Sequence[Compiled], folder: Path, seconds: float) -> Iterator[Row]:
    """Measure every cut with a tail on every link, each for about so many *seconds*."""
    for network in LINKS:
        with _place(network, models, folder) as place:
            for model in models:
                for cut in model.cuts:
                    if cut.tail is not None:
                        yield _row(place, model, cut, folder, seconds)


@contextmanager
def _place(network: str, models: Sequence[Compiled], folder: Path) -> Iterator[_Place]:
    bundles = [model.folder for model in models]
    if network == LOOPBACK:
        with _sides(here, here, "127.0.0.1", bundles, folder, port=0) as (device, cloud, server):
            yield _Place(network, _LOOPBACK, device, cloud, server)
        return
    with Bed(link(typical(network))) as bed:
        _keep_windows(bed)
        starts = partial(bed.start, "device"), partial(bed.start, "cloud")
        with _sides(*starts, bed.cloud_address, bundles, folder, port=PORT) as (device, cloud, server):
            yield _Place(network, typical(network), device, cloud, server)


def _keep_windows(bed: Bed) -> None:
    """Set up the server's machine as docs/running.md advises: TCP goes on after a pause as it was before.

    Raises:
        TestBedError: this machine does not allow it.
    """
    process = bed.start(
        "cloud", ["sh", "-c", f"echo 0 > {_SLOW_START_AFTER_IDLE}"], stderr=subprocess.DEVNULL
    )
    if process.wait():
        raise TestBedError(f"{_SLOW_START_AFTER_IDLE} cannot be written in the cloud's namespace")


@contextmanager
def _sides(
    on_device: Start, in_cloud: Start, host: str, bundles: Sequence[Path], folder: Path, *, port: int
) -> Iterator[tuple[Program, Program, str]]:
    with (
        serving(bundles, folder, in_cloud, host, port=port) as server,
        running("cloud", in_cloud, CLOUD_CORE) as cloud,
        running("device", on_device, DEVICE_CORE) as device,
    ):
        device.ask("connect", host=host, port=cloud.ask("listen", host=host))
        yield device, cloud, server


def _row(place: _Place, model: Compiled, cut: CutEntry, folder: Path, seconds: float) -> Row:
    place.device.ask(
        "open",
        name=cut.id,
        bundle=str(model.folder),
        server=place.server,
        start=start(place.conditions),
        cut=cut.id,
    )
    place.cloud.ask("open", bundle=str(model.folder), cut=cut.id, cache=str(folder / "cache" / "served"))
    rounds = LOOPBACK_ROUNDS if place.network == LOOPBACK else ROUNDS
    turns = [_turn(place, model, cut, seconds / ROUNDS) for _ in range(1 + rounds)][1:]
    place.device.ask("close", name=cut.id)
    over_s = median(turn.request_s - turn.least_s for turn in turns)
    over_in_tcp_s = median(turn.exchange_s - turn.link_s for turn in turns)
    return Row(model.name, place.network, cut.id, _medians(turns), over_s, over_in_tcp_s)


def _turn(place: _Place, model: Compiled, cut: CutEntry, seconds: float) -> Parts:
    """A quarter of the time each for requests, the head, the tail and the link.

    Head and tail pause as long as a request takes, since in a request each waits for the other and the link.
    """
    device, share_s = place.device, seconds / 4
    rows: list[Any] = device.ask("requests", name=cut.id, seconds=share_s, least=LEAST)
    answered = [row["latency_s"] for row in rows[1:] if row["fallback"] is None]
    if not answered:
        raise TestBedError(f"the cloud answered no request for {model.name}, {cut.id}, over {place.network}")
    request_s = median(answered)
    paced = {"cut": cut.id, "seconds": share_s, "pause_s": request_s}
    head_s = device.ask("head", name=cut.id, bundle=str(model.folder), **paced)
    tail_s = place.cloud.ask("run", form="served", **paced)["median_s"]
    rtt_s = median(device.ask("exchange", use="rates", uplink_bytes=1, downlink_bytes=1, times=LEAST + 2))
    same = {"uplink_bytes": cut.uplink_bytes, "downlink_bytes": cut.downlink_bytes}
    exchange_s = median(device.ask("exchange", use="requests", times=LEAST + 1, **same)[1:])
    return Parts(
        request_s=request_s,
        head_s=head_s,
        tail_s=tail_s,
        rtt_s=rtt_s,
        uplink_s=8 * cut.uplink_bytes / _rate(device, place.conditions.uplink_bps, rtt_s, up=True),
        downlink_s=8 * cut.downlink_bytes / _rate(device, place.conditions.downlink_bps, rtt_s, up=False),
        exchange_s=exchange_s,
    )


def _rate(device: Program, expected_bps: float, rtt_s: float, *, up: bool) -> float:
    """Bits per second of transfers that are much longer than a request's; the first one, which starts slowly, is left out."""
    size = round(min(max(_BULK_S * expected_bps / 8, _LEAST_BULK_BYTES), _MOST_BULK_BYTES))
    given = {"uplink_bytes": size, "downlink_bytes": 1} if up else {"uplink_bytes": 1, "downlink_bytes": size}
    took_s: float = median(device.ask("exchange", use="rates", times=3, **given)[1:])
    return 8 * size / (took_s - rtt_s)


def _medians(turns: Sequence[Parts]) -> Parts:
    return Parts(**{item.name: median(getattr(turn, item.name) for turn in turns) for item in fields(Parts)})


# --- tables ---


def table(rows: Sequence[Row]) -> Table:
    found = Table(title="Close to the physical limit, ms", title_justify="left")
    left = ("model", "link", "cut")
    for column in (
        *left,
        "request",
        "head",
        "up",
        "round trip",
        "tail",
        "down",
        "over",
        "of it TCP",
        "allowed",
    ):
        found.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        parts = row.parts
        times = (
            parts.request_s,
            parts.head_s,
            parts.uplink_s,
            parts.rtt_s,
            parts.tail_s,
            parts.downlink_s,
            row.over_s,
            row.over_in_tcp_s,
            row.allowed_s,
        )
        found.add_row(row.model, row.link, row.cut, *(f"{1e3 * value:.2f}" for value in times))
    return found


def verdict(rows: Sequence[Row]) -> str:
    over = [row for row in rows if row.over_s > row.allowed_s]
    worst = max(rows, key=lambda row: row.over_s / row.allowed_s)
    return (
        f"physical limit: {len(rows) - len(over)} of {len(rows)} within it by 1 ms or 5 %; worst "
        f"{1e3 * worst.over_s:+.2f} of {1e3 * worst.allowed_s:.2f} ms ({worst.model}, {worst.link}, {worst.cut})"
    )
