"""Make a profile of a model on a target, in one of several ways, and keep it for later builds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TypeAlias

from splitc.common import ort
from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.values import random_feeds
from splitc.model.analysis import Analysis, AnalysisOptions, Progress, analyse
from splitc.model.model import Model
from splitc.profile.attribution import attributed_share, unit_seconds
from splitc.profile.document import MachineFacts, Measurement, Profile, UnitRun, parse_profile
from splitc.profile.match_nodes import reconnected
from splitc.profile.measure.adb import profile_over_adb
from splitc.profile.measure.browser import profile_in_browser
from splitc.profile.measure.job import ProfileJob, Say
from splitc.profile.measure.local import profile_here
from splitc.profile.measure.ssh import profile_over_ssh
from splitc.profile.ort_trace import TracedProfile, is_profile, parse_trace
from splitc.profile.store import Store
from splitc.profile.targets.description import Target
from splitc.profile.unit_times import check_model, kept_profile

_LEAST_SHARE = 0.8
_MOST_WRONG_SHAPES = 0.1
_FORGOTTEN = MachineFacts(system=None, machine=None, processor=None, cores=None, python=None)


@dataclass(frozen=True, slots=True)
class Here:
    """Measure on this machine."""


@dataclass(frozen=True, slots=True)
class OverSsh:
    """Measure on a board over SSH.

    Attributes:
        host: [user@]host[:port], or an alias of ~/.ssh/config.
        python: the Python interpreter on the board.
    """

    host: str
    python: str


@dataclass(frozen=True, slots=True)
class OverAdb:
    """Measure on an Android phone through adb.

    Attributes:
        serial: the serial number of the phone; None if only one is connected.
        program: `onnxruntime_perf_test` built for the phone; None if it is already on the phone.
    """

    serial: str | None
    program: Path | None = None


@dataclass(frozen=True, slots=True)
class InBrowser:
    """Measure in a browser that opens a page served at `port`; 0 chooses a free port."""

    port: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """Read a file: a trace of ONNX Runtime, or the output of a program in `profilers/`."""

    path: Path


@dataclass(frozen=True, slots=True)
class WholeOnly:
    """Use a known latency of the whole model, in seconds."""

    seconds: float


Way: TypeAlias = Here | OverSsh | OverAdb | InBrowser | Imported | WholeOnly


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Options of `record`.

    Attributes:
        way: how the times are obtained.
        name: the target name under which the profile is kept.
        target: the description of the target; None if it has none.
        described_as: the name or path by which the user gave the description.
        sizings: sizes of symbolic dimensions; the model is profiled with each.
        threads: thread counts to profile with; empty for that of the target.
        runs: timed runs for each thread count and sizing; None for as many as a stable median needs.
        custom_ops_there: libraries of custom operators on another machine.
    """

    way: Way
    name: str
    target: Target | None
    described_as: str
    sizings: tuple[Mapping[str, int], ...] = ({},)
    samples: tuple[Path, ...] = ()
    simplify: bool = True
    threads: tuple[int, ...] = ()
    runs: int | None = None
    custom_ops_there: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded profile, and what is known about it.

    Attributes:
        shares: for each measurement, the share of the nodes' time that belongs to units; None without nodes.
        seconds: for each measurement, the seconds of each unit; None without nodes.
        kept: the files in which it was kept.
        used: whether a build for the target uses it, at the sizes of the first measurement.
        notes: messages for the user, one sentence each.
    """

    found: Analysis
    profile: Profile
    shares: tuple[float | None, ...]
    seconds: tuple[tuple[float, ...] | None, ...]
    kept: tuple[Path, ...]
    used: bool
    notes: tuple[str, ...]


def record(
    path: Path,
    options: RecordOptions,
    folder: Path,
    cache: Cache,
    progress: Progress,
    write: Callable[[Profile], None],
) -> Recorded:
    """Profile the model at *path*, call *write* with the profile, and keep it.

    Args:
        folder: for temporary files.

    Raises:
        SplitcError: the profile cannot be made; nothing is written or kept.
        OSError: the profile cannot be written or kept.
    """
    looked = AnalysisOptions(dict(options.sizings[0]), options.samples, options.simplify)
    found = analyse(path, looked, folder, cache, progress)
    profile, notes = _obtain(options, found, cache.folder, progress)
    measured = profile.measurements
    graph = found.partition.graph
    shares = tuple(attributed_share(item, found.sources, graph) if item.nodes else None for item in measured)
    seconds = tuple(unit_seconds(item, found.sources, graph) if item.nodes else None for item in measured)
    # The digest is that of the original model, so that builds without simplification can use the profile too.
    profile = replace(profile, model=found.original.sha256, units=_units(found, seconds))
    if profile.units is None:
        notes.append(
            "this profile cannot calibrate a target, because the work of node "
            f"'{found.partition.unsized[0]}' is unknown"
        )
    write(profile)
    store = Store(cache.folder)
    kept = store.keep_profile(options.name, found.original.name, profile)
    used = False
    if options.target is not None:
        chosen, reasons = kept_profile(options.target, found, store)
        used = chosen is not None and chosen.path in kept
        notes += reasons
        if chosen is not None and not used:
            notes.append(
                f"a build for {options.name} uses another kept profile; to use this one, delete {chosen.path}"
            )
    return Recorded(found, profile, shares, seconds, kept, used, tuple(notes))


def _units(found: Analysis, seconds: tuple[tuple[float, ...] | None, ...]) -> tuple[UnitRun, ...] | None:
    """The units with what they have to do, at the sizes of the first measurement; None if that is not known."""
    if found.partition.unsized:
        return None
    return tuple(
        UnitRun(unit.name, unit.work, tuple(None if item is None else item[number] for item in seconds))
        for number, unit in enumerate(found.partition.graph.units)
    )


def _obtain(
    options: RecordOptions, found: Analysis, cache_folder: Path | None, progress: Progress
) -> tuple[Profile, list[str]]:
    match options.way:
        case Imported(path):
            progress(f"Reading {path.name}")
            return _import(path, options, found)
        case WholeOnly(seconds):
            return _whole_only(seconds, options, found), []
        case way:
            progress(f"Timing on {options.name}")
            return _reconnected(_profile(way, _job(options, found), progress, cache_folder), found.model), []


# --- measured ---


def _profile(
    way: Here | OverSsh | OverAdb | InBrowser, job: ProfileJob, say: Say, cache_folder: Path | None
) -> Profile:
    match way:
        case Here():
            return profile_here(job, say)
        case OverSsh(host, python):
            return profile_over_ssh(job, host, say, python=python)
        case OverAdb(serial, program):
            return profile_over_adb(job, serial, say, program=program)
        case InBrowser(port):
            return profile_in_browser(job, say, port=port, cache_folder=cache_folder)


def _job(options: RecordOptions, found: Analysis) -> ProfileJob:
    inputs = found.model.inputs()
    # The analysis makes no inputs for a large model, but the model may still be small enough for the target.
    first = found.feeds[0] if found.feeds else random_feeds(inputs, found.dims, 0)
    others = [random_feeds(inputs, {**found.dims, **sizing}, 0) for sizing in options.sizings[1:]]
    return ProfileJob(
        found.model,
        (first, *others),
        options.threads or (_default_threads(options),),
        options.runs,
        custom_ops=_custom_ops(options),
    )


def _custom_ops(options: RecordOptions) -> tuple[str, ...]:
    """The libraries of custom operators as the target finds them.

    Raises:
        ProfileError: the target has none of those that are needed.
    """
    used = ort.used_custom_ops()
    if isinstance(options.way, Here):
        return tuple(str(item.path) for item in used)
    if used and isinstance(options.way, InBrowser):
        raise ProfileError("a browser has no custom operators; profile the model in another way")
    if len(options.custom_ops_there) != len(used):
        names = ", ".join(item.name for item in used)
        raise ProfileError(
            f"the model was opened with the custom operators of {names or 'no library'}, and --target-custom-ops names "
            f"{len(options.custom_ops_there)}; name for each where it lies on the target"
        )
    return options.custom_ops_there


def _default_threads(options: RecordOptions) -> int:
    if isinstance(options.way, InBrowser):
        return 1  # a browser allows more threads only at a trusted address (https or localhost)
    if options.target is not None and options.target.threads is not None:
        return options.target.threads
    return ort.usable_cores() if isinstance(options.way, Here) else 1


# --- imported ---


def _import(path: Path, options: RecordOptions, found: Analysis) -> tuple[Profile, list[str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if is_profile(data):
        profile = parse_profile(data, str(path))
        check_model(path, profile, found)
        profile = _of_threads(path, _reconnected(profile, found.original), options.threads)
        notes = []
    else:
        trace = parse_trace(
            data,
            str(path),
            model=found.original.sha256,
            threads=_given_threads(options),
            default_threads=_default_threads(options),
            dims=found.dims,
        )
        profile = _reconnected(trace.profile, found.original)
        notes = _trace_notes(trace, options)
        _check_shapes(path, profile.measurements[0], trace, found)
    for item in profile.measurements:
        _check_share(path, item, found)
    return profile, notes


def _reconnected(profile: Profile, model: Model) -> Profile:
    return replace(profile, measurements=tuple(reconnected(item, model) for item in profile.measurements))


def _given_threads(options: RecordOptions) -> int | None:
    if len(options.threads) > 1:
        raise ProfileError("a trace has one thread count; give a single number with --threads")
    return options.threads[0] if options.threads else None


def _of_threads(path: Path, profile: Profile, threads: tuple[int, ...]) -> Profile:
    """Keep only measurements with one of the thread counts *threads*; all of them if *threads* is empty."""
    chosen = tuple(item for item in profile.measurements if not threads or item.threads in threads)
    if not chosen:
        there = ", ".join(str(number) for number in sorted({item.threads for item in profile.measurements}))
        raise ProfileError(
            f"{path}: was recorded with {there} threads, not {', '.join(map(str, threads))}; correct --threads"
        )
    return replace(profile, measurements=chosen, units=None)


def _trace_notes(trace: TracedProfile, options: RecordOptions) -> list[str]:
    notes = list(trace.notes)
    measured = trace.profile.measurements[0]
    if not options.threads:
        told = (
            f"the events of the trace show {trace.least_threads} threads"
            if trace.least_threads > 1
            else "the trace does not show how many threads it ran with"
        )
        notes.append(f"{told}, so {measured.threads} was assumed; correct it with --threads")
    notes.append(
        f"the trace's last {len(measured.whole_s)} runs were used, and {measured.warmup} were left out as warm-up; "
        "profiling was on in all of them, so the times are somewhat too long"
    )
    return notes


def _check_shapes(path: Path, measurement: Measurement, trace: TracedProfile, found: Analysis) -> None:
    """Check that the trace ran with the sizes of the analysis: otherwise most output shapes differ."""
    compared = [
        (node.name, trace.shapes[node.name], size.sized)
        for node in measurement.nodes
        if node.name in trace.shapes
        and node.outputs
        and (size := found.sizes.get(node.outputs[0])) is not None
        and size.sized is not None
        and not size.measured
    ]
    wrong = [item for item in compared if item[1] != item[2]]
    if len(wrong) > _MOST_WRONG_SHAPES * len(compared):
        name, there, here = wrong[0]
        raise ProfileError(
            f"{path}: the trace is of another model or of other sizes: the output of node '{name}' has shape "
            f"{list(there)} in the trace, but {list(here or ())} in the model; give the sizes of the trace with --dim"
        )


def _check_share(path: Path, measurement: Measurement, found: Analysis) -> None:
    """Check that the measurement is of this model: most of its time must belong to nodes of the model."""
    if not measurement.nodes:
        return
    share = attributed_share(measurement, found.sources, found.partition.graph)
    if share < _LEAST_SHARE:
        largest = max(measurement.nodes, key=lambda node: fsum(node.seconds))
        raise ProfileError(
            f"{path}: only {100 * share:.0f} % of the recorded time belongs to nodes of {found.original.name} (the "
            f"slowest recorded node is '{largest.name}'); it is of another model, or a provider fused its nodes: "
            "give the latency of the whole model with --latency instead"
        )


def _whole_only(seconds: float, options: RecordOptions, found: Analysis) -> Profile:
    target = options.target
    assert target is not None, "the command line requires a target"
    measured = [
        Measurement(
            threads=threads,
            dims=dict(found.dims),
            warmup=0,
            whole_s=(seconds,),
            profiled_whole_s=(),
            fixed_s=(),
            nodes=(),
        )
        for threads in options.threads or (_default_threads(options),)
    ]
    return Profile(
        splitc_profile=1,
        model=found.original.sha256,
        source="imported",
        runtime=target.runtime,
        runtime_version=None,
        provider=target.provider,
        machine=_FORGOTTEN,
        measurements=tuple(measured),
    )
