"""Check a finished bundle: files, every cut against the whole model."""

from dataclasses import dataclass
from pathlib import Path

from splitc.analysis import Progress, make_feeds
from splitc.bundle import Bundle, CheckEntry, read_bundle
from splitc.errors import BundleError, VerifyError
from splitc.inference import Input
from splitc.model import load
from splitc.verify import Pair, memory_shortage, reference, tolerance, verify


@dataclass(frozen=True, slots=True)
class Checked:
    """What every cut was compared with, and how far each was off."""

    against: str
    cuts: tuple[tuple[str, CheckEntry], ...]


def check_bundle(folder: Path, model: Path | None, samples: tuple[Path, ...], progress: Progress) -> Checked:
    """Verify the bundle in *folder* against *model*, or against its own whole model.

    Raises:
        BundleError: a file is damaged, or there is nothing to compare with.
        VerifyError: a cut computes something else.
        ModelError: *model* is not the one that was compiled, or inputs do not fit.
    """
    progress("Checking files")
    bundle = read_bundle(folder)
    whole, name = _whole(bundle, model)
    entry = bundle.manifest.model
    inputs = tuple(
        Input(item.name, None if item.dtype == "object" else item.dtype, item.shape) for item in entry.inputs
    )
    shortage = memory_shortage(sum(file.bytes for file in bundle.manifest.files))
    if shortage is not None:
        raise BundleError(f"{folder}: cannot be verified on this machine: {shortage}")
    progress("Running the whole model")
    against = reference(whole, make_feeds(inputs, entry.dims, samples), _allowed(bundle, whole), threads=0)
    if against is None:
        raise VerifyError(f"{name} gives another result each time it runs, so that nothing can be compared")
    checks = []
    for cut in bundle.manifest.cuts:
        progress(f"Running cut {cut.id}")
        pair = Pair(cut.id, folder, cut.head.file if cut.head else None, cut.tail.file if cut.tail else None)
        found = verify(pair, against, threads=0, timed=False).check
        assert found is not None, "verify() checks or raises"
        checks.append((cut.id, found))
    return Checked(name, tuple(checks))


def _allowed(bundle: Bundle, whole: Path) -> float:
    """The tolerance that the bundle was compiled with; that of the model, if no cut was verified then."""
    recorded = [cut.check.tolerance for cut in bundle.manifest.cuts if cut.check is not None]
    if recorded:
        return max(recorded)
    model = load(whole)
    return tolerance((info.dtype for info in model.infos.values()), (node.op_type for node in model.ir.graph))


def _whole(bundle: Bundle, model: Path | None) -> tuple[Path, str]:
    if model is not None:
        if load(model).sha256 != bundle.manifest.model.sha256:
            raise BundleError(
                f"{bundle.folder} was compiled from another model than {model}; compile it again"
            )
        return model, str(model)
    for cut in bundle.manifest.cuts:
        part = cut.head if cut.kind == "all-head" else cut.tail if cut.kind == "all-tail" else None
        if part is not None:
            return bundle.path(part.file), f"its own {part.file}"
    raise BundleError(f"{bundle.folder}: holds no whole model to compare with; give one with --model")
