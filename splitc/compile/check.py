"""Check a finished bundle: files, every cut against the whole model."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CheckEntry, Manifest
from splitc.common.errors import BundleError, VerifyError
from splitc.common.memory import memory_shortage
from splitc.common.values import Feeds, Input
from splitc.compile.verify import Pair, reference, tolerance, verify
from splitc.model.analysis import Progress
from splitc.model.feeds import make_feeds
from splitc.model.model import load


@dataclass(frozen=True, slots=True)
class Checked:
    """What every cut was compared with, how far each was off, and what a user should know of how that was done."""

    against: str
    cuts: tuple[tuple[str, CheckEntry], ...]
    notes: tuple[str, ...] = ()


def open_to_check(folder: Path) -> Bundle:
    """Read the bundle in *folder*, and check its files.

    Raises:
        BundleError: a file is damaged, or one side's are missing, or it is too large to be run here.
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
    """The most that is alive at once in any part whose memory is known, weights aside."""
    parts = [cut.device for cut in manifest.cuts]
    known = [(part.peak_bytes, part.weight_bytes) for part in parts if part is not None]
    return max((peak - weights for peak, weights in known if peak is not None), default=0)


def check_bundle(
    bundle: Bundle, model: Path | None, samples: tuple[Path, ...], progress: Progress
) -> Checked:
    """Verify *bundle* against *model*, or against its own whole model.

    Raises:
        BundleError: there is nothing to compare with, or *model* is not the one that was compiled.
        VerifyError: a cut computes something else.
        ModelError: *model* cannot be read, or inputs do not fit.
    """
    whole, name = _whole(bundle, model)
    progress("Running the whole model")
    feeds = inputs_to_check(bundle.manifest, samples)
    against = reference(whole, feeds, tolerance_of(bundle, [whole]), threads=0)
    if against is None:
        raise VerifyError(f"{name} gives another result each time it runs, so that nothing can be compared")
    checks = []
    for cut in bundle.manifest.cuts:
        progress(f"Running cut {cut.id}")
        head, tail = cut.head.file if cut.head else None, cut.tail.file if cut.tail else None
        found = verify(Pair(cut.id, bundle.folder, head, tail), against, threads=0, timed=False).check
        assert found is not None, "verify() checks or raises"
        checks.append((cut.id, found))
    return Checked(name, tuple(checks))


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


def tolerance_of(bundle: Bundle, models: Iterable[Path]) -> float:
    """The tolerance that *bundle* was compiled with; that of *models*, if no cut was verified then."""
    recorded = [cut.check.tolerance for cut in bundle.manifest.cuts if cut.check is not None]
    if recorded:
        return max(recorded)
    loaded = [load(path) for path in models]
    return tolerance(
        (info.dtype for model in loaded for info in model.infos.values()),
        (node.op_type for model in loaded for node in model.ir.graph),
    )


def another_model(bundle: Bundle, given: Path) -> BundleError:
    """What to raise where *given* is not what *bundle* was compiled from."""
    return BundleError(f"{bundle.folder} was compiled from another model than {given}; compile it again")


def _whole(bundle: Bundle, model: Path | None) -> tuple[Path, str]:
    if model is not None:
        if load(model).sha256 != bundle.manifest.model.sha256:
            raise another_model(bundle, model)
        return model, str(model)
    for cut in bundle.manifest.cuts:
        part = cut.head if cut.kind == "all-head" else cut.tail if cut.kind == "all-tail" else None
        if part is not None and part.file is not None:
            return bundle.path(part.file), f"its own {part.file}"
    raise BundleError(f"{bundle.folder}: holds no whole model to compare with; give one with --model")
