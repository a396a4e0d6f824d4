"""`splitc run`: run a bundle as an app does, and show which cuts were chosen and how long they took."""

import contextlib
import math
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import Manifest
from splitc.cli.arguments.run import RunArguments
from splitc.cli.facts.run import RunFacts, request_facts
from splitc.cli.terminal import Text, new_table, print_json, progress_console, results
from splitc.cli.values import token_in
from splitc.common.arrays import read_arrays
from splitc.common.errors import DeadlineExceeded, InputError, ProtocolError, TransportError
from splitc.common.formatting import format_rate, format_seconds
from splitc.common.values import Input, Value, random_feeds
from splitc.profile.targets.description import load_network
from splitc.runtime.http.transport import HttpTransport
from splitc.runtime.session import Outcome, Session

Array = npt.NDArray[Any]

_READY = "/v2/health/ready"
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class _Row:
    """A summary of the requests that used one cut."""

    cut: str
    requests: int
    in_cloud: int
    predicted_s: float | None
    median_s: float
    p95_s: float


def run(arguments: RunArguments) -> None:
    """Run a bundle, and show the requests."""
    if arguments.output is not None:
        _refuse_inputs(arguments.output, arguments.inputs)
    start, token = _start(arguments.network), token_in(arguments.token_file)
    if arguments.wait is not None:
        _await(arguments.server, token, arguments.ca_file, arguments.wait)
    with Session(
        arguments.bundle,
        server=arguments.server,
        token=token,
        ca_file=arguments.ca_file,
        threads=arguments.threads,
        start=start,
        sla_s=arguments.sla,
        deadline_s=arguments.deadline,
        cut=None if arguments.cut == "auto" else arguments.cut,
        custom_ops=arguments.custom_ops,
    ) as session:
        if arguments.server is None:
            _check_alone(session.manifest, arguments.cut)
        feeds = _feeds(session.manifest, arguments.inputs)
        outcomes = list(_requests(session, feeds, arguments.repeat))
        seen = session.conditions()
    if arguments.output is not None:
        _save(arguments.output, outcomes[-1].outputs)
    if arguments.as_json:
        print_json(RunFacts(tuple(map(request_facts, outcomes)), seen))
    else:
        _show(outcomes, seen, arguments.output, results())


def _requests(session: Session, feeds: Mapping[str, Array], repeat: int) -> Iterator[Outcome]:
    console = progress_console()
    for _ in track(
        range(repeat), "Running", console=console, transient=True, disable=not console.is_terminal
    ):
        yield session.request(feeds)


# --- from arguments to options ---


def _check_alone(manifest: Manifest, cut: str) -> None:
    if any(entry.id == cut and entry.cloud is not None for entry in manifest.cuts):
        raise click.UsageError(f"cut {cut} needs the cloud: add --server, or leave out --cut")


def _start(network: str | None) -> Conditions | None:
    if network is None:
        return None
    known = load_network(network)
    return Conditions(known.uplink_bps.typical, known.downlink_bps.typical, known.rtt_s.typical)


def _await(server: str | None, token: str | None, ca_file: Path | None, patience_s: float) -> None:
    """Wait until *server* is ready.

    Raises:
        DeadlineExceeded: it was not ready in time.
    """
    if server is None:
        raise click.UsageError("--wait needs --server")
    transport = HttpTransport(server, token=token, ca_file=ca_file)
    deadline_s = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline_s:
            with contextlib.suppress(TransportError, ProtocolError, DeadlineExceeded):
                if transport.exchange("GET", _READY, {}, (), deadline_s=deadline_s).status == HTTPStatus.OK:
                    return
            time.sleep(_PAUSE_S)
    finally:
        transport.close()
    raise DeadlineExceeded(
        f"{server} was not ready within {format_seconds(patience_s)}; start it with `splitc serve`, or wait longer"
    )


def _feeds(manifest: Manifest, given: Sequence[tuple[str, Path]]) -> dict[str, Array]:
    """The given inputs, and random values of the manifest's sizes for all others."""
    others = [
        Input(item.name, item.dtype, item.shape)
        for item in manifest.model.inputs
        if item.name not in dict(given)
    ]
    feeds: dict[str, Array] = random_feeds(others, manifest.model.dims, 0)
    return feeds | {name: _read(path) for name, path in given}


def _read(path: Path) -> Array:
    try:
        value = read_arrays(path)
    except ValueError as error:
        raise InputError(
            f"{path}: cannot be read as .npy: {error}; save one array with numpy.save"
        ) from error
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path}: contains several arrays; save one array with numpy.save")
    return value


# --- the result ---


def _refuse_inputs(output: Path, given: Sequence[tuple[str, Path]]) -> None:
    for _, path in given:
        if output.resolve() == path.resolve():
            raise click.UsageError(f"-o {output} is also an input; choose another file")


def _save(path: Path, outputs: Mapping[str, Value]) -> None:
    """Write *outputs* as numpy.savez does, but to exactly *path*, whole or not at all, and whatever their names are."""
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".partial-") as work:
        written = Path(work) / place.name
        with zipfile.ZipFile(written, "w") as archive:
            for name, value in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asarray(value))
        written.replace(place)


def _show(outcomes: Sequence[Outcome], seen: Conditions, output: Path | None, console: Console) -> None:
    console.print(_table(outcomes))
    for reason, count in Counter(item.fallback for item in outcomes if item.fallback).most_common():
        console.print(Text(f"fell back {count} times: {reason}", style="yellow"), soft_wrap=True)
    console.print(
        f"measured: uplink {format_rate(seen.uplink_bps)}, downlink {format_rate(seen.downlink_bps)}, round trip "
        f"{format_seconds(seen.rtt_s)}; device {seen.device_slowdown:.2f}x and cloud {seen.cloud_slowdown:.2f}x of the times "
        "in the manifest",
        soft_wrap=True,
    )
    for name, value in outcomes[-1].outputs.items():
        console.print(Text(f"output {name}: {value.dtype}{list(value.shape)}"))
    if output is not None:
        console.print(f"wrote {output}")


def _table(outcomes: Sequence[Outcome]) -> Table:
    numbers = ("requests", "in the cloud", "predicted", "median", "95th percentile")
    table = new_table("cut", "kind", *numbers, right=numbers)
    kinds = {item.decision.cut.id: item.decision.cut.words for item in outcomes}
    for row in _rows(outcomes):
        table.add_row(
            row.cut,
            kinds[row.cut],
            str(row.requests),
            str(row.in_cloud),
            "-" if row.predicted_s is None else format_seconds(row.predicted_s),
            format_seconds(row.median_s),
            format_seconds(row.p95_s),
        )
    return table


def _rows(outcomes: Sequence[Outcome]) -> Iterator[_Row]:
    for cut in sorted({item.decision.cut.id for item in outcomes}):
        own = [item for item in outcomes if item.decision.cut.id == cut]
        took = [item.latency_s for item in own]
        # Infinite while the server is not contacted.
        predicted = [item.decision.latency_s for item in own if math.isfinite(item.decision.latency_s)]
        yield _Row(
            cut,
            len(own),
            sum(item.exchange is not None for item in own),
            median(predicted) if predicted else None,
            median(took),
            float(np.percentile(took, 95)),
        )
