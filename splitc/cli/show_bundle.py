"""Print a bundle for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from splitc.bundle.manifest import BoundaryEntry, CutEntry, Manifest, PartEntry, TargetEntry, TensorEntry
from splitc.cli.terminal import Text, Title, lines, new_table
from splitc.common.formatting import (
    format_bytes,
    format_rate,
    format_seconds,
    format_seconds_range,
    format_share,
    format_source,
    plural,
)
from splitc.compile.compile import Compiled
from splitc.compile.report import leak, leak_meaning, sides
from splitc.compile.verdict import Range, Verdict

_ESTIMATE = "~"
_SHOWN_TENSORS = 4

Tensors = Sequence[TensorEntry | BoundaryEntry]


def show_compiled(compiled: Compiled, console: Console) -> None:
    """Print the shipped cuts, what they achieve on each network, and how reliable these figures are."""
    manifest = compiled.manifest
    show_bundle(manifest, console)
    console.print(_network_table(manifest, compiled.verdicts))
    for item in compiled.verdicts:
        console.print("• " + item.sentence())
    console.print()
    for note in manifest.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(f"wrote {compiled.folder}", soft_wrap=True)


def show_bundle(manifest: Manifest, console: Console) -> None:
    """Print what a bundle contains."""
    model, targets = manifest.model, manifest.targets
    console.print(Text.assemble((model.name, "bold"), f": {targets.device.name} with {targets.cloud.name}"))
    console.print(
        _indented(("device:", Text(_source(targets.device))), ("cloud:", Text(_source(targets.cloud))))
    )
    console.print(_cut_table(manifest))
    console.print(_crossing_list(manifest))
    if meaning := leak_meaning(manifest.cuts):
        console.print()
        console.print(meaning, markup=False)
    console.print()
    regret = manifest.regret
    console.print(
        f"Inside the box, the best shipped cut is at most {format_share(regret.certified)} slower than the best of all "
        f"possible cuts (certified; {regret.frontier_cuts} cuts are best somewhere, {regret.shipped_cuts} are shipped)."
    )
    if regret.certified > regret.limit:
        console.print(
            f"That is more than the limit of {format_share(regret.limit)}; raise --max-cuts to ship more cuts."
        )
    box = manifest.box
    console.print(
        f"Box: uplink {format_rate(box.uplink_bps[0])} to {format_rate(box.uplink_bps[1])}, "
        f"round trip {format_seconds(box.rtt_s[0])} to {format_seconds(box.rtt_s[1])}, "
        f"device {box.device_slowdown[0]:g}x to {box.device_slowdown[1]:g}x and "
        f"cloud {box.cloud_slowdown[0]:g}x to {box.cloud_slowdown[1]:g}x of the times above."
    )
    console.print()


def _source(target: TargetEntry) -> str:
    where = f"{target.runtime} {target.runtime_version or ''}".strip()
    text = f"{format_source(target.source, target.calibration_runs)}, {where}, {plural(target.threads, 'thread')}"
    if target.interval is None:
        return f"{text}; the error of these times is not known"
    low, high = target.interval
    if target.source == "predicted":
        return f"{text}; an estimate ({_ESTIMATE}): nine of ten real times are expected between {low:.3g}x and {high:.3g}x of it"
    if target.source == "imported":  # only the whole run was timed; the parts are predicted
        return f"{text}; nine of ten real times are expected between {low:.3g}x and {high:.3g}x of these"
    return f"{text}; nine of ten runs took {low:.3g}x to {high:.3g}x of the median"


def _cut_table(manifest: Manifest) -> Table:
    is_private = any(cut.leak is not None for cut in manifest.cuts)
    leaks = ("leak",) if is_private else ()
    numbers = ("device", "cloud", lines("uplink", "downlink"), lines("weights", "memory"), "error", *leaks)
    table = _narrow_table("cut", "kind", *numbers, right=numbers, wraps=("kind",))
    for cut in manifest.cuts:
        exchanged = lines(format_bytes(cut.uplink_bytes), format_bytes(cut.downlink_bytes))
        table.add_row(
            cut.id,
            cut.words,
            _part(cut.device),
            _part(cut.cloud),
            exchanged if cut.cloud else "-",
            _memory(cut.device),
            f"{cut.check.max_rel:.0e}" if cut.check else "not run",
            *((leak(cut),) if is_private else ()),
        )
    return table


def _narrow_table(*titles: Title, right: tuple[Title, ...], wraps: tuple[str, ...]) -> Table:
    """A table that fits into 80 columns; only the columns *wraps* may be wrapped, between words."""
    table = new_table(*titles, right=right)
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap = column.header not in wraps
    return table


def _crossing_list(manifest: Manifest) -> Table:
    """What each side runs of a pipeline, and what crosses the network: below the table, as names are long."""
    told = []
    for cut in manifest.cuts:
        rows = [", then ".join(f"{side}: {stages}" for side, stages in sides(cut).items())]
        if cut.cloud is not None:
            rows.append(f"up: {_tensors(cut.sent)}")
        if cut.downloads is not None:
            rows.append(f"down: {_tensors(cut.downloads)}")
        if any(rows):
            told.append((cut.id, lines(*filter(None, rows))))
    return _indented(*told)


def _indented(*rows: tuple[str, Title]) -> Table:
    """Paragraphs, each next to its name."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(f" {name}", text)
    return grid


def _tensors(entries: Tensors) -> str:
    told = [
        f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"
        for tensor in entries[:_SHOWN_TENSORS]
    ]
    more = len(entries) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _memory(part: PartEntry | None) -> Title:
    """The weights of the device's part and, below them, its peak memory."""
    if part is None:
        return "-"
    weights = format_bytes(part.weight_bytes)
    return lines(weights, format_bytes(part.peak_bytes)) if part.peak_bytes is not None else weights


def _part(part: PartEntry | None) -> Title:
    if part is None:
        return Text("-")
    range_s = part.interval and (part.interval[0] * part.latency_s, part.interval[1] * part.latency_s)
    return _ranged(_ESTIMATE if part.source == "predicted" else "", part.latency_s, range_s)


def _ranged(mark: str, seconds: float | None, range_s: Range | None) -> Title:
    """A time and, below it, the range of nine of ten real times, if known."""
    if seconds is None:
        return Text("-")
    below = (Text(format_seconds_range(*range_s), "dim"),) if range_s is not None else ()
    return lines(mark + format_seconds(seconds), *below)


def _mark(cut: CutEntry) -> str:
    """The mark of an estimate, if any part of the cut's latency is estimated."""
    estimated = any(part.source == "predicted" for part in (cut.head, cut.tail) if part is not None)
    return _ESTIMATE if estimated else ""


def _network_table(manifest: Manifest, verdicts: tuple[Verdict, ...]) -> Table:
    marks = {cut.kind: _mark(cut) for cut in manifest.cuts if cut.kind != "split"}
    compared = ("all-head", "all-tail")
    numbers = (lines("uplink", "downlink"), "latency", *compared)
    table = _narrow_table(
        lines("network", "RTT"),
        numbers[0],
        "best cut",
        *numbers[1:],
        right=numbers,
        wraps=("best cut", *compared),
    )
    for item in verdicts:
        given, cut = item.decision.conditions, item.decision.cut
        table.add_row(
            lines(item.network, format_seconds(given.rtt_s)),
            lines(format_rate(given.uplink_bps), format_rate(given.downlink_bps)),
            f"{cut.id} {cut.words}",
            _ranged(_mark(cut), item.decision.latency_s, item.range_s),
            _ranged(marks.get("all-head", ""), item.all_head_s, item.all_head_range_s),
            _ranged(marks.get("all-tail", ""), item.all_tail_s, item.all_tail_range_s),
        )
    return table
