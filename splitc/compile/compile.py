"""From an ONNX file to a verified bundle: the stages in order, one function each."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from splitc.bundle.folder import file_entry, write_manifest
from splitc.bundle.manifest import Manifest
from splitc.bundle.staging import new_folder
from splitc.common.cache import Cache
from splitc.common.errors import ProfileError, TargetError
from splitc.common.kinds import Direction
from splitc.compile import report
from splitc.compile.describe import describe
from splitc.compile.limits import LimitOptions, read_limits
from splitc.compile.parts import prepare
from splitc.compile.shipping import Shipped, emit_cuts, input_conversions, unverified, verify_cuts
from splitc.compile.verdict import Verdict, judge
from splitc.compile.verify import Verified
from splitc.model.analysis import AnalysisOptions, Progress, analyse
from splitc.profile.document import UnitTimes
from splitc.profile.targets.description import Network, Target, load_network, load_target
from splitc.profile.unit_times import caveats, unit_times
from splitc.solve.costs import Box, Costs, Energy
from splitc.solve.solve import solve

STANDARD_NETWORKS = ("wifi", "5g", "lte", "3g")
REPORT = "report.html"
# Ordinary app runs were measured 3 to 9 times slower than figures derived from peak rates.
_PREDICTED_DEVICE_SLOWDOWN = (0.5, 10.0)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What `splitc compile` can be told.

    Attributes:
        networks: names or .toml files; empty for the default box, and the standard four in the verdict.
        directions: what may come first where both sides work, the device or the cloud.
        device_profiles, cloud_profiles: recorded profiles, used instead of measuring or predicting: one of a
            model, or files and folders with those of a pipeline's models.
    """

    analysis: AnalysisOptions
    device: str
    cloud: str = "local"
    directions: tuple[Direction, ...] = ("device-first",)
    networks: tuple[str, ...] = ()
    sla_s: float | None = None
    max_cuts: int = 8
    regret: float = 0.01
    limits: LimitOptions = field(default_factory=LimitOptions)
    device_profiles: tuple[Path, ...] = ()
    cloud_profiles: tuple[Path, ...] = ()
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle on disk and what it is worth on each network."""

    folder: Path
    manifest: Manifest
    verdicts: tuple[Verdict, ...]


def compile_model(
    path: Path, out: Path | None, options: CompileOptions, cache: Cache, progress: Progress
) -> Compiled:
    """Compile the model at *path* into the folder *out* (default artifacts/<model>-<device>).

    The folder appears whole or not at all; the model is only read.

    Raises:
        SplitcError: anything in the way, in one sentence; nothing is left behind.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    device_target, cloud_target = load_target(options.device), load_target(options.cloud)
    networks = tuple(load_network(name) for name in options.networks or STANDARD_NETWORKS)
    energy = energy_for(device_target, networks, options)
    folder = out or Path("artifacts") / f"{path.stem}-{device_target.name}"
    with new_folder(folder) as (staging, scratch):
        found = analyse(path, options.analysis, scratch, cache, progress)
        graph = found.partition.graph
        limits = read_limits(options.limits, found.sources, graph, found.original)
        progress(f"Timing the cloud side, {cloud_target.name}")
        recorded = _only(options.cloud_profiles, "--cloud-profile")
        cloud = unit_times(cloud_target, recorded, "--cloud-profile", found, cache)
        progress(f"Timing the device side, {device_target.name}")
        recorded = _only(options.device_profiles, "--device-profile")
        device = unit_times(device_target, recorded, "--device-profile", found, cache)
        progress("Solving")
        box = box_for(networks if options.networks else (), device)
        costs = Costs(
            graph, device.seconds, cloud.seconds, energy, device.fixed_s or 0.0, cloud.fixed_s or 0.0
        )
        cut_set = solve(
            costs,
            box,
            limits,
            directions=options.directions,
            max_cuts=options.max_cuts,
            regret=options.regret,
        )
        progress("Writing heads and tails")
        emitter = prepare(found.model, graph, found.sources, found.sizes, staging)
        pairs, files = emit_cuts(emitter, cut_set)
        verified: tuple[Verified, ...] = unverified(pairs)
        unverified_because: str | None = "cuts were not verified: --no-verify"
        if options.verify:
            verified, unverified_because = verify_cuts(
                pairs, cut_set, found, (device, cloud), cache, progress
            )
        progress("Writing the report")
        notes = (*caveats((device_target, device), (cloud_target, cloud)), *found.notes)
        notes += input_conversions(cut_set, found)
        notes += (unverified_because,) if unverified_because else ()
        shipped = Shipped(cut_set, pairs, verified, files)
        manifest = describe(found, device, cloud, box, shipped, notes)
        verdicts = judge(manifest, networks, options.sla_s)
        (staging / REPORT).write_text(report.render(manifest, verdicts, networks), encoding="utf-8")
        manifest = replace(manifest, files=(*manifest.files, file_entry(staging, REPORT)))
        write_manifest(staging, manifest)
    return Compiled(folder, manifest, verdicts)


def _only(profiles: tuple[Path, ...], option: str) -> Path | None:
    if len(profiles) > 1:
        raise ProfileError(
            f"a model has one profile on a machine, but {option} names {len(profiles)}; name one"
        )
    return profiles[0] if profiles else None


def box_for(networks: tuple[Network, ...], device: UnitTimes) -> Box:
    """The default box; narrowed to the links that *networks* cover, if any are given."""
    box = (
        replace(Box(), device_slowdown=_PREDICTED_DEVICE_SLOWDOWN) if device.source == "predicted" else Box()
    )
    if not networks:
        return box

    def span(name: str) -> tuple[float, float]:
        spreads = [getattr(network, name) for network in networks]
        return min(spread.lowest for spread in spreads), max(spread.highest for spread in spreads)

    return replace(box, uplink_bps=span("uplink_bps"), downlink_bps=span("downlink_bps"), rtt_s=span("rtt_s"))


def energy_for(target: Target, networks: tuple[Network, ...], options: CompileOptions) -> Energy | None:
    """What a request costs the device's battery, where *options* limit that.

    Raises:
        TargetError: the target, or the network, does not tell.
    """
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
