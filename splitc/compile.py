"""From an ONNX file to a verified bundle: the stages in order, one function each."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from splitc import report
from splitc.analysis import Analysis, AnalysisOptions, Progress, analyse
from splitc.atomic import new_folder
from splitc.bundle import FileEntry, Manifest, file_entry, write_manifest
from splitc.cache import Cache
from splitc.costs import Box, Costs, Energy
from splitc.cuts import CutSet
from splitc.describe import Shipped, describe
from splitc.emit import Emitter, head_part, prepare, tail_part, write_part
from splitc.errors import ProfileError, TargetError
from splitc.limits import LimitOptions, read_limits
from splitc.onnxfile import digest
from splitc.outlook import Outlook, outlook
from splitc.profiles import Profile, UnitTimes, measure_here, measured_times, predicted_times, read_profile
from splitc.records import RecordError, decode, encode
from splitc.solve import solve
from splitc.targets import Network, Target, load_network, load_target
from splitc.verify import Pair, Reference, Verified, reference, tolerance, verify

STANDARD_NETWORKS = ("wifi", "5g", "lte", "3g")
REPORT = "report.html"
# Ordinary app runs were measured 3 to 9 times slower than figures derived from peak rates.
_PREDICTED_HEAD_SLOWDOWN = (0.5, 10.0)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What `splitc compile` can be told.

    Attributes:
        networks: names or .toml files; empty for the default box, and the standard four in the outlook.
        head_profile, tail_profile: recorded profiles, used instead of measuring or predicting.
    """

    analysis: AnalysisOptions
    device: str
    cloud: str = "local"
    networks: tuple[str, ...] = ()
    sla_s: float | None = None
    max_cuts: int = 8
    regret: float = 0.01
    limits: LimitOptions = field(default_factory=LimitOptions)
    head_profile: Path | None = None
    tail_profile: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle on disk and what it is worth on each network."""

    folder: Path
    manifest: Manifest
    outlooks: tuple[Outlook, ...]


def compile_model(
    path: Path, out: Path | None, options: CompileOptions, cache: Cache, progress: Progress
) -> Compiled:
    """Compile the model at *path* into the folder *out* (default artifacts/<model>-<device>).

    The folder appears whole or not at all; the model is only read.

    Raises:
        SplitcError: anything in the way, in one sentence; nothing is left behind.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    head_target, tail_target = load_target(options.device), load_target(options.cloud)
    networks = tuple(load_network(name) for name in options.networks or STANDARD_NETWORKS)
    energy = _energy(head_target, networks, options)
    folder = out or Path("artifacts") / f"{path.stem}-{head_target.name}"
    with new_folder(folder) as (staging, scratch):
        found = analyse(path, options.analysis, scratch, cache, progress)
        graph = found.partition.graph
        limits = read_limits(options.limits, found.sources, graph, found.original)
        progress(f"Timing the cloud side, {tail_target.name}")
        tail = unit_times(tail_target, options.tail_profile, "--cloud-profile", found, cache)
        progress(f"Timing the device side, {head_target.name}")
        head = unit_times(head_target, options.head_profile, "--device-profile", found, cache)
        progress("Solving")
        box = _box(networks if options.networks else (), head)
        costs = Costs(graph, head.seconds, tail.seconds, energy)
        cut_set = solve(costs, box, limits, max_cuts=options.max_cuts, regret=options.regret)
        progress("Writing heads and tails")
        emitter = prepare(found.model, graph, found.sources, found.sizes, staging)
        pairs, files = _emit(emitter, cut_set)
        progress(f"Verifying {len(pairs)} cuts")
        verified, notes = _verify(pairs, cut_set, found, (head, tail), cache, enabled=options.verify)
        progress("Writing the report")
        shipped = Shipped(cut_set, pairs, verified, files)
        manifest = describe(
            found,
            head,
            tail,
            box,
            shipped,
            (*_caveats((head_target, head), (tail_target, tail)), *found.notes, *notes),
        )
        outlooks = outlook(manifest, networks, options.sla_s)
        (staging / REPORT).write_text(report.render(manifest, outlooks, networks), encoding="utf-8")
        manifest = replace(manifest, files=(*manifest.files, file_entry(staging, REPORT)))
        write_manifest(staging, manifest)
    return Compiled(folder, manifest, outlooks)


def unit_times(
    target: Target, recorded: Path | None, option: str, found: Analysis, cache: Cache
) -> UnitTimes:
    """Times of every unit on *target*: from the recorded profile, measured here, or predicted.

    Raises:
        ProfileError: the profile is of another model, or measuring failed.
        TargetError: the target is not this machine and has no descriptor.
    """
    if recorded is not None:
        # The program, run by hand, knows nothing of external data: it prints the digest of the file alone.
        accepted = {found.original.sha256, digest([found.original.path]), found.model.sha256}
        profile = read_profile(recorded, found.original, accepted)
        _check_dims(recorded, profile, found)
        return measured_times(profile, target.name, found.model, found.sources, found.partition, here=False)
    if target.machine != "this":
        return predicted_times(target, found.partition, option)
    if not found.feeds:
        raise TargetError(
            f"{found.model.name} is too large to be profiled here; give a recorded profile with {option}"
        )
    profile = measure_here(found.model, found.feeds[0], target.threads or usable_cores(), found.dims, cache)
    return measured_times(profile, target.name, found.model, found.sources, found.partition, here=True)


def _check_dims(path: Path, profile: Profile, found: Analysis) -> None:
    for name in sorted(profile.dims.keys() & found.dims.keys()):
        if profile.dims[name] != found.dims[name]:
            raise ProfileError(
                f"{path}: was recorded with {name}={profile.dims[name]}, but the model is sized at "
                f"{name}={found.dims[name]}; give --dim {name}={profile.dims[name]} or record another"
            )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caveats(*sides: tuple[Target, UnitTimes]) -> tuple[str, ...]:
    """What the intervals of predicted times do not cover."""
    return tuple(
        f"times on {target.name} are predicted: {target.descriptor.caveat}"
        for target, times in sides
        if times.source == "predicted" and target.descriptor is not None
    )


def _box(networks: tuple[Network, ...], head: UnitTimes) -> Box:
    """The default box; narrowed to the links that *networks* cover, if any are given."""
    box = replace(Box(), head_slowdown=_PREDICTED_HEAD_SLOWDOWN) if head.source == "predicted" else Box()
    if not networks:
        return box

    def span(name: str) -> tuple[float, float]:
        spreads = [getattr(network, name) for network in networks]
        return min(spread.lowest for spread in spreads), max(spread.highest for spread in spreads)

    return replace(box, uplink_bps=span("uplink_bps"), downlink_bps=span("downlink_bps"), rtt_s=span("rtt_s"))


def _energy(target: Target, networks: tuple[Network, ...], options: CompileOptions) -> Energy | None:
    if options.limits.max_energy_j is None:
        return None
    if len(options.networks) != 1:
        raise TargetError("--max-energy depends on the radio: name exactly one network with --network")
    network = networks[0]
    if target.active_w is None:
        raise TargetError(
            f"--max-energy needs active_w, which target '{target.name}' lacks; add it in a .toml of your own"
        )
    if network.uplink_j_per_byte is None or network.downlink_j_per_byte is None:
        raise TargetError(
            f"--max-energy needs uplink_j_per_byte and downlink_j_per_byte, which network '{network.name}' lacks; "
            "add them in a .toml of your own"
        )
    return Energy(target.active_w.value, network.uplink_j_per_byte.value, network.downlink_j_per_byte.value)


def _emit(emitter: Emitter, cut_set: CutSet) -> tuple[tuple[Pair, ...], tuple[FileEntry, ...]]:
    pairs, files = [], [emitter.weights_file]
    for number, cut in enumerate(cut_set.cuts):
        written: list[str | None] = []
        for side, part in (("head", head_part(emitter, cut)), ("tail", tail_part(emitter, cut))):
            if part is not None:
                files.append(write_part(emitter, part, f"{side}-c{number}.onnx"))
            written.append(files[-1].path if part is not None else None)
        pairs.append(Pair(f"c{number}", emitter.folder, *written))
    return tuple(pairs), tuple(files)


def _verify(
    pairs: tuple[Pair, ...],
    cut_set: CutSet,
    found: Analysis,
    times: tuple[UnitTimes, UnitTimes],
    cache: Cache,
    *,
    enabled: bool,
) -> tuple[tuple[Verified, ...], tuple[str, ...]]:
    """Verify every pair and time what runs here; a note says why where that is not possible."""
    unverified = (Verified(None, None, None),) * len(pairs)
    if not enabled:
        return unverified, ("cuts were not verified: --no-verify",)
    if not found.feeds:
        return unverified, ("cuts were not verified: too little memory to run them here",)
    threads = next((side.threads for side in reversed(times) if side.here), usable_cores())
    allowed = tolerance(
        (size.dtype for size in found.sizes.values()), (node.op_type for node in found.sources.nodes)
    )
    against = reference(found.original.path, found.feeds, allowed, threads)
    if against is None:
        return unverified, ("cuts were not verified: the model gives another result each time it runs",)
    head, tail = times
    verified = []
    for pair, cut in zip(pairs, cut_set.cuts, strict=True):
        # Timings stay with the profiles that they belong to, so that the next build gets the same bytes.
        key = (head.sha256, tail.sha256, head.here, tail.here, found.model.sha256, sorted(cut.head))
        verified.append(_verify_pair(pair, against, threads, key, cache, head=head.here, tail=tail.here))
    return tuple(verified), ()


@dataclass(frozen=True, slots=True)
class _Timing:
    """What the cache holds of a cut: how long its parts took here; None for one that is another machine's."""

    head_s: float | None
    tail_s: float | None


def _verify_pair(
    pair: Pair,
    against: Reference,
    threads: int,
    key: tuple[object, ...],
    cache: Cache,
    *,
    head: bool,
    tail: bool,
) -> Verified:
    """Verify *pair*, and time the sides that are this machine: once for each *key*."""
    try:
        kept = decode(_Timing, cache.get("timings", key), "cache")
    except RecordError:
        kept = None
    result = verify(pair, against, threads, timed=kept is None and (head or tail))
    if kept is None:
        # A side that is another machine keeps the times of its own profile.
        kept = _Timing(result.head_s if head else None, result.tail_s if tail else None)
        cache.put("timings", key, encode(kept))
    return replace(result, head_s=kept.head_s, tail_s=kept.tail_s)
