"""Manifests made up for tests of what reads them."""

from collections.abc import Sequence

from splitc.bundle import (
    BoundaryEntry,
    BoxEntry,
    CheckEntry,
    CutEntry,
    FileEntry,
    HeadEntry,
    Manifest,
    ModelEntry,
    RegretEntry,
    TailEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
)

SHA = "0123456789abcdef" * 4
MEASURED = TargetEntry(
    "here", "measured", (0.9, 1.2), 0, "onnxruntime", "1.0", "CPUExecutionProvider", 2, SHA
)
PREDICTED = TargetEntry(
    "there", "predicted", (0.5, 2.0), 0, "onnxruntime", None, "CPUExecutionProvider", 4, SHA
)
CHECK = CheckEntry(3, 1e-6, 1e-7, 1e-4)
BOX = BoxEntry((0.5, 4.0), (0.5, 20.0), (5e5, 1e9), (1e6, 1e9), (0.001, 0.3))


def cut(
    key: str,
    *,
    head_s: float | None = None,
    tail_s: float | None = None,
    up: int = 0,
    down: int = 0,
    weights: int = 0,
) -> CutEntry:
    """A cut of the kind that its parts make it."""
    head = tail = None
    if head_s is not None:
        head = HeadEntry(f"head-{key}.onnx", head_s, weights, 2 * weights, "predicted", (0.5, 2.0))
    if tail_s is not None:
        tail = TailEntry(f"tail-{key}.onnx", tail_s, weights, "measured", (0.9, 1.2))
    boundary = (BoundaryEntry("b", "float32", (1, "n"), up),) if tail is not None else ()
    kind = "split" if head and tail else "all-head" if head else "all-tail"
    return CutEntry(key, kind, head, tail, boundary, up, down, CHECK)  # type: ignore[arg-type]


CUTS = (
    cut("c0", head_s=0.1, weights=1000),
    cut("c1", head_s=0.02, tail_s=0.01, up=1000, down=40, weights=400),
    cut("c2", tail_s=0.02, up=100_000, down=40),
)


def manifest(
    cuts: Sequence[CutEntry] = CUTS, head: TargetEntry = PREDICTED, tail: TargetEntry = MEASURED
) -> Manifest:
    parts = [part.file for cut in cuts for part in (cut.head, cut.tail) if part is not None]
    return Manifest(
        splitc_manifest=1,
        generator={"splitc": "0.0"},
        direction="device-first",
        model=ModelEntry(
            "tiny",
            SHA,
            {"": 18},
            (TensorEntry("x", "float32", ("batch", 3), 12),),
            (TensorEntry("y", "float32", (1,), None),),
            {"batch": 1},
            simplified=True,
        ),
        targets=TargetsEntry(head, tail),
        box=BOX,
        regret=RegretEntry(0.01, 0.001, len(cuts), len(cuts)),
        cuts=tuple(cuts),
        files=tuple(FileEntry(path, 1, SHA) for path in ["weights.bin", *parts]),
        notes=("made up",),
    )
