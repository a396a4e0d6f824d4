"""What a person sees never shows an estimate as a measurement."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from splitc.bundle import Manifest, Source
from splitc.cli.show import show_compiled
from splitc.compile import Compiled
from splitc.outlook import outlook
from splitc.targets import load_network
from splitc.text import format_seconds_range
from tests import manifests


def printed(manifest: Manifest) -> str:
    console = Console(file=StringIO(), width=200, highlight=False, markup=False)
    compiled = Compiled(Path("out"), manifest, outlook(manifest, [load_network("wifi")]))
    show_compiled(compiled, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def shown(manifest: Manifest) -> dict[str, str]:
    """The printed lines by their first word."""
    return {line.split()[0]: line for line in printed(manifest).splitlines() if line.strip()}


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
def test_estimates_bear_their_mark(head: Source, tail: Source, marks: dict[str, int]) -> None:
    lines = shown(with_sources(head, tail))
    assert {key: lines[key].count("~") for key in marks} == marks


def test_every_time_has_the_range_of_real_ones_below_it() -> None:
    out = printed(manifests.manifest())
    for cut in manifests.CUTS:
        for part in (cut.head, cut.tail):
            if part is not None and part.interval is not None:
                low, high = part.interval
                assert format_seconds_range(low * part.latency_s, high * part.latency_s) in out


def test_a_time_of_unknown_spread_says_so() -> None:
    once = replace(manifests.MEASURED, interval=None)
    assert "how far real times differ is not known" in printed(manifests.manifest(tail=once))


def test_what_was_not_run_says_so() -> None:
    manifest = manifests.manifest([replace(cut, check=None) for cut in manifests.CUTS])
    assert "not run" in shown(manifest)["c1"]


def test_names_are_not_markup() -> None:
    manifest = manifests.manifest()
    lines = shown(replace(manifest, model=replace(manifest.model, name="net[bold]")))
    assert "net[bold]:" in lines
