"""From what was found, solved and written to the manifest that says so."""

from dataclasses import asdict
from importlib.metadata import version

from splitc.analysis import Analysis
from splitc.bundle import (
    VERSION,
    BoundaryEntry,
    BoxEntry,
    CutEntry,
    HeadEntry,
    Manifest,
    ModelEntry,
    RegretEntry,
    TailEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
)
from splitc.costs import Box
from splitc.cuts import Cut
from splitc.graph import Tensor
from splitc.inference import RUNTIME_VERSION
from splitc.profiles import UnitTimes
from splitc.shipping import Shipped
from splitc.verify import Pair, Timing, Verified


def describe(
    found: Analysis, head: UnitTimes, tail: UnitTimes, box: Box, shipped: Shipped, notes: tuple[str, ...]
) -> Manifest:
    """Fill in the manifest."""
    cut_set = shipped.cut_set
    return Manifest(
        splitc_manifest=VERSION,
        generator={"splitc": version("splitc"), "onnxruntime": RUNTIME_VERSION},
        direction="device-first",
        model=_model_entry(found),
        targets=TargetsEntry(_target_entry(head), _target_entry(tail)),
        box=BoxEntry(**asdict(box)),
        regret=RegretEntry(cut_set.regret_limit, cut_set.regret, len(cut_set.frontier), len(cut_set.cuts)),
        cuts=tuple(
            _cut_entry(cut, pair, verified, found, (head, tail))
            for cut, pair, verified in zip(cut_set.cuts, shipped.pairs, shipped.verified, strict=True)
        ),
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


def _target_entry(times: UnitTimes) -> TargetEntry:
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
    head = tail = None
    if pair.head is not None:
        head_s, interval = _timing(verified.head, cut.head_s, times[0])
        weights, peak = cut.head_weight_bytes, cut.head_peak_bytes
        head = HeadEntry(pair.head, head_s, weights, peak, times[0].source, interval)
    if pair.tail is not None:
        tail_s, interval = _timing(verified.tail, cut.tail_s, times[1])
        tail = TailEntry(pair.tail, tail_s, cut.tail_weight_bytes, times[1].source, interval)
    tensors = found.partition.graph.tensors
    return CutEntry(
        id=pair.id,
        kind=cut.kind,
        head=head,
        tail=tail,
        boundary=tuple(_boundary_entry(tensors[index]) for index in cut.boundary),
        uplink_bytes=cut.uplink_bytes,
        downlink_bytes=cut.downlink_bytes,
        check=verified.check,
    )


def _timing(
    timed: Timing | None, summed_s: float, times: UnitTimes
) -> tuple[float, tuple[float, float] | None]:
    """What was timed of a part, else the sum of its units with the interval of their target."""
    return (summed_s, times.interval) if timed is None else (timed.median_s, timed.interval)


def _boundary_entry(tensor: Tensor) -> BoundaryEntry:
    assert tensor.nbytes is not None, "the solver lets nothing of unknown size cross"
    return BoundaryEntry(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes)
