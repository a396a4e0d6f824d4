"""What a person sees of a bundle; the same facts, as plain values, for --json."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitc.bundle import CutEntry, HeadEntry, Manifest, TailEntry, TargetEntry
from splitc.cli.terminal import new_table
from splitc.compile import Compiled
from splitc.outlook import Outlook, Range
from splitc.records import encode
from splitc.text import (
    format_bytes,
    format_rate,
    format_seconds,
    format_seconds_range,
    format_share,
    format_source,
)

_ESTIMATE = "~"


def compiled_facts(compiled: Compiled) -> dict[str, object]:
    """Everything that `splitc compile` tells, for a machine."""
    return {
        "bundle": str(compiled.folder),
        "manifest": encode(compiled.manifest),
        "networks": [_outlook_facts(item) for item in compiled.outlooks],
    }


def show_compiled(compiled: Compiled, console: Console) -> None:
    """Print the shipped cuts, what they are worth on each network, and how far to trust it."""
    manifest = compiled.manifest
    show_bundle(manifest, console)
    console.print(_network_table(manifest, compiled.outlooks))
    for item in compiled.outlooks:
        console.print("• " + item.sentence())
    console.print()
    for note in manifest.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(f"wrote {compiled.folder}", soft_wrap=True)


def show_bundle(manifest: Manifest, console: Console) -> None:
    """Print what a bundle holds."""
    model, targets = manifest.model, manifest.targets
    console.print(Text.assemble((model.name, "bold"), f": {targets.head.name} with {targets.tail.name}"))
    console.print(f"  device: {_source(targets.head)}")
    console.print(f"  cloud:  {_source(targets.tail)}")
    console.print(_cut_table(manifest))
    regret = manifest.regret
    console.print(
        f"Inside the box the best shipped cut is at most {format_share(regret.certified)} slower than the best of all "
        f"possible cuts (certified; {regret.frontier_cuts} are best somewhere, {regret.shipped_cuts} are shipped)."
    )
    if regret.certified > regret.limit:
        console.print(
            f"That is more than the {format_share(regret.limit)} asked for: more cuts would be needed, see --max-cuts."
        )
    box = manifest.box
    console.print(
        f"Box: uplink {format_rate(box.uplink_bps[0])} to {format_rate(box.uplink_bps[1])}, "
        f"round trip {format_seconds(box.rtt_s[0])} to {format_seconds(box.rtt_s[1])}, "
        f"device {box.head_slowdown[0]:g}x to {box.head_slowdown[1]:g}x and "
        f"cloud {box.tail_slowdown[0]:g}x to {box.tail_slowdown[1]:g}x of the times above."
    )
    console.print()


def _source(target: TargetEntry) -> str:
    where = f"{target.runtime} {target.runtime_version or ''}".strip()
    text = f"{format_source(target.source, target.calibration_runs)}, {where}, {target.threads} thread{'s' if target.threads != 1 else ''}"
    if target.interval is None:
        return f"{text}; how far real times differ is not known"
    low, high = target.interval
    if target.source == "predicted":
        return f"{text}; an estimate ({_ESTIMATE}): nine of ten real times are expected between {low:.3g}x and {high:.3g}x of it"
    return f"{text}; nine of ten runs took {low:.3g}x to {high:.3g}x of the median"


def _cut_table(manifest: Manifest) -> Table:
    numbers = ("head", "tail", "payload", "downlink", "head weights", "head memory", "error")
    table = new_table("cut", "kind", *numbers, "boundary", right=numbers)
    for cut in manifest.cuts:
        table.add_row(
            cut.id,
            cut.kind,
            _part(cut.head),
            _part(cut.tail),
            format_bytes(cut.uplink_bytes) if cut.tail else "-",
            format_bytes(cut.downlink_bytes) if cut.tail else "-",
            format_bytes(cut.head.weight_bytes) if cut.head else "-",
            format_bytes(cut.head.peak_bytes) if cut.head else "-",
            f"{cut.check.max_rel:.0e}" if cut.check else "not run",
            Text(_boundary(cut)),
        )
    return table


def _part(part: HeadEntry | TailEntry | None) -> Text:
    if part is None:
        return Text("-")
    range_s = part.interval and (part.interval[0] * part.latency_s, part.interval[1] * part.latency_s)
    return _ranged(_ESTIMATE if part.source == "predicted" else "", part.latency_s, range_s)


def _ranged(mark: str, seconds: float | None, range_s: Range | None) -> Text:
    """A time, and below it where nine of ten real ones lie, if that is known."""
    if seconds is None:
        return Text("-")
    below = ("\n" + format_seconds_range(*range_s), "dim") if range_s is not None else ""
    return Text.assemble(mark + format_seconds(seconds), below)


def _mark(cut: CutEntry) -> str:
    """The sign of an estimate, if any part of the cut's latency is one."""
    estimated = any(part.source == "predicted" for part in (cut.head, cut.tail) if part is not None)
    return _ESTIMATE if estimated else ""


def _boundary(cut: CutEntry) -> str:
    shown = [
        f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]" for tensor in cut.boundary[:2]
    ]
    more = len(cut.boundary) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _network_table(manifest: Manifest, outlooks: tuple[Outlook, ...]) -> Table:
    marks = {cut.kind: _mark(cut) for cut in manifest.cuts if cut.kind != "split"}
    numbers = ("up", "down", "RTT", "latency", "all-head", "all-tail")
    table = new_table(
        "network", "up", "down", "RTT", "best cut", "latency", "all-head", "all-tail", right=numbers
    )
    for item in outlooks:
        given, cut = item.decision.conditions, item.decision.cut
        table.add_row(
            item.network,
            format_rate(given.uplink_bps),
            format_rate(given.downlink_bps),
            format_seconds(given.rtt_s),
            f"{cut.id} {cut.kind}",
            _ranged(_mark(cut), item.decision.latency_s, item.range_s),
            _ranged(marks.get("all-head", ""), item.all_head_s, item.all_head_range_s),
            _ranged(marks.get("all-tail", ""), item.all_tail_s, item.all_tail_range_s),
        )
    return table


def _outlook_facts(item: Outlook) -> dict[str, object]:
    return {
        "network": item.network,
        "conditions": encode(item.decision.conditions),
        "cut": item.decision.cut.id,
        "kind": item.decision.cut.kind,
        "reason": item.decision.reason,
        "latency_s": item.decision.latency_s,
        "latency_range_s": list(item.range_s) if item.range_s is not None else None,
        "all_head_s": item.all_head_s,
        "all_head_range_s": list(item.all_head_range_s) if item.all_head_range_s is not None else None,
        "all_tail_s": item.all_tail_s,
        "all_tail_range_s": list(item.all_tail_range_s) if item.all_tail_range_s is not None else None,
        "holds_to_head_slowdown": item.holds_to,
        "sla_s": item.sla_s,
        "meets_sla": None if item.sla_s is None else item.decision.latency_s <= item.sla_s,
        "sentence": item.sentence(),
    }
