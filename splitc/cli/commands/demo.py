"""`splitc demo`: watch the scheduler decide."""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import click
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitc.bundle.folder import read_bundle
from splitc.cli.terminal import examples, new_table, print_json, results, stages
from splitc.cli.values import DURATION, FOLDER, NETWORK
from splitc.common.cache import Cache, default_cache_folder
from splitc.common.formatting import format_rate, format_seconds
from splitc.common.records import encode
from splitc.demo.demo import Moment, demo_bundle, run_demo
from splitc.profile.targets.description import Network, load_network

_SHOWN = 15


@click.command(
    "demo",
    epilog=examples(
        "splitc demo", "splitc demo --network 5g --slowdown 4", "splitc demo --bundle artifacts/regnet-pixel7"
    ),
)
@click.option(
    "--bundle",
    type=FOLDER,
    help="What to run.  [default: a sample, RegNetY-4GF for pixel7, made at first use]",
)
@click.option("--network", default="lte", show_default=True, type=NETWORK, help="Which link to emulate.")
@click.option(
    "--slowdown",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1),
    help="How many times slower than this machine the device is.",
)
@click.option("--seconds", "duration", default="40s", show_default=True, type=DURATION, help="How long.")
@click.option(
    "--cache-dir", type=FOLDER, help="Where the sample is kept.  [default: the user's cache folder]"
)
@click.option("--json", "as_json", is_flag=True, help="Print every request as JSON, at the end.")
def demo_command(
    bundle: Path | None, network: str, slowdown: float, duration: float, cache_dir: Path | None, as_json: bool
) -> None:
    """Run a device and a cloud on this machine over an emulated link, and show each decision.

    The link wanders as a mobile one does, and is lost for a while. Linux only; needs root or user namespaces.
    """
    known = load_network(network)
    folder = cache_dir or default_cache_folder()
    with stages() as progress:
        found = (
            read_bundle(bundle)
            if bundle is not None
            else demo_bundle(folder / "demo", Cache(folder), progress)
        )
        moments = iter(run_demo(found, known, slowdown=slowdown, seconds=duration, say=progress))
        first = next(moments)
    console = results()
    if as_json:
        print_json([encode(item) for item in [first, *moments]])
        return
    console.print(
        Text(
            f"{found.manifest.model.name} on a device {slowdown:g} times slower than this machine; {_about(known)}"
        )
    )
    shown = [first, *_watch(first, moments, console)]
    _sum_up(shown, console)


def _about(network: Network) -> str:
    low, high = (format_rate(value) for value in (network.uplink_bps.lowest, network.uplink_bps.highest))
    return (
        f"{network.name}: uplink mostly {low} to {high}, round trip {format_seconds(network.rtt_s.typical)}"
    )


def _watch(first: Moment, moments: Iterable[Moment], console: Console) -> list[Moment]:
    """Show each request as it ends: in place on a terminal, else a line each."""
    if not console.is_terminal:
        console.print(_line(first))
        seen = []
        for item in moments:
            console.print(_line(item), soft_wrap=True)
            seen.append(item)
        return seen
    rows, seen = deque([first], maxlen=_SHOWN), []
    with Live(console=console, transient=True) as live:
        for item in moments:
            rows.append(item)
            seen.append(item)
            live.update(Group(_table(rows), Text("Ctrl-C ends it")))
    return seen


def _table(rows: Iterable[Moment]) -> Table:
    numbers = ("at", "uplink believed", "predicted", "took")
    table = new_table("at", "link", "uplink believed", "cut", "predicted", "took", "finished", right=numbers)
    for item in rows:
        table.add_row(*_cells(item))
    return table


def _cells(item: Moment) -> tuple[str, ...]:
    request = item.request
    return (
        f"{item.at_s:.1f} s",
        "lost" if item.link_lost else "up",
        format_rate(request.uplink_bps),
        f"{request.cut} {request.kind}",
        format_seconds(request.predicted_s),
        format_seconds(request.latency_s),
        f"on the {request.finished}" if request.finished == "device" else "in the cloud",
    )


def _line(item: Moment) -> Text:
    at, link, uplink, cut, predicted, took, finished = _cells(item)
    return Text(
        f"{at:>7}  link {link:<4}  uplink {uplink:>12}  {cut:<12}  predicted {predicted:>8}  took {took:>8}  {finished}"
    )


def _sum_up(moments: Sequence[Moment], console: Console) -> None:
    console.print(Text(f"{len(moments)} requests, none without an answer"))
    for finished, where in (("cloud", "in the cloud"), ("device", "on the device")):
        took = [item.request.latency_s for item in moments if item.request.finished == finished]
        if took:
            p95_s = float(np.percentile(took, 95))
            console.print(
                Text(
                    f"{len(took)} finished {where}: median {format_seconds(median(took))}, 95th percentile {format_seconds(p95_s)}"
                )
            )
    saved = sum(item.request.fallback is not None for item in moments)
    if saved:
        times = f"{saved} times" if saved != 1 else "once"
        console.print(Text(f"{times} the device finished what the cloud did not"))
