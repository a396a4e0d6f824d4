"""From what was found, solved and written to the manifest that says so."""

from dataclasses import asdict, dataclass
from importlib.metadata import version

from splitc.bundle.manifest import (
    VERSION,
    BoundaryEntry,
    BoxEntry,
    CutEntry,
    Manifest,
    ModelEntry,
    PartEntry,
    RegretEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
    direction_of,
)
from splitc.common.ort import RUNTIME_VERSION
from splitc.compile.shipping import Shipped
from splitc.compile.verify import Pair, Timing, Verified
from splitc.model.analysis import Analysis
from splitc.model.graph import Graph, Tensor
from splitc.profile.document import UnitTimes
from splitc.solve.costs import Box
from splitc.solve.cuts import Cut


def describe(
    found: Analysis, device: UnitTimes, cloud: UnitTimes, box: Box, shipped: Shipped, notes: tuple[str, ...]
) -> Manifest:
    """Fill in the manifest."""
    cut_set = shipped.cut_set
    cuts = tuple(
        _cut_entry(cut, pair, verified, found, (device, cloud))
        for cut, pair, verified in zip(cut_set.cuts, shipped.pairs, shipped.verified, strict=True)
    )
    return Manifest(
        splitc_manifest=VERSION,
        generator={"splitc": version("splitc"), "onnxruntime": RUNTIME_VERSION},
        direction=direction_of(cuts),
        model=_model_entry(found),
        targets=TargetsEntry(target_entry(device), target_entry(cloud)),
        box=BoxEntry(**asdict(box)),
        regret=RegretEntry(cut_set.regret_limit, cut_set.regret, len(cut_set.frontier), len(cut_set.cuts)),
        cuts=cuts,
        files=tuple(sorted(shipped.files, key=lambda entry: entry.path)),
        notes=notes,
    )


def _model_entry(found: Analysis) -> ModelEntry:
    inputs = tuple(
        TensorEntry(item.name, item.dtype or "object", item.shape, _input_bytes(found, item.name))
        for item in found.model.inputs()
    )
    return ModelEntry(
        name=found.original.name,
        sha256=found.original.sha256,
        opsets=dict(found.model.ir.opset_imports),
        inputs=inputs,
        outputs=tuple(_output_entry(found, name) for name in found.model.outputs()),
        dims=dict(found.dims),
        simplified=found.model is not found.original,
    )


def _input_bytes(found: Analysis, name: str) -> int | None:
    size = found.sizes.get(name)
    return size.nbytes if size is not None else None


def _output_entry(found: Analysis, name: str) -> TensorEntry:
    size = found.sizes[name]
    return TensorEntry(name, size.dtype or "object", size.shape, size.nbytes)


def target_entry(times: UnitTimes) -> TargetEntry:
    """Say where the times of one side come from."""
    return TargetEntry(
        name=times.target,
        source=times.source,
        interval=times.interval,
        calibration_runs=times.calibration_runs,
        runtime=times.runtime,
        runtime_version=times.runtime_version,
        provider=times.provider,
        threads=times.threads,
        profile_sha256=times.sha256,
    )


def _cut_entry(
    cut: Cut, pair: Pair, verified: Verified, found: Analysis, times: tuple[UnitTimes, UnitTimes]
) -> CutEntry:
    cloud_first = cut.direction == "cloud-first"
    device = _Side(cut.device_s, cut.device_weight_bytes, cut.device_peak_bytes, times[0])
    cloud = _Side(cut.cloud_s, cut.cloud_weight_bytes, None, times[1])
    first, second = (cloud, device) if cloud_first else (device, cloud)
    head = tail = None
    if pair.head is not None:
        head_s, interval = _timing(verified.head, first)
        head = PartEntry(
            file=pair.head,
            latency_s=head_s,
            weight_bytes=first.weight_bytes,
            peak_bytes=first.peak_bytes,
            source=first.times.source,
            interval=interval,
        )
    if pair.tail is not None:
        tail_s, interval = _timing(verified.tail, second)
        tail = PartEntry(
            file=pair.tail,
            latency_s=tail_s,
            weight_bytes=second.weight_bytes,
            source=second.times.source,
            interval=interval,
            peak_bytes=second.peak_bytes,
        )
    tensors = found.partition.graph.tensors
    return CutEntry(
        id=pair.id,
        kind=cut.kind,
        head=head,
        tail=tail,
        boundary=tuple(boundary_entry(tensors[index]) for index in cut.boundary),
        uplink_bytes=cut.uplink_bytes,
        downlink_bytes=cut.downlink_bytes,
        check=verified.check,
        direction=cut.direction,
        uploads=tuple(map(tensor_entry, uploads(found.partition.graph, cut))) if cloud_first else None,
        downloads=tuple(map(tensor_entry, downloads(found.partition.graph, cut))) if cloud_first else None,
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """What a cut costs on one machine; the memory is told of the device only."""

    seconds: float
    weight_bytes: int
    peak_bytes: int | None
    times: UnitTimes


def _timing(timed: Timing | None, side: _Side) -> tuple[float, tuple[float, float] | None]:
    """What was timed of a part, else the sum of its units with the interval of their target."""
    return (side.seconds, side.times.interval) if timed is None else (timed.median_s, timed.interval)


def uploads(graph: Graph, cut: Cut) -> list[Tensor]:
    """Raw inputs that the cloud's part of a cloud-first cut takes."""
    return [
        tensor
        for tensor in graph.tensors
        if tensor.producer is None and cut.head.intersection(tensor.consumers)
    ]


def downloads(graph: Graph, cut: Cut) -> list[Tensor]:
    """What the cloud's part of a cloud-first cut makes for the device: the boundary, and outputs."""
    crossing = frozenset(cut.boundary)
    return [
        tensor
        for index, tensor in enumerate(graph.tensors)
        if index in crossing or (tensor.is_output and tensor.producer in cut.head)
    ]


def tensor_entry(tensor: Tensor) -> TensorEntry:
    """Describe a tensor that goes up or comes down."""
    return TensorEntry(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes)


def boundary_entry(tensor: Tensor) -> BoundaryEntry:
    """Describe a tensor that crosses."""
    assert tensor.nbytes is not None, "the solver lets nothing of unknown size cross"
    return BoundaryEntry(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes)
