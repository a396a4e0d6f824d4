"""Times of units come from real runs, and with what any call costs they sum to what the whole model took."""

import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.resources import shipped
from splitc.model.analysis import Analysis, AnalysisOptions, analyse
from splitc.profile.attribution import attributed_share, fixed_s, measured_times, unit_seconds
from splitc.profile.document import Measurement, NodeTimes, parse_profile
from tests import profiles
from tests.running import save_tiny

PROGRAM = shipped("profilers") / "onnxruntime_cpu.py"


def look(path: Path) -> Analysis:
    return analyse(path, AnalysisOptions({}, (), simplify=False), path.parent, Cache(None), lambda _: None)


@pytest.fixture(scope="module")
def diamond(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return look(save_tiny("diamond", tmp_path_factory.mktemp("diamond")))


def by_tensor(found: Analysis, measurement: Measurement) -> dict[str, float]:
    """Seconds of each unit, by the tensors that it makes."""
    graph = found.partition.graph
    seconds = unit_seconds(measurement, found.sources, graph)
    return {
        graph.tensors[index].name: seconds[number]
        for number, unit in enumerate(graph.units)
        for index in unit.outputs
    }


def node(name: str, inputs: str, outputs: str, seconds: float, **others: Any) -> NodeTimes:
    return profiles.node(
        name, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()), seconds=(seconds,), **others
    )


@pytest.mark.parametrize("name", ["tiny_cnn", "fp16_chain", "qdq_residual", "if_captures", "unused_outputs"])
def test_a_profile_by_hand_sums_to_the_whole_run(name: str, tmp_path: Path) -> None:
    model = save_tiny(name, tmp_path)
    found = look(model)
    command = [sys.executable, str(PROGRAM), str(model), "--runs", "5"]
    done = subprocess.run(command, capture_output=True, check=True)
    profile = parse_profile(done.stdout, "stdout")
    (measurement,) = profile.measurements
    times = measured_times(profile, measurement, "here", found.sources, found.partition)
    assert times.fixed_s is not None
    assert sum(times.seconds) + times.fixed_s == pytest.approx(median(measurement.whole_s), rel=1e-12)
    assert min(times.seconds) >= 0
    assert (times.source, times.here, times.threads) == ("measured", False, 1)
    assert times.interval == measurement.spread()
    assert attributed_share(measurement, found.sources, found.partition.graph) > 0.8


def test_what_the_runtime_inserts_belongs_to_a_neighbour(diamond: Analysis) -> None:
    nodes = (
        node("reorder_in", "x", "x_reordered", 3),  # read by the unit of a
        node("any", "x_reordered", "a", 1),
        node("Tanh_b", "a", "renamed", 2),  # known by its own name
        node("c_nchwc", "a", "c_nchwc_out", 4),  # called after what it made
        node("any2", "renamed c_nchwc_out", "d", 0),
        node("any3", "d", "y", 0),
        node("reorder_out", "y", "y_reordered", 5),  # nobody reads it
        node("stray", "", "nowhere", 15),
    )
    measurement = profiles.measurement(nodes=nodes, whole_s=(30.0,))
    seconds = by_tensor(diamond, measurement)
    assert sum(seconds.values()) == pytest.approx(30)
    assert [seconds[name] for name in "abcy"] == pytest.approx([2 * 4, 2 * 2, 2 * 4, 2 * 5])
    share = attributed_share(measurement, diamond.sources, diamond.partition.graph)
    assert share == pytest.approx(0.5)


def test_writing_events_down_is_taken_off_evenly(diamond: Analysis) -> None:
    """The profiler's time is in its node's, as often as it wrote something down."""
    nodes = (
        node("n", "x", "a", 1 + 3 * 0.5, events=3),
        node("m", "a", "b", 2 + 0.5),
        node("o", "a", "c", 0.1),
    )
    seconds = by_tensor(diamond, profiles.measurement(nodes=nodes, whole_s=(1 + 2 - 0.4,)))
    # 5.1 s in nodes, 2.6 s in the run: half a second for each of five events, but no node takes less than nothing.
    assert seconds["c"] == 0
    assert seconds["a"] == pytest.approx(2.6 / 3)
    assert seconds["b"] == pytest.approx(2 * 2.6 / 3)


def test_what_any_call_costs_is_kept_apart(diamond: Analysis) -> None:
    nodes = (node("n", "x", "a", 1), node("m", "a", "b", 1))
    seconds = by_tensor(diamond, profiles.measurement(nodes=nodes, whole_s=(5.0,), fixed_s=(1.0, 1.0, 9.0)))
    assert (seconds["a"], seconds["b"]) == (2, 2)
    assert fixed_s(profiles.measurement()) is None
    assert fixed_s(profiles.measurement(whole_s=(5.0,), fixed_s=(6.0,))) == 5


def test_the_middle_of_the_samples_counts(diamond: Analysis) -> None:
    nodes = (
        profiles.node("n", outputs=("a",), seconds=(1e-6, 1e-6, 1e-6, 2e-6, 2e-6, 2e-6, 2e-6, 9.0)),
        profiles.node("m", inputs=("a",), outputs=("b",), seconds=(4e-6,) * 8),
    )
    seconds = by_tensor(diamond, profiles.measurement(nodes=nodes, whole_s=(1.0,)))
    assert seconds["a"] / seconds["b"] == pytest.approx(2 / 4)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_units_and_call_always_sum_to_the_run(diamond: Analysis, data: st.DataObject) -> None:
    whole = st.floats(1e-6, 10)
    seconds = st.lists(st.floats(0, 10), min_size=1, max_size=5).map(tuple)
    nodes = tuple(
        profiles.node(
            name, inputs=(), outputs=(name,), seconds=data.draw(seconds), events=data.draw(st.integers(1, 4))
        )
        for name in ("a", "b", "c", "d", "y")
    )
    measurement = profiles.measurement(
        nodes=nodes,
        whole_s=tuple(data.draw(st.lists(whole, min_size=1, max_size=5))),
        fixed_s=tuple(data.draw(st.lists(whole, max_size=3))),
    )
    try:
        found = unit_seconds(measurement, diamond.sources, diamond.partition.graph)
    except ProfileError:
        assert attributed_share(measurement, diamond.sources, diamond.partition.graph) == 0
        return
    assert min(found) >= 0
    total_s = sum(found) + (fixed_s(measurement) or 0.0)
    assert total_s == pytest.approx(median(measurement.whole_s))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((), "only times of the whole model, not of its nodes"),
        (
            (profiles.node("stray", outputs=("nowhere",), inputs=()),),
            "no node of the profile belongs to this",
        ),
        ((profiles.node("n", seconds=(0.0,)),), "no node of the profile belongs to this model"),
    ],
    ids=["whole", "stray", "nothing"],
)
def test_a_profile_that_tells_nothing_of_units(
    nodes: tuple[NodeTimes, ...], message: str, diamond: Analysis
) -> None:
    measurement = profiles.measurement(nodes=nodes)
    with pytest.raises(ProfileError, match=message):
        unit_seconds(measurement, diamond.sources, diamond.partition.graph)
    assert attributed_share(measurement, diamond.sources, diamond.partition.graph) == 0
