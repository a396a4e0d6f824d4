"""Take a model file through load, units and emit, and check every head and tail that comes out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import onnx

from splitc.bundle.manifest import CutEntry, PartEntry
from splitc.bundle.weights import weight_pool
from splitc.common.kinds import Direction
from splitc.common.values import Feeds
from splitc.compile.describe import boundary_entry, downloads, tensor_entry, uploads
from splitc.compile.parts import Emitter, head_part, prepare, tail_part, write_part
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.verification.judgement import Allowed
from splitc.compile.verification.verify import Reference, Runner, reference, tolerance, verify_cuts
from splitc.compile.verification.whole import files_in, whole_as_given
from splitc.model.graph import Graph
from splitc.model.model import Model, fix_dims, load
from splitc.model.nodes import sources
from splitc.model.simplify import Simplified, simplify
from splitc.model.sizes import sizes
from splitc.model.units import Partition, partition, surviving_tensors
from splitc.solve.costs import Costs
from splitc.solve.cuts import Cut, make_cut
from tests import models, oracle

MOST_CLOSURES = 40


@dataclass(frozen=True)
class Split:
    """A model ready to be cut, `original` being what pairs are compared with."""

    original: Model
    model: Model
    partition: Partition
    emitter: Emitter
    dims: Mapping[str, int]
    folder: Path

    @property
    def graph(self) -> Graph:
        return self.partition.graph

    def cut(self, head: frozenset[int], direction: Direction = "device-first") -> Cut:
        count = len(self.graph.units)
        return make_cut(Costs(self.graph, (1.0,) * count, (0.1,) * count), head, direction)


def save(built: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    onnx.save_model(built, path)
    return path


def split_tiny(name: str, folder: Path, *, simplified: bool = False) -> Split:
    path = save(models.ALL[name](), folder / "source")
    model = load(path)
    dims = fix_dims(model, {dim: 2 for item in model.inputs() for dim in item.shape if isinstance(dim, str)})
    return split(path, folder, dims, models.random_feeds(onnx.load_model(path), dims), simplified=simplified)


def split(
    path: Path, folder: Path, dims: Mapping[str, int], feeds: Feeds, *, simplified: bool = False
) -> Split:
    original = load(path)
    scratch, bundle = folder / "scratch", folder / "bundle"
    for new in (scratch, bundle):
        new.mkdir()
    kept = simplify(original, scratch, feeds) if simplified else Simplified(original, None)
    found = sources(kept.model)
    sized = sizes(kept.model, dims, feeds)
    parts = partition(kept.model, found, surviving_tensors(kept.model), sized)
    with weight_pool(bundle) as pool:
        emitter = prepare(kept.model, parts.graph, found, sized, pool)
    return Split(original, kept.model, parts, emitter, dims, bundle)


def write(made: Split, cut: Cut, name: str = "c") -> CutEntry:
    """Write the files of *cut*, and describe it; nothing is said of times."""
    entries: list[PartEntry | None] = []
    for side, part in (
        ("head", head_part(made.emitter, cut)),
        ("tail", tail_part(made.emitter, cut)),
    ):
        file = f"{side}-{name}.onnx"
        if part is not None:
            write_part(made.emitter, part, made.folder / file)
        entry = PartEntry(file=file, latency_s=0.0, source="measured", interval=None, weight_bytes=0)
        entries.append(entry if part is not None else None)
    is_cloud_first = cut.direction == "cloud-first"
    return CutEntry(
        id=name,
        kind=cut.kind,
        head=entries[0],
        tail=entries[1],
        boundary=tuple(boundary_entry(made.graph.tensors[index]) for index in cut.boundary),
        uplink_bytes=cut.uplink_bytes,
        downlink_bytes=cut.downlink_bytes,
        check=None,
        direction=cut.direction,
        uploads=tuple(map(tensor_entry, uploads(made.graph, cut))) if is_cloud_first else None,
        downloads=tuple(map(tensor_entry, downloads(made.graph, cut))) if is_cloud_first else None,
    )


def cuts(made: Split, seed: int = 0, direction: Direction = "device-first") -> list[Cut]:
    """Cuts at every allowed boundary, where there are few; else prefixes of several orders and random closures."""
    graph = made.graph
    device_first = direction == "device-first"
    heads = set(oracle.closures(graph)) if len(graph.units) <= 10 else set()
    if not 0 < len(heads) <= MOST_CLOSURES:
        heads = {frozenset[int](), frozenset(range(len(graph.units)))}
        random = Random(seed)
        for _ in range(MOST_CLOSURES // 10):
            order = list(_order(graph, random))
            sizes = random.sample(range(1, len(order) + 1), min(len(order), 9))
            heads |= {frozenset(order[:size]) for size in sizes}
    kept = [
        head
        for head in sorted(heads, key=sorted)
        if (graph.device_only <= head if device_first else graph.device_only.isdisjoint(head))
    ]
    return [made.cut(head, direction) for head in kept]


def _order(graph: Graph, random: Random) -> Iterator[int]:
    """A random topological order that finishes what it began more often than not."""
    needs = [
        {graph.tensors[t].producer for t in unit.inputs if graph.tensors[t].producer is not None}
        for unit in graph.units
    ]
    done: set[int | None] = set()
    todo = list(range(len(needs)))
    while todo:
        ready = [unit for unit in todo if needs[unit] <= done]
        unit = ready[-1] if random.random() < 0.7 else random.choice(ready)
        todo.remove(unit)
        done.add(unit)
        yield unit


def files_of(made: Split, entry: CutEntry) -> dict[str, Path]:
    files = {"head": entry.head, "tail": entry.tail}
    return {side: made.folder / (part.file or "") for side, part in files.items() if part is not None}


def check(made: Split, cut: Cut, against: Reference | None, name: str = "c") -> dict[str, onnx.ModelProto]:
    """Emit *cut*, check both files, and compare the pair with the whole model where that has one result."""
    entry = write(made, cut, name)
    found = {
        side: onnx.load_model(path, load_external_data=False) for side, path in files_of(made, entry).items()
    }
    check_files(made, cut, entry, found)
    if against is not None:
        files = files_in(made.folder)
        (verified,) = verify_cuts([entry], files, against, Runner(files.path, threads=1), lambda _: None)
        assert verified.cut == entry
    return found


def check_files(made: Split, cut: Cut, entry: CutEntry, found: Mapping[str, onnx.ModelProto]) -> None:
    for path in files_of(made, entry).values():
        onnx.checker.check_model(path)
    boundary = [made.graph.tensors[index].name for index in cut.boundary]
    given = {item.name for item in made.original.inputs()}
    outputs = {side: [port.name for port in proto.graph.output] for side, proto in found.items()}
    if "tail" in found:
        taken = [port.name for port in found["tail"].graph.input]
        assert (
            taken if cut.direction == "device-first" else [name for name in taken if name not in given]
        ) == boundary
        assert not set(outputs["tail"]) & (set(outputs.get("head", ())) | given)
    if "head" in found:
        assert {port.name for port in found["head"].graph.input} <= given
        assert set(outputs["head"]) <= set(boundary) | set(made.original.outputs())
        assert set(boundary) <= set(outputs["head"]) | given or cut.kind == "all-head"
    made_by_parts = {name for names in outputs.values() for name in names}
    assert set(made.original.outputs()) <= made_by_parts | given
    declared = made.original.declared
    opsets = dict(made.model.ir.opset_imports)
    for proto in found.values():
        assert {opset.domain: opset.version for opset in proto.opset_import}.items() <= opsets.items()
        for port in proto.graph.input:
            assert port.name not in given or port == declared[port.name]
        for port in proto.graph.output:
            assert port.name not in declared or port == declared[port.name]


def whole(made: Split, *feeds: Feeds) -> Reference | None:
    given = list(feeds) or [
        models.random_feeds(onnx.load_model(made.original.path), made.dims, seed) for seed in (1, 2)
    ]
    dtypes = {size.dtype for size in made.emitter.sizes.values()}
    allowed = tolerance(dtypes, [node.op_type for node in made.model.ir.graph])
    return reference(whole_as_given(load_pipeline(made.original.path)), given, Allowed(allowed), 1)
