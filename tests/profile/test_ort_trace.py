"""Traces that ONNX Runtime wrote become profiles; damaged ones a profile or one sentence, never a traceback."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.records import decode, encode
from splitc.model.analysis import Analysis, AnalysisOptions, analyse
from splitc.profile.document import Profile
from splitc.profile.ort_trace import TracedProfile, is_profile, read_trace
from tests import models
from tests.running import save_tiny

SHA = "0" * 64
LEVELS = {
    "as it is": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
Event = dict[str, Any]


def record(
    model: Path, folder: Path, *, runs: int = 5, level: str = "all", threads: int = 1, parallel: bool = False
) -> Path:
    """Record a trace as an app on a phone would."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if parallel:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = (
        models.random_feeds(onnx.load_model(model))
        if model.stem in models.ALL
        else {
            port.name: np.ones([size if isinstance(size, int) else 1 for size in port.shape], np.float32)
            for port in session.get_inputs()
        }
    )
    for _ in range(runs):
        session.run(None, feeds)
    return Path(session.end_profiling())


def write(events: object, folder: Path) -> Path:
    path = folder / "written.json"
    path.write_text(json.dumps(events), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> TracedProfile:
    return read_trace(path, **{"model": SHA, "threads": None, "default_threads": 1, "dims": {}, **options})


def node(name: str, ts: float, dur: float, **args: Any) -> Event:
    event = {
        "cat": "Node",
        "pid": 1,
        "tid": 1,
        "ph": "X",
        "name": f"{name}_kernel_time",
        "ts": ts,
        "dur": dur,
    }
    return {**event, "args": {"op_name": "Conv", "provider": "CPUExecutionProvider", **args}}


def whole(ts: float, dur: float, **fields: Any) -> Event:
    return {
        "cat": "Session",
        "pid": 1,
        "tid": 1,
        "ph": "X",
        "name": "model_run",
        "ts": ts,
        "dur": dur,
        **fields,
    }


def run_of(start: float, *names: str, each: float = 10) -> list[Event]:
    nodes = [node(name, start + 1 + number * each, each) for number, name in enumerate(names)]
    return [*nodes, whole(start, len(names) * each + 5)]


def look(path: Path, *, simplify: bool = False, dims: dict[str, int] | None = None) -> Analysis:
    (path.parent / "work").mkdir(exist_ok=True)
    return analyse(
        path, AnalysisOptions(dims or {}, (), simplify), path.parent / "work", Cache(None), lambda _: None
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "name", ["tiny_cnn", "chain", "diamond", "unnamed_nodes", "if_captures", "loop_captures"]
)
def test_a_real_trace(name: str, level: str, tmp_path: Path) -> None:
    model = save_tiny(name, tmp_path)
    trace = read(record(model, tmp_path, level=level))
    (measured,) = trace.profile.measurements
    assert trace.notes == ()
    assert (trace.profile.source, trace.profile.provider) == ("imported", "CPUExecutionProvider")
    assert (measured.warmup, len(measured.whole_s)) == (2, 3)
    assert all(len(item.seconds) == 3 for item in measured.nodes)
    assert sum(median(item.seconds) for item in measured.nodes) <= 1.05 * median(measured.whole_s) + 1e-5
    assert decode(Profile, json.loads(json.dumps(encode(trace.profile))), "again") == trace.profile


def test_nodes_inside_bodies_are_their_nodes(tmp_path: Path) -> None:
    """What a Loop's body ran is in the Loop's time already, and is no node of the graph."""
    trace = read(record(save_tiny("loop_captures", tmp_path), tmp_path))
    names = [item.name for item in trace.profile.measurements[0].nodes]
    assert names == [
        "MatMul_a_m",
        "Tanh_a",
        "MatMul_b_m",
        "Tanh_b",
        "Loop_c",
        "Transpose_z",
        "MatMul_y_m",
        "Tanh_y",
    ]


def test_a_node_in_a_body_may_begin_in_the_same_microsecond(tmp_path: Path) -> None:
    """On a fast machine some runs show that, and others do not; two fast nodes in a row are something else."""
    events = [node("quick", 100, 0), node("in", 103, 2), node("if", 100, 9), whole(95, 20)]
    events += [node("quick", 200, 0), node("in", 200, 2), node("if", 200, 9), whole(195, 20)]
    trace = read(write(events, tmp_path))
    assert trace.notes == ()
    assert [item.name for item in trace.profile.measurements[0].nodes] == ["quick", "if"]


def test_a_clock_set_back_takes_no_node_away(tmp_path: Path) -> None:
    """The runtime reads the device's time of day, which may step while a model runs."""
    events = [node("a", 100, 30), node("b", 95, 10), node("c", 106, 10), whole(90, 40)]
    trace = read(write(events, tmp_path))
    assert [item.name for item in trace.profile.measurements[0].nodes] == ["a", "b", "c"]


def test_threads_of_a_real_trace(tmp_path: Path) -> None:
    """How many of three threads find work is up to the machine; none is seen that was not there."""
    model = save_tiny("tiny_cnn", tmp_path)
    several = read(record(model, tmp_path, threads=3))
    assert 2 <= several.least_threads <= 3
    assert several.profile.measurements[0].threads == several.least_threads
    alone = read(record(model, tmp_path), default_threads=4)
    assert (alone.least_threads, alone.profile.measurements[0].threads) == (1, 4)


IDLE = {
    "thread::id of a non-executing thread": {"num_run": 0, "core": -1}
}  # however many have not worked yet


@pytest.mark.parametrize(
    ("named", "least"),
    [
        ([[{}]], 1),
        ([[IDLE]], 2),
        ([[IDLE, {"7": {"num_run": 2}}]], 2),
        ([[{"7": {"num_run": 2}, **IDLE}]], 3),
        ([[IDLE, {"7": {"num_run": 2}, **IDLE}, {"8": {"num_run": 1}, **IDLE}]], 3),
        ([[{"7": {"num_run": 2}, **IDLE}, {"7": {"num_run": 2}, "8": {"num_run": 1}, **IDLE}]], 4),
        ([[{"7": {"num_run": 2}}, {"8": {"num_run": 2}}], [{"9": {"num_run": 2}}]], 3),
        ([[{"7": None}, {"8": 3}, None]], 2),
    ],
)
def test_threads_that_events_name(named: list[list[object]], least: int, tmp_path: Path) -> None:
    """Those that worked have a name, which another session does not share; all others have one together."""
    events: list[Event] = []
    for session in named:
        events.append({"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9})
        for others in session:
            stats = {"thread_scheduling_stats": {"sub_threads": others}}
            events += [node("a", 100.0 * len(events) + 1, 10, **stats), whole(100.0 * len(events), 12)]
    path = write(events, tmp_path)
    assert read(path).least_threads == least
    assert read(path, threads=5).profile.measurements[0].threads == 5
    if least > 1:
        with pytest.raises(ProfileError, match=f"its events show at least {least} threads, not 1"):
            read(path, threads=1)


def test_nodes_that_run_at_the_same_time(tmp_path: Path) -> None:
    trace = read(record(save_tiny("diamond", tmp_path), tmp_path, parallel=True))
    assert {item.name for item in trace.profile.measurements[0].nodes} >= {"Tanh_b", "Tanh_c", "Add_d"}


def test_shapes_are_told(tmp_path: Path) -> None:
    trace = read(record(save_tiny("diamond", tmp_path), tmp_path))
    found = look(tmp_path / "diamond.onnx")
    assert trace.shapes["Add_d"] == found.sizes["d"].sized


@pytest.mark.parametrize(("runs", "left"), [(1, 1), (2, 1), (3, 2), (6, 3), (10, 7)])
def test_warm_up_is_left_out_if_there_are_enough_runs(runs: int, left: int, tmp_path: Path) -> None:
    events = [event for number in range(runs) for event in run_of(100.0 * number, "a", "b")]
    (measured,) = read(write(events, tmp_path)).profile.measurements
    assert (len(measured.whole_s), measured.warmup) == (left, runs - left)
    assert {len(item.seconds) for item in measured.nodes} == {left}


def test_each_session_warms_up(tmp_path: Path) -> None:
    opened = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9}
    session = [opened, *run_of(100, "a", "b"), *run_of(200, "a", "b"), *run_of(300, "a", "b")]
    (measured,) = read(write([*session, *session], tmp_path)).profile.measurements
    assert (len(measured.whole_s), measured.warmup) == (4, 2)


def test_the_session_with_most_runs_counts(tmp_path: Path) -> None:
    opened = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9}
    events = [opened, *run_of(10, "other"), opened]
    events += [event for number in range(3) for event in run_of(100.0 * number, "a", "b")]
    trace = read(write(events, tmp_path))
    assert [item.name for item in trace.profile.measurements[0].nodes] == ["a", "b"]
    assert trace.notes == ("1 runs of the trace were left out, because they ran other nodes than most runs",)


def test_fences_of_old_runtimes_are_no_nodes(tmp_path: Path) -> None:
    fences = [
        {"cat": "Node", "name": f"a_fence_{which}", "ts": ts, "dur": 0, "args": {"op_name": "Conv"}}
        for which, ts in (("before", 0), ("after", 11))
    ]
    events = [fences[0], node("a", 1, 10), fences[1], whole(0, 20)]
    assert [item.name for item in read(write(events, tmp_path)).profile.measurements[0].nodes] == ["a"]


def test_nodes_of_one_name_stay_apart(tmp_path: Path) -> None:
    (measured,) = read(
        write([node("a", 1, 10), node("a", 11, 30), whole(0, 50)], tmp_path)
    ).profile.measurements
    assert [item.seconds for item in measured.nodes] == [(1e-5,), (3e-5,)]


def test_the_provider_is_the_one_with_most_of_the_time(tmp_path: Path) -> None:
    events = [node("a", 1, 10), node("NNAPI_1", 11, 90, provider="NnapiExecutionProvider"), whole(0, 110)]
    assert read(write(events, tmp_path)).profile.provider == "NnapiExecutionProvider"


def test_without_whole_runs_the_executor_tells(tmp_path: Path) -> None:
    events = [node("a", 1, 10), whole(0, 12, name="SequentialExecutor::Execute")]
    assert read(write(events, tmp_path)).profile.measurements[0].whole_s == (12e-6,)


def test_told_apart_from_profiles() -> None:
    assert is_profile(b'\xef\xbb\xbf {"splitc_profile": 1}')
    assert not is_profile(b'{"traceEvents": []}')
    assert not is_profile(b'[{"name": "splitc_profile"}]')
    assert not is_profile(b"")


def test_a_trace_in_an_object(tmp_path: Path) -> None:
    assert read(write({"traceEvents": run_of(0, "a")}, tmp_path)).profile.measurements[0].nodes


@pytest.mark.parametrize("cut", [1, 3, 10, 200, 1000])
def test_an_app_that_was_killed(cut: int, tmp_path: Path) -> None:
    path = record(save_tiny("tiny_cnn", tmp_path), tmp_path, runs=6)
    whole_trace = read(path).profile.measurements[0]
    path.write_bytes(path.read_bytes()[:-cut])
    trace = read(path)
    assert trace.profile.measurements[0].nodes[0].name == whole_trace.nodes[0].name
    assert len(trace.profile.measurements[0].whole_s) in (2, 3)


@pytest.mark.parametrize("ending", [",", ",\n]", "]", ",]"])
def test_endings_that_loggers_leave(ending: str, tmp_path: Path) -> None:
    text = "[\n" + ",\n".join(json.dumps(event) for event in run_of(0, "a", "b"))
    (tmp_path / "t.json").write_text(text + ending, encoding="utf-8")
    assert len(read(tmp_path / "t.json").profile.measurements[0].nodes) == 2


def test_a_console_between_the_lines(tmp_path: Path) -> None:
    lines = [
        "[",
        "I/console: loading {",
        *(f"I/console: {json.dumps(event)}," for event in run_of(0, "a", "b")),
    ]
    (tmp_path / "t.json").write_text("\n".join(lines), encoding="utf-8")
    trace = read(tmp_path / "t.json")
    assert len(trace.profile.measurements[0].nodes) == 2
    assert trace.notes == ("1 damaged lines of the trace were skipped",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither an ONNX Runtime trace nor a profile"),
        ("dear diary", "neither an ONNX Runtime trace nor a profile"),
        ("null", "neither an ONNX Runtime trace nor a profile"),
        ('{"traceEvents": 3}', "neither an ONNX Runtime trace nor a profile"),
        ("[]", "the trace is empty"),
        ("[", "the trace is empty"),
        ("[" * 100_000, "the trace is empty"),
        ('{"a":' * 100_000, "neither an ONNX Runtime trace nor a profile"),
        ("[1, null]", "the trace is empty"),
        ("[{}]", "the trace has 1 events, but none of a node"),
        (json.dumps([node("a", 1, 10)]), "the trace has no complete run"),
        (json.dumps([whole(0, 9)]), "the trace has 1 events, but none of a node"),
        (json.dumps([node("a", 1, -10), whole(0, 9)]), "'dur' of the event 'a_kernel_time' is -10, but must"),
        ('[{"name": "a_kernel_time", "ts": 1, "dur": NaN}]', "'dur' of the event 'a_kernel_time' is nan"),
        ('[{"name": "a_kernel_time", "ts": 1, "dur": 1e999}]', "'dur' of the event 'a_kernel_time' is inf"),
        (
            '[{"name": "a_kernel_time", "ts": "1", "dur": 1}]',
            "'ts' of the event 'a_kernel_time' is 1, but must",
        ),
        ('[{"name": "a_kernel_time", "dur": 1}]', "'ts' of the event 'a_kernel_time' is missing"),
        (json.dumps([*run_of(0, "a"), *run_of(5, "a")]), "runs of the trace overlap"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_one_sentence_each(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=message) as raised:
        read(tmp_path / "t.json")
    assert str(raised.value).startswith(f"{tmp_path / 't.json'}: ")
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json: cannot be read \(No such file"):
        read(tmp_path / "none.json")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    folder = tmp_path_factory.mktemp("trace")
    found = json.loads(record(save_tiny("if_captures", folder), folder, runs=4).read_bytes())
    assert isinstance(found, list)
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_lost(data: st.DataObject, events: list[Event], tmp_path: Path) -> None:
    """Events and fields may be lost, changed or doubled: a profile comes out, or one sentence."""
    left = [item for event in events for item in data.draw(fates(event))]
    text = json.dumps(left, indent=data.draw(st.sampled_from([None, 1])))
    (tmp_path / "t.json").write_text(text[: data.draw(st.integers(0, len(text)))], encoding="utf-8")
    outcome = profile_or_sentence(tmp_path / "t.json")
    assert "\n" not in outcome if isinstance(outcome, str) else outcome.measurements


def fates(event: Event) -> st.SearchStrategy[list[Event]]:
    """What may become of an event: mostly nothing."""
    junk = st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=3), st.just([]), st.just({}))
    keys = st.sampled_from(sorted(event))
    lost = keys.map(lambda lost: [{key: value for key, value in event.items() if key != lost}])
    changed = st.tuples(keys, junk).map(lambda pair: [event | {pair[0]: pair[1]}])
    return st.one_of(*[st.just([event])] * 30, st.just([]), st.just([event, event]), lost, changed)


def profile_or_sentence(path: Path) -> Profile | str:
    try:
        profile = read(path).profile
    except ProfileError as error:
        return str(error)
    assert decode(Profile, json.loads(json.dumps(encode(profile))), "again") == profile
    return profile
