"""What `splitc compile` and `splitc inspect BUNDLE` print."""

from dataclasses import dataclass, field, fields
from typing import Literal

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import Manifest
from splitc.common.kinds import Direction
from splitc.common.records import SPARSE
from splitc.compile.compile import Compiled
from splitc.compile.report import sides
from splitc.compile.verdict import Verdict

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SidesFacts:
    """What each machine does in one cut of a pipeline, in words; a machine that does nothing is absent."""

    device: str | None = field(default=None, metadata=SPARSE)
    cloud: str | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True, slots=True)
class BestCutFacts:
    """The best cut on one network at its typical rates.

    Attributes:
        conditions: what the choice was made for.
        cut, kind, direction: the chosen cut.
        reason: why it was chosen, in words.
        latency_s: predicted for the chosen cut.
        all_head_s, all_tail_s: predicted without a split: all on the device, all in the cloud. Null where the
            bundle holds no such cut.
        latency_range_s, all_head_range_s, all_tail_range_s: nine of ten real latencies lie in this range; null where
            the spread of the times is not known.
        holds_to_device_slowdown: how many times slower than predicted the device may be before another cut is faster;
            null if no time is predicted, if that never happens, or if a target latency decides.
        sla_s: the target latency that was asked for.
        meets_sla: whether `latency_s` is within `sla_s`; null without a target latency.
        sentence: the choice in plain words.
    """

    network: str
    conditions: Conditions
    cut: str
    kind: Literal["all-head", "split", "all-tail"]
    direction: Direction
    reason: str
    latency_s: float
    latency_range_s: Range | None
    all_head_s: float | None
    all_head_range_s: Range | None
    all_tail_s: float | None
    all_tail_range_s: Range | None
    holds_to_device_slowdown: float | None
    sla_s: float | None
    meets_sla: bool | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFacts:
    """A new bundle, and the best cut on each network.

    Attributes:
        bundle: the folder that was written.
        sides: what each machine does, by the id of the cut; only for a pipeline.
    """

    bundle: str
    manifest: Manifest
    sides: dict[str, SidesFacts] | None = field(default=None, metadata=SPARSE)
    networks: tuple[BestCutFacts, ...]


@dataclass(frozen=True, slots=True)
class BundleFacts(Manifest):
    """The manifest of a bundle, with `sides` for a pipeline; bytes, seconds, bits per second.

    Attributes:
        sides: what each machine does, by the id of the cut; only for a pipeline.
    """

    sides: dict[str, SidesFacts] | None = field(default=None, metadata=SPARSE)


def compile_facts(compiled: Compiled) -> CompileFacts:
    """Everything that `splitc compile` tells."""
    return CompileFacts(
        bundle=str(compiled.folder),
        manifest=compiled.manifest,
        sides=_sides(compiled.manifest),
        networks=tuple(map(_network_facts, compiled.verdicts)),
    )


def bundle_facts(manifest: Manifest) -> BundleFacts:
    """Everything that `splitc inspect` tells of a bundle."""
    plain = {item.name: getattr(manifest, item.name) for item in fields(Manifest)}
    return BundleFacts(**plain, sides=_sides(manifest))


def _sides(manifest: Manifest) -> dict[str, SidesFacts] | None:
    found = {cut.id: SidesFacts(**sides(cut)) for cut in manifest.cuts}
    return found if any(item != SidesFacts() for item in found.values()) else None


def _network_facts(item: Verdict) -> BestCutFacts:
    decision = item.decision
    return BestCutFacts(
        network=item.network,
        conditions=decision.conditions,
        cut=decision.cut.id,
        kind=decision.cut.kind,
        direction=decision.cut.direction,
        reason=decision.reason,
        latency_s=decision.latency_s,
        latency_range_s=item.range_s,
        all_head_s=item.all_head_s,
        all_head_range_s=item.all_head_range_s,
        all_tail_s=item.all_tail_s,
        all_tail_range_s=item.all_tail_range_s,
        holds_to_device_slowdown=item.holds_to,
        sla_s=item.sla_s,
        meets_sla=None if item.sla_s is None else decision.latency_s <= item.sla_s,
        sentence=item.sentence(),
    )
