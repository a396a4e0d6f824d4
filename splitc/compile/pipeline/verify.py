"""Compare every cut that was written of a pipeline with its models as they were given."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from splitc.bundle.manifest import CutEntry
from splitc.compile.pipeline.analyse import PipelineAnalysis
from splitc.compile.pipeline.composing import compare_cuts, results
from splitc.compile.verify import tolerance
from splitc.compile.whole import files_in, whole_as_given
from splitc.model.analysis import Progress


def verify_pipeline(
    found: PipelineAnalysis, cuts: Sequence[CutEntry], folder: Path, progress: Progress
) -> tuple[tuple[CutEntry, ...], tuple[str, ...]]:
    """Return *cuts*, whose files lie in *folder*, with their checks, and notes on what was not checked.

    Raises:
        VerifyError: a cut does not compute what the whole pipeline does.
    """
    if not found.feeds:
        return tuple(cuts), ("cuts were not verified: too little memory to run them",)
    progress("Running the whole pipeline")
    whole = whole_as_given(found.pipeline)
    wanted = results(whole, found.feeds)
    if wanted is None:
        return tuple(cuts), ("cuts were not verified: the pipeline gives another result each time it runs",)
    allowed = tolerance(
        (size.dtype for analysis in found.analyses for size in analysis.sizes.values()),
        (node.op_type for analysis in found.analyses for node in analysis.sources.nodes),
    )
    checks = compare_cuts(cuts, files_in(folder), whole, found.feeds, wanted, allowed, progress)
    verified = tuple(replace(cut, check=check) for cut, check in zip(cuts, checks, strict=True))
    return verified, whole.notes()
