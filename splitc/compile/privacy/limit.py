"""Tell which cuts give away more of a private tensor than is allowed."""

from collections.abc import Iterable, Sequence

from splitc.bundle.manifest import CutEntry
from splitc.compile.trial import LeftOut
from splitc.solve.cuts import Cut

_NAMED = 6


def leaking(most: float | None, cuts: Iterable[Cut], entries: Iterable[CutEntry]) -> tuple[LeftOut, ...]:
    """Return the cuts whose leak figure, in their *entries*, is above *most* or unknown; none if *most* is None."""
    if most is None:
        return ()
    return tuple(
        LeftOut(cut, _sent(entry), _figure(entry.leak.share))
        for cut, entry in zip(cuts, entries, strict=True)
        if entry.leak is not None and (entry.leak.share is None or entry.leak.share > most)
    )


def leak_limit_notes(most: float | None, left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """Say which cuts were left out, in one sentence; nothing if none was."""
    if not left_out or most is None:
        return ()
    told = ", ".join(f"{item.name} ({item.why})" for item in left_out[:_NAMED])
    more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
    return (f"--max-leak {most:g} leaves out the cuts that send {told}{more}",)


def _sent(entry: CutEntry) -> str:
    names = [tensor.name for tensor in entry.sent]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _figure(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"
