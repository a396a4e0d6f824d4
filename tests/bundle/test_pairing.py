"""Device and cloud belong together where they compute the same, whenever and for whatever conditions they were built."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.bundle.pairing import pairing
from tests import manifests

WHOLE = manifests.manifest()
SPLIT = next(number for number, cut in enumerate(WHOLE.cuts) if cut.kind == "split")


def with_cut(**changes: object) -> Manifest:
    cuts = list(WHOLE.cuts)
    cuts[SPLIT] = replace(cuts[SPLIT], **changes)  # type: ignore[arg-type]
    return replace(WHOLE, cuts=tuple(cuts))


def slower(cut: CutEntry) -> CutEntry:
    assert cut.head is not None
    return replace(cut, head=replace(cut.head, latency_s=9.0, source="imported"), uplink_bytes=7, check=None)


def renamed(manifest: Manifest) -> Manifest:
    """The same files under other names, and the cut under another one."""
    cut = manifest.cuts[SPLIT]
    assert cut.head is not None
    assert cut.head.file is not None
    computes = dict(manifest.computes)
    computes["other.onnx"] = computes.pop(cut.head.file)
    files = tuple(
        replace(entry, path="other.onnx") if entry.path == cut.head.file else entry
        for entry in manifest.files
    )
    cuts = list(manifest.cuts)
    cuts[SPLIT] = replace(cut, id="c9", head=replace(cut.head, file="other.onnx"))
    return replace(manifest, cuts=tuple(cuts), computes=computes, files=files)


def found(manifest: Manifest) -> str:
    return pairing(manifest, manifest.cuts[SPLIT])


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: replace(manifest, notes=("another time",), generator={"splitc": "9"}),
        lambda manifest: replace(manifest, box=replace(manifest.box, rtt_s=(0.5, 1.0))),
        lambda manifest: replace(
            manifest, cuts=tuple(slower(cut) if cut.head else cut for cut in manifest.cuts)
        ),
        renamed,
    ],
    ids=["notes", "box", "times", "names of files and cuts"],
)
def test_what_does_not_compute_may_change(change: Callable[[Manifest], Manifest]) -> None:
    assert found(change(WHOLE)) == found(WHOLE)


@pytest.mark.parametrize(
    "changed",
    [
        replace(WHOLE, computes=dict.fromkeys(WHOLE.computes, "ff" * 32)),
        with_cut(boundary=tuple(replace(entry, dtype="float16") for entry in WHOLE.cuts[SPLIT].boundary)),
        with_cut(boundary=tuple(replace(entry, name="other") for entry in WHOLE.cuts[SPLIT].boundary)),
        replace(WHOLE, model=replace(WHOLE.model, outputs=())),
    ],
    ids=["a file", "a type", "a name", "outputs"],
)
def test_what_computes_may_not(changed: Manifest) -> None:
    assert found(changed) != found(WHOLE)


def test_each_cut_has_its_own() -> None:
    assert len({pairing(WHOLE, cut) for cut in WHOLE.cuts}) == len(WHOLE.cuts)


def test_a_bundle_and_what_was_packed_from_it_have_the_same_digest() -> None:
    files = tuple(entry for entry in WHOLE.files if "tail" not in entry.path)
    for_device = replace(WHOLE, side="device", files=files)
    assert Bundle(Path("a"), WHOLE).digest == Bundle(Path("b"), for_device).digest
    assert [pairing(for_device, cut) for cut in WHOLE.cuts] == [pairing(WHOLE, cut) for cut in WHOLE.cuts]
