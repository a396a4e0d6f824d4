"""Solve again without the cuts that give away too much of a private tensor."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from splitc.bundle.manifest import CutEntry, FileEntry, LeakEntry
from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.compile.emit import Written
from splitc.compile.leak_trial import LeakMeter
from splitc.model.analysis import Progress
from splitc.solve.certify import certified_regret
from splitc.solve.cuts import Cut, CutSet
from splitc.solve.space import Space

Forbidden = frozenset[tuple[Direction, frozenset[int]]]
"""Cuts that may not be shipped: the direction, and the units on the device."""

_ROUNDS = 12
_NAMED = 6


def solve_within_leak(
    most: float | None,
    meter: LeakMeter,
    solved: Callable[[Forbidden], CutSet],
    write: Callable[[CutSet, Path], tuple[tuple[Written, ...], tuple[FileEntry, ...], tuple[CutEntry, ...]]],
    space: Space,
    scratch: Path,
    progress: Progress,
) -> tuple[CutSet, tuple[str, ...]]:
    """Return cuts with a leak figure of at most *most* (None: of any), and notes on those that were left out.

    Cuts are solved, measured, and solved again without those that leak more, or whose figure is unknown. After a few
    rounds such cuts are left out without a replacement.

    Args:
        solved: solves without the forbidden cuts.
        write: writes and describes cuts in a folder.

    Raises:
        NoFeasibleCut: every cut leaks more.
    """
    if most is None or not meter.private:
        return solved(frozenset()), ()
    excluded: dict[tuple[Direction, frozenset[int]], tuple[str, LeakEntry]] = {}
    cut_set, kept = solved(frozenset()), tuple[Cut, ...]()
    for number in range(_ROUNDS):
        folder = scratch / f"leak-{number}"
        folder.mkdir()
        written, _, described = write(cut_set, folder)
        entries = meter.measured(written, described, folder, progress)
        shutil.rmtree(folder)
        kept = tuple(cut for cut, entry in zip(cut_set.cuts, entries, strict=True) if _within(most, entry))
        if len(kept) == len(entries):
            return cut_set, _notes(most, [*excluded.values()])
        for cut, entry in zip(cut_set.cuts, entries, strict=True):
            if entry.leak is not None and cut not in kept:
                excluded[cut.direction, cut.device] = (_sent(entry), entry.leak)
        if not meter.works or number + 1 == _ROUNDS:
            break
        progress("Solving without cuts that leak too much")
        cut_set = solved(frozenset(excluded))
    if not kept:
        raise NoFeasibleCut(
            f"every cut gives away more than --max-leak {most:g} allows; raise it or drop a pin"
        )
    regret = certified_regret(space, kept, cut_set.frontier)
    notes = (
        *_notes(most, [*excluded.values()]),
        "the cuts left out by --max-leak were not all replaced by others",
    )
    return replace(cut_set, cuts=kept, regret=regret), notes


def _within(most: float, entry: CutEntry) -> bool:
    return entry.leak is not None and entry.leak.share is not None and entry.leak.share <= most


def _sent(entry: CutEntry) -> str:
    names = [tensor.name for tensor in entry.sent]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _notes(most: float, excluded: Sequence[tuple[str, LeakEntry]]) -> tuple[str, ...]:
    if not excluded:
        return ()
    told = [
        f"{sent} ({'unknown' if leak.share is None else f'{100 * leak.share:.0f} %'})"
        for sent, leak in excluded[:_NAMED]
    ]
    more = f" and {len(excluded) - _NAMED} more" if len(excluded) > _NAMED else ""
    return (f"--max-leak {most:g} leaves out the cuts that send {', '.join(told)}{more}",)
