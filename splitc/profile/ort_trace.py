"""Read traces that ONNX Runtime writes when an app enables profiling (`enable_profiling`).

A trace is a JSON array of events, ordered by the time at which they end. If the app was killed, the
closing bracket is missing. A trace names nodes, but not the model, nor the nodes' inputs and outputs.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from splitc.common.errors import ProfileError
from splitc.common.records import shown
from splitc.profile.document import MachineFacts, Measurement, NodeTimes, Profile

_KERNEL = "_kernel_time"
_WHOLE = "model_run"
_EXECUTE = "SequentialExecutor::Execute"  # stands for a run if the trace has no model_run events
_OPENED = "session_initialization"
_MAX_WARMUP = 3
_ROUNDING_US = 2
_ENDLESS_US = 1e18  # thirty thousand years
_BOM = b"\xef\xbb\xbf"
_CPU = "CPUExecutionProvider"
_RECORD = "record one with SessionOptions.enable_profiling and end it with end_profiling()"

Event = Mapping[str, Any]
_Nested = tuple[str, str]  # the names of a node and of the one in whose body it ran


@dataclass(frozen=True, slots=True)
class TracedProfile:
    """A profile made from a trace.

    Attributes:
        least_threads: how many threads the trace shows; others may have had nothing to do. 1 if it shows none.
        shapes: the shape of the first output of each node, by node name, where the trace has it.
        notes: messages for the user, one sentence each.
    """

    profile: Profile
    least_threads: int
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _TracedNode:
    name: str
    op: str
    start_us: float
    dur_us: float
    thread: object
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the whole model; `session` is the number of its session in the file."""

    whole_us: float
    nodes: tuple[_TracedNode, ...]
    session: int

    def steps(self) -> tuple[tuple[str, str], ...]:
        """Return names and operators of the nodes, sorted: with several threads, the order of execution varies."""
        return tuple(sorted((node.name, node.op) for node in self.nodes))


def is_profile(data: bytes) -> bool:
    """Return whether *data* is a profile document, not a trace."""
    return b'"splitc_profile"' in data and data.removeprefix(_BOM).lstrip().startswith(b"{")


def read_trace(
    path: Path, *, model: str, threads: int | None, default_threads: int = 1, dims: Mapping[str, int]
) -> TracedProfile:
    """Read the trace in the file *path*: see `parse_trace`.

    Raises:
        ProfileError: it cannot be read, or is not a trace.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return parse_trace(
        data, str(path), model=model, threads=threads, default_threads=default_threads, dims=dims
    )


def parse_trace(
    data: bytes,
    where: str,
    *,
    model: str,
    threads: int | None,
    default_threads: int = 1,
    dims: Mapping[str, int],
) -> TracedProfile:
    """Return the trace in *data* as a profile of *model* (a SHA-256).

    The first runs are left out as warm-up if there are enough. All runs of a trace have profiling on, so
    their times are somewhat too long.

    Args:
        where: where *data* comes from; every error message begins with it.
        threads: how many threads it ran with; None for as many as the trace shows, or *default_threads* if it
            shows none.
        dims: the sizes of symbolic dimensions that it ran with.

    Raises:
        ProfileError: not a trace, no complete run in it, or it shows more than *threads* threads.
    """
    events, lost = _read_events(data, where)
    found = _whole_runs(where, events)
    kept, warmup = _after_warmup(_alike(found))
    least = _least_threads(found)
    if threads is not None and threads < least:
        raise ProfileError(
            f"{where}: its events show at least {least} threads, not {threads}; correct --threads"
        )
    measurement = Measurement(
        threads=threads or (least if least > 1 else default_threads),
        dims=dict(dims),
        warmup=warmup,
        whole_s=tuple(run.whole_us / 1e6 for run in kept),
        profiled_whole_s=(),
        fixed_s=(),
        nodes=_node_times(kept),
    )
    profile = Profile(
        splitc_profile=1,
        model=model,
        source="imported",
        runtime="onnxruntime",
        runtime_version=None,
        provider=_provider(kept),
        machine=MachineFacts(system=None, machine=None, processor=None, cores=None, python=None),
        measurements=(measurement,),
        units=None,
    )
    notes = []
    if lost:
        notes.append(f"{lost} damaged lines of the trace were skipped")
    if (others := len(found) - len(kept) - warmup) > 0:
        notes.append(f"{others} runs of the trace were left out, because they ran other nodes than most runs")
    return TracedProfile(profile, least, _shapes(kept), tuple(notes))


# --- the file ---


def _read_events(data: bytes, where: str) -> tuple[list[Event], int]:
    """Return the events, and how many damaged lines were skipped."""
    text = data.removeprefix(_BOM).decode(errors="replace")
    events: object
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        events, lost = _salvage(text)
    else:
        events, lost = value.get("traceEvents") if isinstance(value, dict) else value, 0
    if not isinstance(events, list) or not (events or text.lstrip().startswith("[")):
        raise ProfileError(f"{where}: neither an ONNX Runtime trace nor a profile; {_RECORD}")
    return [event for event in events if isinstance(event, dict)], lost


def _salvage(text: str) -> tuple[list[Any], int]:
    """Read a trace that was cut off because the app was killed, or that has other output between its lines."""
    decoder, events, lost = json.JSONDecoder(), list[Any](), 0
    at = text.find("{")
    while at >= 0:
        try:
            event, end = decoder.raw_decode(text, at)
            events.append(event)
        except (ValueError, RecursionError):
            lost += 1
            end = text.find("\n", at)  # the runtime writes one event per line
            if end < 0:
                break
        at = text.find("{", end)
    return events, lost


# --- runs ---


def _whole_runs(where: str, events: Sequence[Event]) -> list[_Run]:
    nested: set[_Nested] = set()
    list(_runs(where, events, _WHOLE, nested))  # one run may show what another is too fast for
    runs = list(_runs(where, events, _WHOLE, nested))
    if not any(run.nodes for run in runs):
        runs = list(_runs(where, events, _EXECUTE, nested))
    complete = [run for run in runs if run.nodes]
    if complete:
        return complete
    if not events:
        raise ProfileError(f"{where}: the trace is empty; {_RECORD}")
    if any(_name(event).endswith(_KERNEL) for event in events):
        raise ProfileError(
            f"{where}: the trace has no complete run (no event '{_WHOLE}' after events of nodes); {_RECORD}"
        )
    raise ProfileError(
        f"{where}: the trace has {len(events)} events, but none of a node ('...{_KERNEL}'); {_RECORD}"
    )


def _runs(where: str, events: Sequence[Event], whole: str, nested: set[_Nested]) -> Iterator[_Run]:
    """Yield each run with its top-level nodes; add to *nested* what was found in bodies.

    Events are ordered by the time at which they end. An event in a body of If, Loop or Scan lies within the
    event of that node, whose time includes it. Fence events of old runtimes are ignored.
    """
    session, pending, ended_us = 0, list[_TracedNode](), 0.0
    for event in events:
        name = _name(event)
        if name == _OPENED:
            session, pending, ended_us = session + 1, [], 0.0
        elif name == whole:
            start_us, dur_us = _times(where, event)
            if start_us + _ROUNDING_US < ended_us and whole == _WHOLE:
                raise ProfileError(
                    f"{where}: runs of the trace overlap, so it does not show how long a single run takes; "
                    "record a trace in which the app makes one run at a time"
                )
            ended_us = start_us + dur_us
            inside = tuple(node for node in pending if node.start_us >= start_us)
            if dur_us / 1e6 > 0:  # a tiny time may be none in seconds
                yield _Run(dur_us, inside, session)
            pending = []
        elif name.endswith(_KERNEL):
            node = _node(where, event)
            while pending and _within(pending[-1], node, nested):
                nested.add((pending.pop().name, node.name))
            pending.append(node)


def _within(inner: _TracedNode, outer: _TracedNode, nested: Container[_Nested]) -> bool:
    """Return whether *inner* ran in a body of *outer*; a clock that was set back in between does not count.

    Both may begin in the same microsecond, as a fast node and the next one may: then another run must tell.
    """
    ends_us = outer.start_us + outer.dur_us + _ROUNDING_US
    begins_later = outer.start_us < inner.start_us or (
        outer.start_us == inner.start_us and (inner.name, outer.name) in nested
    )
    inside = begins_later and inner.start_us + inner.dur_us <= ends_us
    return inside and inner.thread == outer.thread


def _node(where: str, event: Event) -> _TracedNode:
    given = event.get("args")
    args = given if isinstance(given, dict) else {}
    start_us, dur_us = _times(where, event)
    name = _name(event).removesuffix(_KERNEL)
    return _TracedNode(name, _text(args.get("op_name")), start_us, dur_us, str(event.get("tid")), args)


def _name(event: Event) -> str:
    return _text(event.get("name"))


def _text(value: object) -> str:
    """Return *value* if it is text; half a letter, which JSON can write but files cannot, becomes a question mark."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _times(where: str, event: Event) -> tuple[float, float]:
    return _time(where, event, "ts"), _time(where, event, "dur")


def _time(where: str, event: Event, key: str) -> float:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _ENDLESS_US:
        found = (
            "is missing" if value is None else f"is {value[:40] if isinstance(value, str) else shown(value)}"
        )
        raise ProfileError(
            f"{where}: '{key}' of the event '{_name(event)}' {found}, but must be a number of microseconds; {_RECORD}"
        )
    return float(value)


def _alike(runs: Sequence[_Run]) -> list[_Run]:
    """Return the runs with the most frequent set of nodes: every run of a model should run the same nodes."""
    counts = Counter(run.steps() for run in runs)
    steps = max(counts, key=lambda item: (counts[item], len(item)))
    return [run for run in runs if run.steps() == steps]


def _after_warmup(runs: Sequence[_Run]) -> tuple[list[_Run], int]:
    """Return the runs without the warm-up runs of each session, and how many were left out."""
    kept = []
    for session in sorted({run.session for run in runs}):
        own = [run for run in runs if run.session == session]
        kept += own[min(_MAX_WARMUP, len(own) // 2) :]
    return kept, len(runs) - len(kept)


# --- facts about the runs ---


def _node_times(runs: Sequence[_Run]) -> tuple[NodeTimes, ...]:
    """Return the times of each node, in the order of the last run; nodes of equal name are matched in order."""
    seconds: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for run in runs:
        for key, node in _numbered(run):
            seconds[key].append(node.dur_us / 1e6)
    return tuple(
        NodeTimes(name=key[0], op=key[1], inputs=(), outputs=(), seconds=tuple(seconds[key]))
        for key, _ in _numbered(runs[-1])
    )


def _numbered(run: _Run) -> Iterator[tuple[tuple[str, str, int], _TracedNode]]:
    seen: Counter[tuple[str, str]] = Counter()
    for node in run.nodes:
        yield (node.name, node.op, seen[node.name, node.op]), node
        seen[node.name, node.op] += 1


def _provider(runs: Sequence[_Run]) -> str:
    """Return the execution provider in which the runs spent most of their time."""
    spent: Counter[str] = Counter()
    for run in runs:
        for node in run.nodes:
            provider = _text(node.args.get("provider"))
            if provider:
                spent[provider] += max(1, int(node.dur_us))
    return spent.most_common(1)[0][0] if spent else _CPU


def _least_threads(runs: Sequence[_Run]) -> int:
    """Return the least number of threads: the one that runs the nodes, and those that it shares work with.

    Events name the latter, but all threads that have not worked yet share one name, and on a busy machine
    it is a matter of chance which have worked.
    """
    others, worked = 0, defaultdict[int, set[str]](set)
    for run in runs:
        for node in run.nodes:
            stats = node.args.get("thread_scheduling_stats")
            named = stats.get("sub_threads") if isinstance(stats, dict) else None
            if isinstance(named, dict):
                worked[run.session] |= {name for name, did in named.items() if _has_worked(did)}
                others = max(others, len(named), len(worked[run.session]))
    return 1 + others


def _has_worked(did: object) -> bool:
    return isinstance(did, dict) and did.get("num_run") not in (None, 0)


def _shapes(runs: Sequence[_Run]) -> dict[str, tuple[int, ...]]:
    found = {}
    for node in runs[-1].nodes:
        made = node.args.get("output_type_shape")
        first = made[0] if isinstance(made, list) and made else None
        shape = next(iter(first.values()), None) if isinstance(first, dict) else None
        if isinstance(shape, list) and all(type(size) is int for size in shape):
            found[node.name] = tuple(cast(list[int], shape))
    return found
