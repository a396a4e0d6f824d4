"""From what was found, solved and written of a pipeline to its manifest."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from splitc.bundle.manifest import (
    VERSION,
    BoxEntry,
    CutEntry,
    FileEntry,
    Manifest,
    ModelEntry,
    PartEntry,
    RegretEntry,
    TargetsEntry,
    TensorEntry,
    direction_of,
)
from splitc.common.ort import RUNTIME_VERSION
from splitc.compile.describe import boundary_entry, downloads, target_entry, tensor_entry, uploads
from splitc.compile.emit import Written
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.times import PipelineTimes
from splitc.compile.pipeline.unrolled import Unrolled
from splitc.solve.costs import Box
from splitc.solve.cuts import CutSet


def cut_entries(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Sequence[Written],
    device: PipelineTimes,
    cloud: PipelineTimes,
) -> tuple[CutEntry, ...]:
    """Describe the cuts; none is verified yet."""
    return tuple(_cut_entry(found, unrolled, item, device, cloud) for item in written)


def describe_pipeline(
    found: PipelineAnalysis,
    device: PipelineTimes,
    cloud: PipelineTimes,
    box: Box,
    cut_set: CutSet,
    cuts: tuple[CutEntry, ...],
    files: Sequence[FileEntry],
    notes: tuple[str, ...],
) -> Manifest:
    """Fill in the manifest."""
    return Manifest(
        splitc_manifest=VERSION,
        generator={"splitc": version("splitc"), "onnxruntime": RUNTIME_VERSION},
        direction=direction_of(cuts),
        model=_model_entry(found),
        targets=TargetsEntry(target_entry(device.whole), target_entry(cloud.whole)),
        box=BoxEntry(**asdict(box)),
        regret=RegretEntry(cut_set.regret_limit, cut_set.regret, len(cut_set.frontier), len(cut_set.cuts)),
        cuts=cuts,
        files=tuple(sorted(files, key=lambda entry: entry.path)),
        notes=notes,
    )


def _model_entry(found: PipelineAnalysis) -> ModelEntry:
    opsets: dict[str, int] = {}
    for analysis in found.analyses:
        for domain, number in analysis.model.ir.opset_imports.items():
            opsets[domain] = max(number, opsets.get(domain, 0))
    return ModelEntry(
        name=found.pipeline.name,
        sha256=found.pipeline.sha256,
        opsets=dict(sorted(opsets.items())),
        inputs=tuple(_value_entry(found, item.name, item.shape) for item in found.inputs),
        outputs=tuple(_value_entry(found, name, found.sizes[name].shape) for name in found.pipeline.outputs),
        dims=dict(found.dims),
        simplified=any(item.model is not item.original for item in found.analyses),
    )


def _value_entry(found: PipelineAnalysis, name: str, shape: tuple[int | str, ...]) -> TensorEntry:
    size = found.sizes[name]
    return TensorEntry(name, size.dtype or "object", shape, size.nbytes)


def _cut_entry(
    found: PipelineAnalysis,
    unrolled: Unrolled,
    written: Written,
    device: PipelineTimes,
    cloud: PipelineTimes,
) -> CutEntry:
    cut, graph = written.cut, unrolled.named()
    is_cloud_first = cut.direction == "cloud-first"
    head = tail = None
    on_device, in_cloud = cut.device_weight_bytes, cut.cloud_weight_bytes
    if written.head is not None:
        times, weights = (cloud, in_cloud) if is_cloud_first else (device, on_device)
        peak = None if is_cloud_first else cut.device_peak_bytes
        head_s, interval = times.part(found, written.head_shares)
        source = times.source(found, written.head_shares)
        head = PartEntry(
            file=None,
            latency_s=head_s,
            weight_bytes=weights,
            peak_bytes=peak,
            source=source,
            interval=interval,
            stages=written.head,
        )
    if written.tail is not None:
        times, weights = (device, on_device) if is_cloud_first else (cloud, in_cloud)
        peak = cut.device_peak_bytes if is_cloud_first else None
        tail_s, interval = times.part(found, written.tail_shares)
        source = times.source(found, written.tail_shares)
        tail = PartEntry(
            file=None,
            latency_s=tail_s,
            weight_bytes=weights,
            source=source,
            interval=interval,
            peak_bytes=peak,
            stages=written.tail,
        )
    return CutEntry(
        id=written.id,
        kind=cut.kind,
        head=head,
        tail=tail,
        boundary=tuple(boundary_entry(graph.tensors[index]) for index in cut.boundary),
        uplink_bytes=cut.uplink_bytes,
        downlink_bytes=cut.downlink_bytes,
        check=None,
        direction=cut.direction,
        uploads=tuple(map(tensor_entry, uploads(graph, cut))) if is_cloud_first else None,
        downloads=tuple(map(tensor_entry, downloads(graph, cut))) if is_cloud_first else None,
    )
