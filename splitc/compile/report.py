"""The report in a bundle: what was decided and why, for a person, as one self-contained HTML file."""

from collections.abc import Callable, Sequence
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined

from splitc.bundle.manifest import CutEntry, Manifest, PartEntry, StageEntry
from splitc.common.formatting import (
    escape_inside,
    format_bytes,
    format_rate,
    format_seconds,
    format_seconds_range,
    format_share,
    format_source,
)
from splitc.common.kinds import Source
from splitc.compile.chart import chart
from splitc.compile.verdict import Verdict
from splitc.profile.targets.description import Network

_COLOURS = 6


def render(manifest: Manifest, verdicts: Sequence[Verdict], networks: Sequence[Network]) -> str:
    """Return the report as HTML; equal arguments give equal text."""
    environment = Environment(
        loader=PackageLoader("splitc", "compile"),
        autoescape=True,
        finalize=escape_inside,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(_FILTERS)
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        verdicts=verdicts,
        networks=networks,
        chart=chart(manifest, verdicts),
        keys=_keys(manifest.cuts),
        stages=_stages(manifest.cuts),
        is_private=any(cut.leak is not None for cut in manifest.cuts),
        leak_meaning=leak_meaning(manifest.cuts),
        sources={"device": manifest.targets.device.source, "cloud": manifest.targets.cloud.source},
    )


def sides(cut: CutEntry) -> dict[str, str]:
    """The stages that each side runs, in words, in running order; empty for a cut of a single model.

    Iterations are counted from 1.
    """
    names = ("cloud", "device") if cut.is_cloud_first else ("device", "cloud")
    parts: list[tuple[str, PartEntry | None]] = list(zip(names, (cut.head, cut.tail), strict=True))
    found = {name: part.stages for name, part in parts if part is not None and part.stages is not None}
    lists = [{stage.name for stage in stages if stage.loop is None} for stages in found.values()]
    halved = lists[0] & lists[1] if len(lists) > 1 else set()
    return {
        name: ", ".join(
            _stage(stage, ("beginning", "rest")[number]) if stage.name in halved else _stage(stage)
            for stage in stages
        )
        for number, (name, stages) in enumerate(found.items())
    }


def leak(cut: CutEntry) -> str:
    """How much *cut* gives away of a private tensor, in words; empty if none is private."""
    if cut.leak is None:
        return ""
    return "unknown" if cut.leak.share is None else f"{100 * cut.leak.share:.0f} %"


def leak_meaning(cuts: Sequence[CutEntry]) -> str:
    """What the leak figures of *cuts* say, in a sentence; empty if none is known."""
    measured = [cut.leak for cut in cuts if cut.leak is not None and cut.leak.tensor is not None]
    if not measured:
        return ""
    tensors = " or ".join(dict.fromkeys(f"'{entry.tensor}'" for entry in measured))
    return (
        f"Leak: the share of the variance of {tensors} that a linear decoder rebuilds from what crosses, on "
        f"{measured[0].samples} samples that it was not fitted to; a lower bound on what an attacker gets."
    )


def _stages(cuts: Sequence[CutEntry]) -> str:
    """All stages of a pipeline, in words; empty for a single model, or if no cut has all of them on one side."""
    return next((told for cut in cuts if cut.kind != "split" for told in sides(cut).values()), "")


def _stage(stage: StageEntry, what: str | None = None) -> str:
    if what is not None:
        return f"{what} of {stage.name}"
    if stage.loop is None:
        return stage.name
    first, last = stage.loop.first + 1, stage.loop.end
    return f"{stage.name} {first}-{last}" if first < last else f"{stage.name} {last}"


def _keys(cuts: Sequence[CutEntry]) -> dict[str, str]:
    """The CSS class that colours each cut, alike in tables and chart."""
    numbers = count()
    return {cut.id: cut.kind if cut.kind != "split" else f"split-{next(numbers) % _COLOURS}" for cut in cuts}


def _sentence(verdict: Verdict) -> str:
    text = verdict.sentence()
    return f"{text[0].upper()}{text[1:]}."


def _gain(verdict: Verdict) -> float | None:
    """How many times as fast as the better of device and cloud alone; None if the bundle has neither of them."""
    alone = [value for value in (verdict.all_head_s, verdict.all_tail_s) if value is not None]
    return min(alone) / verdict.decision.latency_s if alone else None


def _estimated(cut: CutEntry) -> bool:
    """Whether the cut's latency rests on a prediction."""
    sources: list[Source] = [part.source for part in (cut.head, cut.tail) if part is not None]
    return "predicted" in sources


def _shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


_FILTERS: dict[str, Callable[..., object]] = {
    "bytes": format_bytes,
    "estimated": _estimated,
    "gain": _gain,
    "leak": leak,
    "percent": format_share,
    "rate": format_rate,
    "seconds": format_seconds,
    "seconds_range": lambda bounds: format_seconds_range(*bounds),
    "source": lambda target: format_source(target.source, target.calibration_runs),
    "sentence": _sentence,
    "sides": sides,
    "shape": _shape,
}
