"""An estimate is never shown as a measurement."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from splitc.bundle.manifest import LeakEntry, Manifest
from splitc.cli.facts.bundle import bundle_facts
from splitc.cli.show_bundle import show_compiled
from splitc.common.formatting import format_seconds_range
from splitc.common.kinds import Source
from splitc.common.records import encode
from splitc.compile.compile import Compiled
from splitc.compile.verdict import judge
from splitc.profile.targets.description import load_network
from tests import manifests


def printed(manifest: Manifest, width: int = 200) -> str:
    console = Console(file=StringIO(), width=width, highlight=False, markup=False)
    compiled = Compiled(Path("out"), manifest, judge(manifest, [load_network("wifi")]))
    show_compiled(compiled, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def shown(manifest: Manifest) -> dict[str, str]:
    """The first line that begins with each word; for cuts, that is their row of the table."""
    lines = [line for line in printed(manifest).splitlines() if line.strip()]
    return {line.split()[0]: line for line in reversed(lines)}


def with_sources(head: Source, tail: Source) -> Manifest:
    entries = {"measured": manifests.MEASURED, "predicted": manifests.PREDICTED}
    cuts = [
        replace(
            cut,
            head=replace(cut.head, source=head) if cut.head else None,
            tail=replace(cut.tail, source=tail) if cut.tail else None,
        )
        for cut in manifests.CUTS
    ]
    return manifests.manifest(cuts, entries[head], entries[tail])


@pytest.mark.parametrize(
    ("head", "tail", "marks"),
    [
        ("predicted", "measured", {"c0": 1, "c1": 1, "c2": 0, "wifi": 2}),
        ("measured", "predicted", {"c0": 0, "c1": 1, "c2": 1, "wifi": 2}),
        ("predicted", "predicted", {"c0": 1, "c1": 2, "c2": 1, "wifi": 3}),
        ("measured", "measured", {"c0": 0, "c1": 0, "c2": 0, "wifi": 0}),
    ],
)
def test_estimates_are_marked(head: Source, tail: Source, marks: dict[str, int]) -> None:
    lines = shown(with_sources(head, tail))
    assert {key: lines[key].count("~") for key in marks} == marks


def test_every_time_has_its_range_below_it() -> None:
    out = printed(manifests.manifest())
    for cut in manifests.CUTS:
        for part in (cut.head, cut.tail):
            if part is not None and part.interval is not None:
                low, high = part.interval
                assert format_seconds_range(low * part.latency_s, high * part.latency_s) in out


def test_an_unknown_error_is_stated() -> None:
    once = replace(manifests.MEASURED, interval=None)
    assert "the error of these times is not known" in printed(manifests.manifest(tail=once))


def test_imported_times_are_not_called_runs() -> None:
    head = replace(manifests.MEASURED, source="imported", interval=(0.5, 2.0))
    assert "nine of ten real times are expected between 0.5x and 2x of these" in printed(
        manifests.manifest(head=head)
    )


def test_a_cut_that_was_not_run_is_shown_as_such() -> None:
    manifest = manifests.manifest([replace(cut, check=None) for cut in manifests.CUTS])
    assert "not run" in shown(manifest)["c1"]


def test_names_are_not_markup() -> None:
    manifest = manifests.manifest()
    lines = shown(replace(manifest, model=replace(manifest.model, name="net[bold]")))
    assert "net[bold]:" in lines


def test_crossing_tensors_are_listed_below_the_table() -> None:
    cuts = (*manifests.CUTS, manifests.cloud_first("c3", head_s=0.01, tail_s=0.05, up=12, down=48))
    out = printed(manifests.manifest(cuts))
    assert "\n c1 up: b float32[1, n]" in out
    assert "\n c3 up: x float32[1, n]" in out
    assert out.partition("\n c3 up: x")[2].splitlines()[1].strip() == "down: b float32[1, n]"


def test_a_pipeline_shows_what_each_side_runs() -> None:
    manifest = manifests.manifest([manifests.staged("c0", first=3, times=8)])
    assert "\n c0 device: text, denoise 1-3, then cloud: denoise 4-8" in printed(manifest)
    facts: Any = encode(bundle_facts(manifest))
    assert facts["sides"] == {"c0": {"device": "text, denoise 1-3", "cloud": "denoise 4-8"}}
    assert encode(bundle_facts(manifests.manifest())) == encode(manifests.manifest())


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_into_a_terminal(width: int) -> None:
    """With the longest values, no column is lost, and no number or kind is wrapped."""
    cuts = [
        replace(cut, uplink_bytes=888_000_000, downlink_bytes=888_000_000)
        for cut in (*manifests.CUTS, manifests.cloud_first("c3", head_s=123.0, tail_s=0.0777))
    ]
    out = printed(manifests.manifest(cuts), width)
    assert max(map(len, out.splitlines())) <= width
    for word in ("kind", "error", "best cut", "all-tail", "cloud-first", "888 MB", "111 to 148 s", "1e-07"):
        assert word in out


LEAKS = (
    LeakEntry(0.0, 12, None),
    LeakEntry(0.523, 12, "image"),
    LeakEntry(None, 12, None),
)


def test_the_leak_of_each_cut_is_in_the_table() -> None:
    cuts = [replace(cut, leak=leak) for cut, leak in zip(manifests.CUTS, LEAKS, strict=True)]
    lines = shown(manifests.manifest(cuts))
    assert [lines[cut.id].split()[-1] for cut in cuts] == ["%", "%", "unknown"]
    assert " 0 %" in lines["c0"]
    assert " 52 %" in lines["c1"]
    assert "the variance of 'image'" in lines["Leak:"]
    assert "a lower bound on what an attacker gets" in " ".join(printed(manifests.manifest(cuts)).split())


def test_without_private_tensors_there_is_no_word_of_a_leak() -> None:
    assert "leak" not in printed(manifests.manifest()).lower()


def test_the_table_with_leaks_fits_into_80_columns() -> None:
    cuts = [replace(cut, leak=leak) for cut, leak in zip(manifests.CUTS, LEAKS, strict=True)]
    lines = printed(manifests.manifest(cuts), width=80).splitlines()
    start = next(number for number, line in enumerate(lines) if "leak" in line)
    assert all(len(line) <= 80 for line in lines[start : start + 8])
    assert "…" not in "".join(lines[start : start + 8])
