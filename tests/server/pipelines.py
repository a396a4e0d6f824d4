"""A tiny pipeline as a bundle made by hand: a stage that runs once, one that repeats, one that cannot be batched."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import (
    BoundaryEntry,
    CallEntry,
    CutEntry,
    LoopEntry,
    ModelEntry,
    PartEntry,
    StageEntry,
    TensorEntry,
)
from splitc.bundle.pairing import pairing
from splitc.bundle.program import part_program, read_array, run_program, stages_program
from splitc.common import ort
from splitc.common.values import Array
from splitc.server.tails.part import File, Series, ServedPart
from tests import manifests, models
from tests.models import WIDTH, dense, dense_weights, floats, op, value
from tests.server.serving import LIMIT_S

NAME = "steps"
TIMES = 6
TEXT, STEP, LAST, EACH = "text.onnx", "step.onnx", "last.onnx", "each-t.npy"
_BYTES = 4 * WIDTH


def write_pipeline(folder: Path) -> Bundle:
    """Write the bundle: text, TIMES x step, last; cut after the text, inside the loop both ways, and not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    row = ("batch", WIDTH)
    onnx.save_model(
        models.model(
            dense("prompt", "context"),
            [floats("prompt", *row)],
            [floats("context", *row)],
            dense_weights("context"),
        ),
        folder / TEXT,
    )
    onnx.save_model(
        models.model(
            [op("Mul", "context t", "scaled"), op("Add", "latents scaled", "sum"), *dense("sum", "next")],
            [floats("latents", *row), floats("context", *row), floats("t", "batch", 1)],
            [floats("next", *row)],
            dense_weights("next"),
        ),
        folder / STEP,
    )
    # What requests have in common is taken away: as one they would not get what they get alone.
    onnx.save_model(
        models.model(
            [*dense("latents", "a"), op("CumSum", "a axis", "image")],
            [floats("latents", *row)],
            [floats("image", *row)],
            [*dense_weights("a"), value("axis", 0, "int64")],
        ),
        folder / LAST,
    )
    np.save(folder / EACH, np.linspace(0.1, 1.0, TIMES, dtype=np.float32).reshape(TIMES, 1, 1))
    made = manifests.manifest(cuts())
    model = ModelEntry(
        NAME,
        manifests.SHA,
        {"": 18},
        (_entry("prompt"), _entry("noise")),
        (_entry("image"),),
        {"batch": 1},
        simplified=False,
    )
    files = tuple(file_entry(folder, file) for file in (TEXT, STEP, LAST, EACH))
    write_manifest(folder, replace(made, model=model, files=files))
    return read_bundle(folder)


def _entry(name: str) -> TensorEntry:
    return TensorEntry(name, "float32", ("batch", WIDTH), _BYTES)


def stages(first: int = 0, end: int = TIMES) -> tuple[StageEntry, ...]:
    """What is done from iteration *first* to *end* - 1, with the text before the first and the last after the last."""
    text = StageEntry("text", (CallEntry(TEXT, {"prompt": "prompt"}, {"context": "context"}),))
    step = CallEntry(STEP, {"latents": "latents", "context": "context", "t": "t"}, {"next": "latents"})
    last = StageEntry("last", (CallEntry(LAST, {"latents": "latents"}, {"image": "image"}),))
    loop = StageEntry("loop", (step,), LoopEntry(first, end, {"latents": "noise"}, {"t": EACH}))
    return (*([text] if first == 0 else []), loop, *([last] if end == TIMES else []))


def cuts() -> tuple[CutEntry, ...]:
    """c0 all-head, c1 cloud-first after 4 iterations, c2 device-first after 2, c3 all-tail."""
    boundary = tuple(
        BoundaryEntry(name, "float32", ("batch", WIDTH), _BYTES) for name in ("context", "latents")
    )
    inputs = tuple(BoundaryEntry(name, "float32", ("batch", WIDTH), _BYTES) for name in ("prompt", "noise"))

    def head(times: int, seconds: float) -> PartEntry:
        return PartEntry(
            file=None,
            latency_s=seconds,
            weight_bytes=1,
            peak_bytes=1,
            source="measured",
            interval=None,
            stages=stages(0, times),
        )

    def tail(first: int, seconds: float) -> PartEntry:
        return PartEntry(
            file=None,
            latency_s=seconds,
            weight_bytes=1,
            source="measured",
            interval=None,
            stages=stages(first, TIMES),
        )

    return (
        CutEntry("c0", "all-head", head(TIMES, 0.6), None, (), 0, 0, manifests.CHECK),
        CutEntry(
            "c1",
            "split",
            head(4, 0.04),
            replace(tail(4, 0.2), peak_bytes=1),
            boundary,
            2 * _BYTES,
            2 * _BYTES,
            manifests.CHECK,
            "cloud-first",
            (_entry("prompt"), _entry("noise")),
            (_entry("context"), _entry("latents")),
        ),
        CutEntry("c2", "split", head(2, 0.2), tail(2, 0.04), boundary, 2 * _BYTES, _BYTES, manifests.CHECK),
        CutEntry("c3", "all-tail", None, tail(0, 0.06), inputs, 2 * _BYTES, _BYTES, manifests.CHECK),
    )


def request(seed: int, rows: int = 1) -> dict[str, Array]:
    """Inputs of the pipeline."""
    source = np.random.default_rng(seed)
    return {name: source.standard_normal((rows, WIDTH), np.float32) for name in ("prompt", "noise")}


@dataclass
class Recorded:
    """The files of a bundle, run by ONNX Runtime; remembers the rows of each run of each, and can hold them up.

    Attributes:
        held: files whose runs wait for the gate.
    """

    bundle: Bundle
    max_batch: int = 8
    held: tuple[str, ...] = ()
    gate: threading.Event = field(default_factory=threading.Event)
    runs: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sessions = {file: ort.session(self.bundle.path(file), threads=1) for file in (TEXT, STEP, LAST)}
        self.files = {file: self._file(file) for file in self.sessions}

    def _file(self, file: str) -> File:
        def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            self.runs.append((file, len(next(iter(inputs.values())))))
            if file in self.held:
                assert self.gate.wait(LIMIT_S)
            return ort.run(self.sessions[file], inputs, outputs)

        return File(f"{NAME}/{file}", 1 if file == LAST else self.max_batch, run, ((1, 1e-3),))

    def part(self, cut: CutEntry) -> ServedPart:
        """What the cloud does of *cut*, on these files."""
        assert cut.cloud is not None
        calls = {
            file: sum(call.file == file for stage in cut.cloud.program for call in stage.calls)
            for file in self.files
        }
        outputs = cut.downloads if cut.downloads is not None else self.bundle.manifest.model.outputs
        series = Series(
            part_program(cut, cut.cloud, ["image"]),
            self.files,
            {EACH: read_array(self.bundle, EACH)},
            calls,
            self.max_batch,
        )
        inputs = tuple(_entry(entry.name) for entry in cut.sent)
        key = pairing(self.bundle.manifest, cut)
        return ServedPart(NAME, self.bundle.digest, key, cut, inputs, outputs, series)

    def parts(self) -> dict[str, ServedPart]:
        """Those of all cuts, by id."""
        return {cut.id: self.part(cut) for cut in self.bundle.manifest.cuts if cut.cloud is not None}

    def alone(
        self, part: Sequence[StageEntry], values: Mapping[str, Array], wanted: Sequence[str]
    ) -> dict[str, Any]:
        """What *part* makes of *values*, without a server."""
        made = run_program(
            stages_program(part, wanted),
            values,
            lambda call: ort.run(self.sessions[call.file], call.feeds, call.outputs),
            lambda file: read_array(self.bundle, file),
        )
        return dict(made)

    def count(self, file: str) -> int:
        """How often *file* was run."""
        return sum(name == file for name, _ in self.runs)
