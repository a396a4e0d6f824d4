"""What device and cloud must share to work together: a digest, for each cut, over what both sides compute.

Times, intervals, notes, the range of conditions, and the names of files and cuts do not count: a bundle that was
built again works with apps that were shipped before, cut by cut, as long as it computes the same.
Read on devices: the standard library only.
"""

from collections.abc import Iterable

from splitc.bundle.manifest import BoundaryEntry, CutEntry, Manifest, PartEntry, TensorEntry
from splitc.common.digests import json_sha256


def pairing(manifest: Manifest, cut: CutEntry) -> str:
    """SHA-256 of what both sides of *cut*, one of those of *manifest*, compute, and of what crosses between them."""
    return json_sha256(
        {
            "direction": cut.direction,
            "kind": cut.kind,
            "inputs": _tensors(manifest.model.inputs),
            "outputs": _tensors(manifest.model.outputs),
            "head": _computed(manifest, cut.head),
            "tail": _computed(manifest, cut.tail),
            "boundary": [[*_tensor(entry), entry.codec] for entry in cut.boundary],
            "uploads": _tensors(cut.uploads or ()),
            "downloads": _tensors(cut.downloads or ()),
        }
    )


def _tensors(entries: Iterable[TensorEntry]) -> list[list[object]]:
    return [_tensor(entry) for entry in entries]


def _tensor(entry: TensorEntry | BoundaryEntry) -> list[object]:
    return [entry.name, entry.dtype, list(entry.shape)]


def _computed(manifest: Manifest, part: PartEntry | None) -> list[object] | None:
    """What *part* runs, files by their contents."""
    if part is None:
        return None
    computes = manifest.computes
    return [
        {
            "calls": [[computes[call.file], call.inputs, call.outputs] for call in stage.calls],
            "loop": None
            if stage.loop is None
            else {
                "first": stage.loop.first,
                "end": stage.loop.end,
                "carry": stage.loop.carry,
                "each": {value: computes[file] for value, file in stage.loop.each.items()},
            },
        }
        for stage in part.program
    ]
