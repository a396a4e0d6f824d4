"""Figures are what they say, by hand; plots and report hold them."""

import html.parser
from dataclasses import replace

import numpy as np
import pytest

from splitc.simulate.bounds.offline import least_busy_s, least_mean_s, most_met, reach
from splitc.simulate.engine import SimulationOutcome, simulate
from splitc.simulate.job import End
from splitc.simulate.report.page import render
from splitc.simulate.report.plots import latencies, loads, prices
from splitc.simulate.report.summary import percentile, summarise, summary
from splitc.simulate.workload import draw
from tests.simulate.scenarios import CLASS, changed, named, scenario


def outcome(latency_s: list[float], end: list[End], **changes: object) -> SimulationOutcome:
    made = SimulationOutcome(
        policy="made-up",
        latency_s=np.array(latency_s),
        end=np.array(end, np.int8),
        cut=np.zeros(len(end), np.int16),
        busy_s=30.0,
        until_s=60.0,
        refused=1,
        load=np.linspace(0, 1, 5),
        price=np.zeros(5),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_shares_and_percentiles_by_hand() -> None:
    of = scenario(
        replace(
            changed(cloud={"usd_per_hour": 36.0}),
            classes=(CLASS, replace(CLASS, name="b", device="there", sla_s=None)),
        )
    )
    latency = np.array([0.1, 0.2, 0.3, 9.0, 0.4])
    end = np.array([End.DEVICE, End.SPLIT, End.CLOUD, End.REFUSED, End.DEVICE], np.int8)
    owner = np.array([0, 0, 0, 0, 1])
    found = summary(
        of, "p", (latency, end, owner, np.ones(5)), busy_s=30.0, until_s=60.0, turned_away=1, bounds=None
    )
    first, second = found.classes
    assert (first.device, first.split, first.cloud, first.refused) == (0.25, 0.25, 0.25, 0.25)
    assert first.met == 0.5  # of 0.2 s, and what was refused did not
    assert (first.p50_s, first.p95_s) == (0.2, 0.3)
    assert second.met is None
    assert found.all.met == 0.5
    assert found.utilisation == 0.5
    assert found.usd == pytest.approx(0.3)
    assert found.spread == pytest.approx(0.4 / 0.3)


def test_weights_count_as_so_many_jobs() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 5.0, 4.0])
    plain = np.repeat(values, weights.astype(int))
    for share in (0.1, 0.5, 0.51, 0.9, 0.91, 1.0):
        wanted = np.sort(plain)[int(np.ceil(share * 10)) - 1]
        assert percentile(values, weights, share) == wanted


def test_bounds_of_a_fleet_that_is_easy_to_reckon() -> None:
    """A target that the split meets on a fast network, at 10 ms of cloud time each, and the device never does."""
    fleet = changed(
        cloud={"machines": 1}, classes={"sla_s": 0.09, "networks": {"ethernet": 1.0}}, horizon_s=100.0
    )
    of = scenario(fleet)
    workload = draw(of)
    found = reach(of, workload)
    count = len(workload)
    assert not found.met[:, 0].any()
    assert found.met[:, 1].all()
    assert most_met(of, workload, found) == count
    assert least_busy_s(of, workload, found, count) == pytest.approx(0.01 * count)
    assert least_busy_s(of, workload, found, count // 2) == pytest.approx(0.01 * (count // 2))
    assert least_mean_s(of, found, 100.0) == pytest.approx(found.latency_s.min(axis=1).mean())


def test_a_cloud_without_room_bounds_what_can_be_met() -> None:
    """At 20 times 10 ms, one machine can do 5 jobs per second, of 10 that come."""
    fleet = changed(
        cloud={"slowdown": 20.0},
        classes={
            "sla_s": 0.5,
            "networks": {"ethernet": 1.0},
            "slowdown": replace(CLASS.slowdown, typical=6.0),
        },
        horizon_s=200.0,
    )
    of = scenario(fleet)
    workload = draw(of)
    found = reach(of, workload)
    share = most_met(of, workload, found) / len(workload)
    assert 0.45 < share < 0.6
    assert least_mean_s(of, found, 200.0) > found.latency_s.min(axis=1).mean()


def test_plots_stay_inside_and_leave_out_what_there_is_not() -> None:
    served = outcome([0.1, 0.2, 0.4, 1.0], [End.DEVICE, End.SPLIT, End.CLOUD, End.DEVICE])
    dear = replace(served, policy="dear", price=np.array([0, 1.0, 30.0, 2.0, 0]))
    for plot in (latencies([served, dear]), loads([served, dear], 60.0), prices([served, dear], 60.0)):
        assert plot is not None
        assert [line.policy for line in plot.lines] == ["made-up", "dear"]
        for line in plot.lines:
            for point in line.points.split():
                x, y = map(float, point.split(","))
                assert plot.left - 0.1 <= x <= plot.right + 0.1
                assert plot.top - 0.1 <= y <= plot.bottom + 0.1
        assert len(plot.x) > 1
        assert len(plot.y) > 1
    assert prices([served], 60.0) is None
    assert latencies([outcome([0.0], [End.REFUSED])]) is None


class Tags(html.parser.HTMLParser):
    """Counts what is open, and keeps the words."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.words = list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "line", "polyline"} or tag == "polyline":
            self.open.append(tag)
        assert not any(value and "://" in value for _, value in attrs), "nothing is loaded from elsewhere"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - as html.parser has it
        assert tag == "line"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_report_is_whole_and_the_same_each_time() -> None:
    of = scenario(changed(cloud={"slowdown": 10.0}))
    workload = draw(of)
    found = reach(of, workload)
    outcomes = [simulate(of, workload, named(name, of), lambda _: None) for name in ("price", "all-device")]
    summaries = [summarise(of, workload, item, found) for item in outcomes]
    text = render(of, summaries, outcomes)
    assert text == render(of, summaries, outcomes)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    words = " ".join(tags.words)
    for wanted in ("tiny", "all-device", "Load of the cloud", "Jobs that were ready in time", "20 devices"):
        assert wanted in words
    assert "<svg" not in render(of, summaries, ())
