"""The cuts of a bundle on disk: write their parts, run every pair, time what is this machine."""

from dataclasses import dataclass, replace

from splitc.bundle.manifest import FileEntry
from splitc.common.cache import Cache
from splitc.common.ort import usable_cores
from splitc.common.records import RecordError, decode, encode
from splitc.compile.parts import Emitter, head_part, tail_part, write_part
from splitc.compile.verify import Pair, Reference, Timing, Verified, reference, tolerance, verify
from splitc.model.analysis import Analysis, Progress
from splitc.profile.document import UnitTimes
from splitc.solve.cuts import Cut, CutSet

_CONVERSIONS = {"Cast", "QuantizeLinear"}


@dataclass(frozen=True, slots=True)
class Shipped:
    """The cuts of a bundle: as solved, as written, as verified; all in the same order."""

    cut_set: CutSet
    pairs: tuple[Pair, ...]
    verified: tuple[Verified, ...]
    files: tuple[FileEntry, ...]


def emit_cuts(emitter: Emitter, cut_set: CutSet) -> tuple[tuple[Pair, ...], tuple[FileEntry, ...]]:
    """Write a head and a tail for every cut; c0, c1, ... in the order of *cut_set*."""
    pairs, files = [], [emitter.weights_file]
    for number, cut in enumerate(cut_set.cuts):
        written: list[str | None] = []
        for side, part in (("head", head_part(emitter, cut)), ("tail", tail_part(emitter, cut))):
            if part is not None:
                files.append(write_part(emitter, part, f"{side}-c{number}.onnx"))
            written.append(files[-1].path if part is not None else None)
        pairs.append(Pair(f"c{number}", emitter.folder, *written))
    return tuple(pairs), tuple(files)


def verify_cuts(
    pairs: tuple[Pair, ...],
    cut_set: CutSet,
    found: Analysis,
    times: tuple[UnitTimes, UnitTimes],
    cache: Cache,
    progress: Progress,
) -> tuple[tuple[Verified, ...], str | None]:
    """Verify every pair and time what runs here; the second value says why where that is not possible.

    Raises:
        VerifyError: a pair does not compute what the whole model does.
    """
    if not found.feeds:
        return unverified(pairs), "cuts were not verified: too little memory to run them"
    threads = next((side.threads for side in reversed(times) if side.here), usable_cores())
    allowed = tolerance(
        (size.dtype for size in found.sizes.values()), (node.op_type for node in found.sources.nodes)
    )
    progress("Running the whole model")
    against = reference(found.original.path, found.feeds, allowed, threads)
    if against is None:
        return unverified(pairs), "cuts were not verified: the model gives another result each time it runs"
    head, tail = times
    verified = []
    for number, (pair, cut) in enumerate(zip(pairs, cut_set.cuts, strict=True), start=1):
        progress(f"Verifying cut {pair.id}, {number} of {len(pairs)}")
        # Timings stay with the profiles that they belong to, so that the next build gets the same bytes.
        place = (found.model.sha256, _head_nodes(cut, found))
        key = (head.sha256, tail.sha256, head.here, tail.here, cut.direction, *place)
        first, second = (head, tail) if cut.direction == "device-first" else (tail, head)
        verified.append(_verify_pair(pair, against, threads, key, cache, head=first.here, tail=second.here))
    return tuple(verified), None


def input_conversions(cut_set: CutSet, found: Analysis) -> tuple[str, ...]:
    """Name the cuts whose head only converts inputs: their gain is one of number formats, not of splitting."""
    units, nodes = found.partition.graph.units, found.sources.nodes
    return tuple(
        f"the head of cut c{number} only converts inputs; "
        "an app that captures them in that format already saves as much with all-tail"
        for number, cut in enumerate(cut_set.cuts)
        if cut.kind == "split"
        and cut.direction == "device-first"
        and all(nodes[index].op_type in _CONVERSIONS for unit in cut.head for index in units[unit].nodes)
    )


def unverified(pairs: tuple[Pair, ...]) -> tuple[Verified, ...]:
    """What is known of pairs that were not run."""
    return (Verified(None, None, None),) * len(pairs)


def _head_nodes(cut: Cut, found: Analysis) -> list[str]:
    """What tells a cut from others, in words that outlive a change in how nodes are grouped."""
    units, nodes = found.partition.graph.units, found.sources.nodes
    return sorted(nodes[index].name or "" for unit in cut.head for index in units[unit].nodes)


@dataclass(frozen=True, slots=True)
class _Timings:
    """What the cache holds of a cut: how long its parts took here; None for one that is another machine's."""

    head: Timing | None
    tail: Timing | None


def _verify_pair(
    pair: Pair,
    against: Reference,
    threads: int,
    key: tuple[object, ...],
    cache: Cache,
    *,
    head: bool,
    tail: bool,
) -> Verified:
    """Verify *pair*, and time the sides that are this machine: once for each *key*."""
    try:
        kept = decode(_Timings, cache.get("timings", key), "cache")
    except RecordError:
        kept = None
    result = verify(pair, against, threads, timed=kept is None and (head or tail))
    if kept is None:
        # A side that is another machine keeps the times of its own profile.
        kept = _Timings(result.head if head else None, result.tail if tail else None)
        cache.put("timings", key, encode(kept))
    return replace(result, head=kept.head, tail=kept.tail)
