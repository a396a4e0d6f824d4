"""Check a finished bundle: its files, and every cut against the whole model or pipeline."""

from dataclasses import dataclass
from pathlib import Path

from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CheckEntry, Manifest
from splitc.common.errors import BundleError, VerifyError
from splitc.common.memory import memory_shortage
from splitc.common.values import Feeds, Input
from splitc.compile.pipeline.analyse import LARGE_BYTES
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.spec import DESCRIPTION
from splitc.compile.verification import judgement
from splitc.compile.verification.judgement import Allowed, asked_note
from splitc.compile.verification.verify import Runner, reference, tolerance, verify_cuts
from splitc.compile.verification.whole import Whole, files_of, whole_as_given, whole_in_bundle
from splitc.model.analysis import Progress
from splitc.model.feeds import make_feeds
from splitc.model.model import load


@dataclass(frozen=True, slots=True)
class Checked:
    """What every cut was compared with, the error of each, and notes for the user on how that was done."""

    against: str
    cuts: tuple[tuple[str, CheckEntry], ...]
    notes: tuple[str, ...] = ()


def open_to_check(folder: Path) -> Bundle:
    """Read the bundle in *folder*, and check its files.

    Raises:
        BundleError: a file is damaged, the files of one side are missing, or the bundle is too large to be run here.
    """
    bundle = read_bundle(folder)
    if bundle.manifest.side != "both":
        raise BundleError(
            f"{folder}: holds only what the {bundle.manifest.side} needs; verify the bundle that it was packed from"
        )
    stored = sum(file.bytes for file in bundle.manifest.files)
    shortage = memory_shortage(stored + _alive_bytes(bundle.manifest))
    if shortage is not None:
        raise BundleError(f"{folder}: cannot be verified on this machine: {shortage}")
    return bundle


def _alive_bytes(manifest: Manifest) -> int:
    """The largest working memory of any part whose memory is known, without weights."""
    parts = [cut.device for cut in manifest.cuts]
    known = [(part.peak_bytes, part.weight_bytes) for part in parts if part is not None]
    return max((peak - weights for peak, weights in known if peak is not None), default=0)


def check_bundle(
    bundle: Bundle,
    model: Path | None,
    samples: tuple[Path, ...],
    progress: Progress,
    asked: float | None = None,
) -> Checked:
    """Verify *bundle* against the model or pipeline *model*, or against its own, all on one side.

    Long loops are shortened as at compile time.

    Args:
        asked: the tolerance that the user wants; None for that of the build.

    Raises:
        BundleError: there is nothing to compare with, or *model* is not what was compiled.
        VerifyError: a cut computes something else.
        ModelError: *model* cannot be read, or inputs do not fit.
    """
    whole, name = _whole(bundle, model)
    progress("Running the whole model")
    feeds = inputs_to_check(bundle.manifest, samples)
    if len(whole.models) > 1 and sum(file.bytes for file in bundle.manifest.files) > LARGE_BYTES:
        feeds = feeds if samples else feeds[:1]
    allowed = Allowed(asked, is_asked=True) if asked is not None else Allowed(_tolerance(bundle, whole))
    against = reference(whole, feeds, allowed, threads=0)
    if against is None:
        raise VerifyError(f"{name} gives another result each time it runs, so nothing can be compared")
    files = files_of(bundle)
    verified = tuple(
        verify_cuts(bundle.manifest.cuts, files, against, Runner(files.path, threads=0), progress)
    )
    notes = judgement.notes((item.cut.id, item.unusual) for item in verified)
    return Checked(
        name,
        tuple((item.cut.id, item.check) for item in verified),
        (*whole.notes(), *asked_note(allowed), *notes),
    )


def inputs_to_check(manifest: Manifest, samples: tuple[Path, ...]) -> tuple[Feeds, ...]:
    """The given samples, or random inputs of the manifest's sizes.

    Raises:
        ModelError: a sample cannot be read or does not fit.
    """
    inputs = tuple(
        Input(item.name, None if item.dtype == "object" else item.dtype, item.shape)
        for item in manifest.model.inputs
    )
    return make_feeds(inputs, manifest.model.dims, samples)


def _tolerance(bundle: Bundle, whole: Whole) -> float:
    """The tolerance that *bundle* was compiled with; that of the models of *whole*, if no cut was verified then."""
    recorded = [cut.check.tolerance for cut in bundle.manifest.cuts if cut.check is not None]
    if recorded:
        return min(recorded)  # where rounding explained more, it may have to explain it again
    loaded = [load(path) for path in whole.models]
    return tolerance(
        (info.dtype for model in loaded for info in model.infos.values()),
        (node.op_type for model in loaded for node in model.ir.graph),
    )


def _whole(bundle: Bundle, model: Path | None) -> tuple[Whole, str]:
    if model is not None:
        pipeline = load_pipeline(model)
        if pipeline.sha256 != bundle.manifest.model.sha256:
            raise BundleError(
                f"{bundle.folder} was compiled from another model than {model}; compile it again"
            )
        return whole_as_given(pipeline), str(model)
    cuts = bundle.manifest.cuts
    for cut in cuts:
        part = cut.head if cut.kind == "all-head" else cut.tail if cut.kind == "all-tail" else None
        if part is not None:
            name = part.file or f"cut {cut.id}, which is {cut.kind}"
            return whole_in_bundle(bundle, cut, part), f"its own {name}"
    parts = [part for cut in cuts for part in (cut.head, cut.tail) if part is not None]
    noun, how = ("pipeline", f"its {DESCRIPTION}") if any(part.stages for part in parts) else ("model", "it")
    raise BundleError(f"{bundle.folder}: holds no whole {noun} to compare with; give {how} with --model")
