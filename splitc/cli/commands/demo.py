"""`splitc demo`: run both sides on this machine, and show each decision."""

from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from splitc.bundle.folder import read_bundle
from splitc.cli.arguments.demo import DemoArguments
from splitc.cli.terminal import Text, new_table, print_json, results, stages
from splitc.common.cache import Cache
from splitc.common.formatting import format_rate, format_seconds
from splitc.demo.demo import Moment, demo_bundle, run_demo
from splitc.profile.targets.description import Network, load_network

_SHOWN = 15


def run(arguments: DemoArguments) -> None:
    """Run the demo, and show each request."""
    known = load_network(arguments.network)
    with stages() as progress:
        found = (
            read_bundle(arguments.bundle)
            if arguments.bundle is not None
            else demo_bundle(arguments.cache_dir / "demo", Cache(arguments.cache_dir), progress)
        )
        moments = iter(
            run_demo(found, known, slowdown=arguments.slowdown, seconds=arguments.duration, say=progress)
        )
        first = next(moments)
    console = results()
    if arguments.as_json:
        print_json((first, *moments))
        return
    console.print(
        Text(
            f"{found.manifest.model.name} on a device {arguments.slowdown:g} times slower than this machine; {_about(known)}"
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
    """Show each request as it ends: in a table on a terminal, else one line each."""
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
            live.update(Group(_table(rows), Text("Ctrl-C to stop")))
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
    console.print(Text(f"{len(moments)} requests, all answered"))
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
        console.print(Text(f"{times}, the device finished a request because the cloud did not"))
