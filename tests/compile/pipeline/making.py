"""Tiny pipelines: models of a few nodes, and the TOML that puts them together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from splitc.bundle.manifest import CutEntry
from splitc.common.cache import Cache
from splitc.common.kinds import Direction
from splitc.compile.compile import Compiled, CompileOptions, compile_bundle
from splitc.compile.describe import cut_entries
from splitc.compile.emit import emit
from splitc.compile.pipeline.analyse import PipelineAnalysis, analyse_pipeline
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.times import PipelineTimes
from splitc.compile.pipeline.unroll import unroll
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.compile.trial import known_whole, try_cuts
from splitc.model.analysis import AnalysisOptions
from splitc.model.graph import Graph
from splitc.profile.document import UnitTimes
from splitc.solve.costs import Costs
from splitc.solve.cuts import Cut, CutSet, make_cut
from tests.models import WIDTH, dense, dense_weights, floats, model, op, value, weight
from tests.running import fast_cloud, slow_device

DIFFUSION = """
name = "diffusion"
outputs = ["image"]

[[stage]]
name = "text"
model = "text.onnx"
outputs = { y = "context" }

[[stage]]
name = "denoise"
times = 3
carry = { latents = "noise" }
each = { time = "time.npy", keep = "scales.npz:keep" }

[[stage.step]]
model = "unet.onnx"
inputs = { sample = "latents" }
outputs = { out = "eps" }

[[stage.step]]
model = "unet.onnx"
inputs = { sample = "latents", context = "negative" }
outputs = { out = "eps_negative" }

[[stage.step]]
model = "step.onnx"
outputs = { next = "latents" }

[[stage]]
name = "vae"
model = "vae.onnx"
inputs = { x = "latents" }
outputs = { y = "image" }
"""


LONG = (
    DIFFUSION.replace("times = 3", "times = 20")
    .replace("time.npy", "long.npy")
    .replace("scales.npz:keep", "keep.npy")
)


def text(rows: int | str = 2) -> ModelProto:
    """A branch and a join: three places to cut."""
    nodes = [*dense("prompt", "a"), *dense("a", "b"), *dense("a", "c"), op("Add", "b c", "y")]
    return model(
        nodes, [floats("prompt", rows, WIDTH)], [floats("y", rows, WIDTH)], dense_weights("a", "b", "c")
    )


def unet(rows: int | str = 2) -> ModelProto:
    nodes = [
        op("Add", "sample context", "mixed"),
        op("Cast", "time", "t", to=TensorProto.FLOAT),
        op("Add", "mixed t", "timed"),
        *dense("timed", "u"),
        *dense("u", "out"),
    ]
    inputs = [
        floats("sample", rows, WIDTH),
        floats("context", rows, WIDTH),
        helper.make_tensor_value_info("time", TensorProto.INT64, [1]),
    ]
    return model(nodes, inputs, [floats("out", rows, WIDTH)], dense_weights("u", "out"))


def step(rows: int | str = 2) -> ModelProto:
    """Guidance, and a scheduler's step: next = keep * latents + (negative + 3 (eps - negative)) / 10."""
    nodes = [
        op("Sub", "eps eps_negative", "away"),
        op("Mul", "away three", "far"),
        op("Add", "eps_negative far", "guided"),
        op("Mul", "guided tenth", "small"),
        op("Mul", "latents keep", "kept"),
        op("Add", "kept small", "next"),
    ]
    inputs = [floats(name, rows, WIDTH) for name in ("eps", "eps_negative", "latents")]
    return model(
        nodes,
        [*inputs, floats("keep")],
        [floats("next", rows, WIDTH)],
        [value("three", 3.0), value("tenth", 0.1)],
    )


def vae(rows: int | str = 2) -> ModelProto:
    nodes = [*dense("x", "d"), *dense("d", "e"), op("MatMul", "e y_w", "y")]
    return model(
        nodes,
        [floats("x", rows, WIDTH)],
        [floats("y", rows, 40)],
        [*dense_weights("d", "e"), weight("y_w", WIDTH, 40)],
    )


def write_diffusion(folder: Path, described: str = DIFFUSION, rows: int | str = 2) -> Path:
    """Write the pipeline *described*, and everything that `DIFFUSION` names; return the path of the TOML."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, built in {"text": text, "unet": unet, "step": step, "vae": vae}.items():
        onnx.save_model(built(rows), folder / f"{name}.onnx")
    np.save(folder / "time.npy", np.array([[7], [3], [1]]))
    np.savez(folder / "scales.npz", keep=np.array([0.9, 0.7, 0.5], np.float32))
    path = folder / "pipeline.toml"
    path.write_text(described, encoding="utf-8")
    return path


def write_long(folder: Path) -> Path:
    """The same with twenty iterations."""
    path = write_diffusion(folder, LONG)
    np.save(folder / "long.npy", np.arange(20)[::-1, None])
    np.save(folder / "keep.npy", np.linspace(0.9, 0.5, 20, dtype=np.float32))
    return path


@dataclass(frozen=True)
class Made:
    """A pipeline that was analysed, and the folder to write to."""

    found: PipelineAnalysis
    unrolled: Unrolled
    folder: Path

    def cut(self, head: frozenset[int], direction: Direction = "device-first") -> Cut:
        count = len(self.unrolled.graph.units)
        return make_cut(Costs(self.unrolled.graph, (1.0,) * count, (0.1,) * count), head, direction)


def analysed(
    path: Path, folder: Path, *, dims: Mapping[str, int] | None = None, simplify: bool = False, **options: Any
) -> Made:
    """Analyse the pipeline at *path*, without onnxsim unless told."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    chosen = AnalysisOptions(dims or {}, simplify=simplify, **options)
    found = analyse_pipeline(load_pipeline(path), chosen, scratch, Cache(None), lambda _: None)
    return Made(found, unroll(found), folder)


def closures(graph: Graph) -> list[frozenset[int]]:
    """All sets of units that contain all predecessors of their members; of graphs that are long and narrow."""
    needs = [{graph.tensors[index].producer for index in unit.inputs} - {None} for unit in graph.units]
    found = [frozenset[int]()]
    for head in found:
        ready = (unit for unit in range(len(needs)) if unit not in head and needs[unit] <= head)
        found += [grown for grown in (head | {unit} for unit in ready) if grown not in found]
    return sorted(found, key=sorted)


def made_up_times(found: PipelineAnalysis, unrolled: Unrolled, unit_s: float = 1.0) -> PipelineTimes:
    """Every unit takes *unit_s*."""
    models = tuple(_times(len(analysis.partition.graph.units), unit_s) for analysis in found.analyses)
    return PipelineTimes(models, _times(len(unrolled.places), unit_s))


def _times(count: int, unit_s: float) -> UnitTimes:
    return UnitTimes(
        target="made up",
        source="measured",
        runtime="onnxruntime",
        runtime_version=None,
        provider="CPUExecutionProvider",
        threads=1,
        seconds=(unit_s,) * count,
        fixed_s=None,
        interval=None,
        sha256="0" * 64,
    )


def shipped(made: Made, cuts: Sequence[Cut]) -> tuple[CutEntry, ...]:
    """Write *cuts*, describe them, and compare every one with the whole pipeline."""
    bundle = made.folder / "bundle"
    bundle.mkdir()
    cut_set = CutSet(tuple(cuts), tuple(cuts), 0.0, 0.01)
    written = emit(made.found, made.unrolled, cut_set, bundle).cuts
    times = made_up_times(made.found, made.unrolled)
    entries = cut_entries(made.found, made.unrolled, written, times, times)
    sides = times.whole, times.whole
    against = known_whole(made.found, *sides, None, lambda _: None)
    pairs = list(zip(written, entries, strict=True))
    tried = try_cuts(made.found, made.unrolled, pairs, bundle, against, *sides, Cache(None), lambda _: None)
    assert not tried.wrong
    return tried.cuts


def compiled(path: Path, folder: Path | None, *, cache: Path | None = None, **options: Any) -> Compiled:
    """Compile in this process for a slow device and a fast cloud, both described, without onnxsim unless told."""
    analysis = AnalysisOptions(
        options.pop("dims", {}),
        options.pop("samples", ()),
        options.pop("simplify", False),
        options.pop("build_memory_bytes", None),
    )
    chosen = CompileOptions(
        analysis,
        device=str(options.pop("device", None) or slow_device(path.parent)),
        cloud=str(options.pop("cloud", None) or fast_cloud(path.parent)),
        directions=options.pop("directions", ("device-first", "cloud-first")),
    )
    return compile_bundle(path, folder, replace(chosen, **options), Cache(cache), lambda _: None)
