"""From what was found, solved and written to the manifest that says so."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version

from splitc.bundle.manifest import (
    VERSION,
    BoundaryEntry,
    BoxEntry,
    CustomOpsEntry,
    CutEntry,
    Manifest,
    ModelEntry,
    PartEntry,
    RegretEntry,
    StageEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
    direction_of,
)
from splitc.common.ort import RUNTIME_VERSION, used_custom_ops
from splitc.compile.emit import Emitted, Written
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.times import PipelineTimes
from splitc.compile.pipeline.unrolled import Share, Unrolled
from splitc.model.graph import Graph, Tensor
from splitc.profile.document import UnitTimes
from splitc.solve.costs import Box
from splitc.solve.cuts import Cut, CutSet

_CONVERSIONS = {"Cast", "QuantizeLinear"}


def cut_entries(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Sequence[Written],
    device: PipelineTimes,
    cloud: PipelineTimes,
) -> tuple[CutEntry, ...]:
    """Describe the cuts; none is verified yet, and times are sums over units."""
    return tuple(_cut_entry(found, unrolled, item, device, cloud) for item in written)


def describe(
    found: PipelineAnalysis,
    device: UnitTimes,
    cloud: UnitTimes,
    box: Box,
    cut_set: CutSet,
    cuts: tuple[CutEntry, ...],
    emitted: Emitted,
    notes: tuple[str, ...],
) -> Manifest:
    """Fill in the manifest."""
    return Manifest(
        splitc_manifest=VERSION,
        generator={"splitc": version("splitc"), "onnxruntime": RUNTIME_VERSION},
        direction=direction_of(cuts),
        model=_model_entry(found),
        targets=TargetsEntry(_target_entry(device), _target_entry(cloud)),
        box=BoxEntry(**asdict(box)),
        regret=RegretEntry(cut_set.regret_limit, cut_set.regret, len(cut_set.frontier), len(cut_set.cuts)),
        cuts=cuts,
        files=tuple(sorted(emitted.files, key=lambda entry: entry.path)),
        computes=emitted.computes,
        notes=notes,
    )


def input_conversions(found: PipelineAnalysis, unrolled: Unrolled, cuts: Iterable[Cut]) -> tuple[str, ...]:
    """Name the cuts whose head only converts inputs: they gain from the number format, not from the split."""
    return tuple(
        f"the head of cut c{number} only converts inputs; "
        "an app that captures them in that format already saves as much with all-tail"
        for number, cut in enumerate(cuts)
        if cut.kind == "split"
        and cut.direction == "device-first"
        and all(_only_converts(found, unrolled, unit) for unit in cut.head)
    )


def _only_converts(found: PipelineAnalysis, unrolled: Unrolled, unit: int) -> bool:
    place = unrolled.places[unit]
    if place.unit is None:
        return False
    analysis = found.analysis(place.stage)
    nodes = analysis.partition.graph.units[place.unit].nodes
    return all(analysis.sources.nodes[index].op_type in _CONVERSIONS for index in nodes)


def _model_entry(found: PipelineAnalysis) -> ModelEntry:
    opsets: dict[str, int] = {}
    for analysis in found.analyses:
        for domain, number in analysis.model.ir.opset_imports.items():
            opsets[domain] = max(number, opsets.get(domain, 0))
    return ModelEntry(
        name=found.pipeline.name,
        sha256=found.pipeline.sha256,
        opsets=dict(sorted(opsets.items())),
        inputs=tuple(
            TensorEntry(item.name, item.dtype or "object", item.shape, _bytes(found, item.name))
            for item in found.inputs
        ),
        outputs=tuple(_output_entry(found, name) for name in found.pipeline.outputs),
        dims=dict(found.dims),
        simplified=any(item.model is not item.original for item in found.analyses),
        custom_ops=tuple(CustomOpsEntry(item.name, item.sha256) for item in used_custom_ops()) or None,
    )


def _bytes(found: PipelineAnalysis, value: str) -> int | None:
    return found.sizes[value].nbytes if value in found.sizes else None


def _output_entry(found: PipelineAnalysis, name: str) -> TensorEntry:
    size = found.sizes[name]
    return TensorEntry(name, size.dtype or "object", size.shape, size.nbytes)


def _target_entry(times: UnitTimes) -> TargetEntry:
    """The sources of the times of one side."""
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
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Written,
    device: PipelineTimes,
    cloud: PipelineTimes,
) -> CutEntry:
    cut, graph = written.cut, unrolled.named()
    is_cloud_first = cut.direction == "cloud-first"

    def part(
        stages: tuple[StageEntry, ...] | None, shares: tuple[Share, ...], *, in_cloud: bool
    ) -> PartEntry | None:
        if stages is None:
            return None
        times = cloud if in_cloud else device
        seconds, interval = times.part(found, shares)
        file = _only_file(found, stages)
        return PartEntry(
            file=file,
            latency_s=seconds,
            source=times.source(found, shares),
            interval=interval,
            weight_bytes=cut.cloud_weight_bytes if in_cloud else cut.device_weight_bytes,
            peak_bytes=None if in_cloud else cut.device_peak_bytes,
            stages=stages if file is None else None,
        )

    return CutEntry(
        id=written.id,
        kind=cut.kind,
        head=part(written.head, written.head_shares, in_cloud=is_cloud_first),
        tail=part(written.tail, written.tail_shares, in_cloud=not is_cloud_first),
        boundary=tuple(boundary_entry(graph.tensors[index]) for index in cut.boundary),
        uplink_bytes=cut.uplink_bytes,
        downlink_bytes=cut.downlink_bytes,
        check=None,
        direction=cut.direction,
        uploads=tuple(map(tensor_entry, uploads(graph, cut))) if is_cloud_first else None,
        downloads=tuple(map(tensor_entry, downloads(graph, cut))) if is_cloud_first else None,
    )


def _only_file(found: PipelineAnalysis, stages: tuple[StageEntry, ...]) -> str | None:
    """The file of a part that is one file of the only model, whose tensors keep their names; else None."""
    if found.pipeline.only is None:
        return None
    (call,) = stages[0].calls
    names = [*call.inputs.items(), *call.outputs.items()]
    return call.file if all(tensor == value for tensor, value in names) else None


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
    assert tensor.nbytes is not None, "the solver never lets a tensor of unknown size cross"
    return BoundaryEntry(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes)
