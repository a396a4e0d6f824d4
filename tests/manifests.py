"""Manifests made up for tests of what reads them."""

import hashlib
from collections.abc import Sequence

from splitc.bundle.manifest import (
    BoundaryEntry,
    BoxEntry,
    CallEntry,
    CheckEntry,
    CutEntry,
    FileEntry,
    LoopEntry,
    Manifest,
    ModelEntry,
    PartEntry,
    RegretEntry,
    StageEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
    direction_of,
    part_files,
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
        head = PartEntry(
            file=f"head-{key}.onnx",
            latency_s=head_s,
            weight_bytes=weights,
            peak_bytes=2 * weights,
            source="predicted",
            interval=(0.5, 2.0),
        )
    if tail_s is not None:
        tail = PartEntry(
            file=f"tail-{key}.onnx",
            latency_s=tail_s,
            weight_bytes=weights,
            source="measured",
            interval=(0.9, 1.2),
        )
    boundary = (BoundaryEntry("b", "float32", (1, "n"), up),) if tail is not None else ()
    kind = "split" if head and tail else "all-head" if head else "all-tail"
    return CutEntry(key, kind, head, tail, boundary, up, down, CHECK)  # type: ignore[arg-type]


def cloud_first(key: str, *, head_s: float, tail_s: float, up: int = 0, down: int = 0) -> CutEntry:
    """A split whose head runs in the cloud."""
    head = PartEntry(
        file=f"head-{key}.onnx", latency_s=head_s, weight_bytes=500, source="measured", interval=(0.9, 1.2)
    )
    tail = PartEntry(
        file=f"tail-{key}.onnx",
        latency_s=tail_s,
        weight_bytes=50,
        source="predicted",
        interval=(0.5, 2.0),
        peak_bytes=100,
    )
    crossing = TensorEntry("b", "float32", (1, "n"), down)
    return CutEntry(
        key,
        "split",
        head,
        tail,
        (BoundaryEntry("b", "float32", (1, "n"), down),),
        up,
        down,
        CHECK,
        direction="cloud-first",
        uploads=(TensorEntry("x", "float32", (1, "n"), up),),
        downloads=(crossing,),
    )


def staged(key: str, *, first: int, times: int) -> CutEntry:
    """A cut between iterations of a pipeline: the device does the first ones."""
    call = CallEntry("step.onnx", {"x": "latents"}, {"y": "latents"})

    def loop(first: int, end: int) -> tuple[StageEntry, ...]:
        each = {"t": "t.npy"}
        return (StageEntry("denoise", (call,), LoopEntry(first, end, {"latents": "noise"}, each)),)

    text = StageEntry("text", (CallEntry("text.onnx", {}, {"z": "context"}),))
    head = PartEntry(
        file=None,
        latency_s=0.1 * first,
        weight_bytes=500,
        peak_bytes=600,
        source="predicted",
        interval=(0.5, 2.0),
        stages=(text, *loop(0, first)),
    )
    tail = PartEntry(
        file=None,
        latency_s=0.01 * (times - first),
        weight_bytes=500,
        source="measured",
        interval=None,
        stages=loop(first, times),
    )
    boundary = (BoundaryEntry("latents", "float32", ("n", 4), 16),)
    return CutEntry(key, "split", head, tail, boundary, 16, 4, None)


CUTS = (
    cut("c0", head_s=0.1, weights=1000),
    cut("c1", head_s=0.02, tail_s=0.01, up=1000, down=40, weights=400),
    cut("c2", tail_s=0.02, up=100_000, down=40),
)


def manifest(
    cuts: Sequence[CutEntry] = CUTS, head: TargetEntry = PREDICTED, tail: TargetEntry = MEASURED
) -> Manifest:
    parts = sorted(
        {
            file
            for cut in cuts
            for part in (cut.head, cut.tail)
            if part is not None
            for file in part_files(part)
        }
    )
    return Manifest(
        splitc_manifest=1,
        generator={"splitc": "0.0"},
        direction=direction_of(cuts),
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
        computes={path: hashlib.sha256(path.encode()).hexdigest() for path in parts},
        notes=("made up",),
    )
