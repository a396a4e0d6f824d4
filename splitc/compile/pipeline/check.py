"""Check a finished bundle of a pipeline: every cut against the whole."""

from pathlib import Path

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import Manifest
from splitc.common.errors import BundleError, VerifyError
from splitc.compile.check import Checked, another_model, inputs_to_check, tolerance_of
from splitc.compile.pipeline.analyse import LARGE_BYTES
from splitc.compile.pipeline.composing import compare_cuts, results
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.spec import DESCRIPTION
from splitc.compile.whole import Whole, files_of, whole_as_given, whole_in_bundle
from splitc.model.analysis import Progress


def is_of_pipeline(manifest: Manifest) -> bool:
    """Whether a pipeline was compiled, not a single model."""
    parts = [part for cut in manifest.cuts for part in (cut.head, cut.tail)]
    return any(part.stages is not None for part in parts if part is not None)


def check_pipeline(
    bundle: Bundle, model: Path | None, samples: tuple[Path, ...], progress: Progress
) -> Checked:
    """Verify *bundle* against the pipeline that *model* describes, or against its own stages, all on one side.

    Long loops are shortened as at compile time.

    Raises:
        BundleError: there is nothing to compare with, or *model* is not what was compiled.
        VerifyError: a cut computes something else.
        ModelError: the pipeline cannot be read, or inputs do not fit.
    """
    whole, name = _whole(bundle, model)
    progress("Running the whole pipeline")
    feeds = inputs_to_check(bundle.manifest, samples)
    if sum(file.bytes for file in bundle.manifest.files) > LARGE_BYTES and not samples:
        feeds = feeds[:1]
    wanted = results(whole, feeds)
    if wanted is None:
        raise VerifyError(f"{name} gives another result each time it runs, so that nothing can be compared")
    allowed = tolerance_of(bundle, (whole.files.path(file) for file in _models(whole)))
    cuts = bundle.manifest.cuts
    checks = compare_cuts(cuts, files_of(bundle), whole, feeds, wanted, allowed, progress)
    return Checked(
        name, tuple((cut.id, check) for cut, check in zip(cuts, checks, strict=True)), whole.notes()
    )


def _models(whole: Whole) -> list[str]:
    return list(dict.fromkeys(call.file for stage in whole.stages for call in stage.calls))


def _whole(bundle: Bundle, model: Path | None) -> tuple[Whole, str]:
    if model is not None:
        pipeline = load_pipeline(model)
        if pipeline.sha256 != bundle.manifest.model.sha256:
            raise another_model(bundle, model)
        return whole_as_given(pipeline), str(model)
    for cut in bundle.manifest.cuts:
        part = cut.head if cut.kind == "all-head" else cut.tail if cut.kind == "all-tail" else None
        if part is not None and part.stages is not None:
            return whole_in_bundle(bundle, part.stages), f"its own cut {cut.id}, which is {cut.kind}"
    raise BundleError(
        f"{bundle.folder}: holds no whole pipeline to compare with; give its {DESCRIPTION} with --model"
    )
