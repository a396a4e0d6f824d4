"""`splitc targets`: list machines and networks, show one of them, or check a description."""

from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table

from splitc.cli.arguments.targets import CHECK, TargetsArguments
from splitc.cli.facts.targets import (
    CheckedFacts,
    MistakenFacts,
    NetworkFacts,
    TargetFacts,
    TargetsFacts,
    network_facts,
    target_facts,
)
from splitc.cli.streams import say, tell
from splitc.cli.terminal import Text, new_table, print_json, results
from splitc.common.errors import TargetError
from splitc.common.formatting import format_bytes, format_rate, format_seconds, format_si, plural
from splitc.common.resources import shipped
from splitc.profile.availability import times_here
from splitc.profile.store import Store
from splitc.profile.targets.check import CheckedDescription, check_description
from splitc.profile.targets.description import (
    Cluster,
    Descriptor,
    Network,
    Target,
    load_network,
    load_target,
    network_names,
    network_paths,
    own_folder,
    target_paths,
)
from splitc.profile.targets.quantity import Quantity, Spread

_FAILED = 1


def run(arguments: TargetsArguments) -> None:
    """List, show or check descriptions of machines and networks."""
    store = Store(arguments.cache_dir)
    words, as_json = arguments.words, arguments.as_json
    if not words:
        _list(store, as_json=as_json)
    elif words[0] == CHECK:
        if len(words) == 1:
            raise click.UsageError("check needs a file, such as `splitc targets check board.toml`")
        checked = [check_description(Path(word)) for word in words[1:]]
        _tell(checked, store, as_json=as_json)
        if any(item.mistakes for item in checked):
            raise click.exceptions.Exit(_FAILED)
    elif len(words) > 1:
        raise click.UsageError(f"give one name at a time; '{words[1]}' is a second one")
    else:
        _show(words[0], store, as_json=as_json)


def _list(store: Store, *, as_json: bool) -> None:
    if as_json:
        print_json(_all_facts(store))
        return
    console = results()
    machines = new_table("name", "kind", "runs on", "times", "description")
    for row in sorted(_target_rows(store), key=lambda row: _KINDS.index(row[1])):
        machines.add_row(*(Text(cell) for cell in row))
    console.print(machines)
    links = new_table("network", "up", "down", "RTT", "description", right=("up", "down", "RTT"))
    for row in _network_rows():
        links.add_row(*(Text(cell) for cell in row))
    console.print(links)
    own = [path for path in (*target_paths().values(), *network_paths().values()) if _is_own(path)]
    if own:
        say(f"your own, from {own_folder()}: {', '.join(sorted(path.stem for path in own))}")


def _all_facts(store: Store) -> TargetsFacts:
    machines: list[TargetFacts] = []
    links: list[NetworkFacts] = []
    mistaken: list[MistakenFacts] = []
    # A mistake in a file of the user's own must not hide the others.
    for name, path in target_paths().items():
        try:
            machines.append(_target_facts(load_target(name), path, store))
        except TargetError as error:
            mistaken.append(MistakenFacts(name, str(path), str(error)))
    for name, path in network_paths().items():
        try:
            links.append(network_facts(load_network(name), path))
        except TargetError as error:
            mistaken.append(MistakenFacts(name, str(path), str(error)))
    return TargetsFacts(tuple(machines), tuple(links), tuple(mistaken))


_MISTAKEN = "mistaken"
_KINDS = ("device", "cloud", _MISTAKEN)


def _target_rows(store: Store) -> Iterator[tuple[str, ...]]:
    for name, path in target_paths().items():
        try:
            target = load_target(name)
        except TargetError as error:  # a mistake in one of the user's files must not hide the others
            yield name, _MISTAKEN, "", "", _advice(error, path)
        else:
            times = times_here(target, store).partition(":")[0]  # without the reason
            yield name, target.kind, _runs_on(target), times, target.description


def _network_rows() -> Iterator[tuple[str, ...]]:
    for name, path in network_paths().items():
        try:
            link = load_network(name)
        except TargetError as error:
            yield name, "", "", "", _advice(error, path)
        else:
            yield name, *_rates(link), link.description


def _advice(error: TargetError, path: Path) -> str:
    return f"{error}; see `splitc targets check {path}`"


def _runs_on(target: Target) -> str:
    provider = target.provider.removesuffix("ExecutionProvider")
    return provider if target.threads is None else f"{provider}, {plural(target.threads, 'thread')}"


def _rates(link: Network) -> tuple[str, str, str]:
    up, down, rtt = link.uplink_bps.typical, link.downlink_bps.typical, link.rtt_s.typical
    return format_rate(up), format_rate(down), format_seconds(rtt)


def _is_own(path: Path) -> bool:
    return not path.is_relative_to(shipped("targets"))


def _show(name: str, store: Store, *, as_json: bool) -> None:
    path, item = _load(name)
    if as_json:
        print_json(_facts(item, path, store))
        return
    console = results()
    console.print(f"{item.name}: {item.description}")
    facts = Table.grid(padding=(0, 2), pad_edge=True)
    for fact, value in _machine_facts(item, store) if isinstance(item, Target) else ():
        facts.add_row(fact, Text(value))
    facts.add_row("file", Text(str(path)))
    console.print(facts)
    numbers = list(_machine_numbers(item) if isinstance(item, Target) else _link_numbers(item))
    if numbers:
        table = new_table("what", "value", "how known", "source", right=("value",))
        for row in numbers:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def _machine_facts(target: Target, store: Store) -> Iterator[tuple[str, str]]:
    threads = "" if target.threads is None else f", {plural(target.threads, 'thread')}"
    yield "kind", target.kind
    yield "runs on", f"{target.runtime}, {target.provider}{threads}"
    yield "times", times_here(target, store)
    if target.descriptor is not None:
        yield "coefficients", f"{target.descriptor.coefficients}: how fast the runtime is on this hardware"
        if target.descriptor.caveat is not None:
            yield "caveat", target.descriptor.caveat


def _load(name: str) -> tuple[Path, Target | Network]:
    """The machine or network with this name, or in this file, and the file's path."""
    if name.endswith(".toml"):
        path = Path(name)
        described = check_description(path).described
        return path, described if described is not None else load_target(path)
    if name in network_names():
        return network_paths()[name], load_network(name)
    target = load_target(name)
    return target_paths()[name], target


_Row = tuple[str, str, str, str]


def _machine_numbers(target: Target) -> Iterator[_Row]:
    if target.descriptor is not None:
        yield from _descriptor_numbers(target.descriptor)
    if target.active_w is not None:
        yield _number("power while computing", format_si(target.active_w.value, "W"), target.active_w)


def _descriptor_numbers(descriptor: Descriptor) -> Iterator[_Row]:
    for cluster in descriptor.clusters:
        yield from _cluster_numbers(cluster)
    speed, size = descriptor.memory_bytes_per_s, descriptor.memory_bytes
    yield _number("memory bandwidth", f"{format_bytes(speed.value)}/s", speed)
    if size is not None:
        yield _number("memory", format_bytes(size.value), size)


def _cluster_numbers(cluster: Cluster) -> Iterator[_Row]:
    name = f"{cluster.cores}x {cluster.core}" if cluster.cores > 1 else cluster.core
    if cluster.clock_hz is not None:
        yield _number(f"{name}: clock", format_si(cluster.clock_hz.value, "Hz"), cluster.clock_hz)
    each = "peak of each" if cluster.cores > 1 else "peak"
    peak = cluster.peak_macs_per_s
    yield _number(f"{name}: {each}, fp32", format_si(peak.value, "MAC/s"), peak)


def _link_numbers(link: Network) -> Iterator[_Row]:
    for what, spread, show in (
        ("uplink", link.uplink_bps, format_rate),
        ("downlink", link.downlink_bps, format_rate),
        ("round trip", link.rtt_s, format_seconds),
    ):
        ends = [show(end) if end is not None else "?" for end in (spread.low, spread.high)]
        span = "" if spread.low is None and spread.high is None else f" ({ends[0]} to {ends[1]})"
        yield _number(what, show(spread.typical) + span, spread)
    for what, cost in (
        ("uplink energy", link.uplink_j_per_byte),
        ("downlink energy", link.downlink_j_per_byte),
    ):
        if cost is not None:
            yield _number(what, f"{cost.value * 1e6:.3g} µJ/B", cost)


def _number(what: str, value: str, known: Quantity | Spread) -> _Row:
    return what, value, known.confidence, known.source


def _facts(item: Target | Network, path: Path, store: Store) -> TargetFacts | NetworkFacts:
    return _target_facts(item, path, store) if isinstance(item, Target) else network_facts(item, path)


def _target_facts(target: Target, path: Path, store: Store) -> TargetFacts:
    return target_facts(target, path, times_here(target, store))


def _tell(checked: list[CheckedDescription], store: Store, *, as_json: bool) -> None:
    if as_json:
        print_json(tuple(CheckedFacts(str(item.path), item.mistakes, item.warnings) for item in checked))
        return
    for item in checked:
        for mistake in item.mistakes:
            tell(f"error: {' '.join(mistake.split())}")
        for warning in item.warnings:
            tell(f"warning: {' '.join(warning.split())}")
        if item.described is not None:
            say(f"{item.path}: {_praise(item.described, item.path, store)}")


def _praise(described: Target | Network, path: Path, store: Store) -> str:
    if isinstance(described, Network):
        up, down, rtt = _rates(described)
        return f"the description of a network is correct: {up} up, {down} down, {rtt} RTT; use it with `--network {path}`"
    option = f"use it with `--{described.kind} {path}`"
    if described.descriptor is None:
        return f"the description of a {described.kind} is correct; times: {times_here(described, store)}; {option}"
    cores = ", ".join(f"{cluster.cores}x {cluster.core}" for cluster in described.descriptor.clusters)
    return f"the description of a {described.kind} is correct: {cores}, times {times_here(described, store)}; {option}"
