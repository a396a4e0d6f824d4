"""Jobs come as often, and over such links, as the fleet says."""

import math
from pathlib import Path

import numpy as np
import pytest

from splitc.simulate.fleet import Percentiles, Phase
from splitc.simulate.links import RecordedRate, load_links, quantile
from splitc.simulate.workload import draw, expected_jobs
from splitc.testbed.spec import LinkTrace
from splitc.testbed.traces import synthetic_trace
from tests.simulate.scenarios import CLASS, changed, scenario


def test_jobs_come_at_the_rate_of_each_phase() -> None:
    fleet = changed(
        horizon_s=1000.0,
        phases=(Phase(200, 400, 3.0), Phase(500, 600, 0.0)),
        classes={"rate_per_s": 1.0, "count": 50},
    )
    times_s = draw(scenario(fleet)).time_s
    assert (np.diff(times_s) >= 0).all()
    for from_s, to_s, factor in [(0, 200, 1), (200, 400, 3), (400, 500, 1), (500, 600, 0), (600, 1000, 1)]:
        wanted = 50 * factor * (to_s - from_s)
        found = np.count_nonzero((times_s >= from_s) & (times_s < to_s))
        assert abs(found - wanted) <= 4 * math.sqrt(wanted)  # standard deviations of a Poisson variable
    assert expected_jobs(fleet) == 50 * (200 + 600 + 100 + 400)


def test_links_and_slowdowns_have_their_percentiles() -> None:
    spread = Percentiles(2.0, 1.0, 8.0)
    fleet = changed(
        horizon_s=2000.0,
        classes={"count": 4000, "rate_per_s": 0.02, "slowdown": spread, "networks": {"lte": 1.0}},
    )
    workload = draw(scenario(fleet))
    for values, wanted in [
        (workload.uplink_bps, (1.92e6, 6.3e6, 9.75e6)),
        (workload.slowdown, (1.0, 2.0, 8.0)),
    ]:
        assert np.percentile(values, [5, 50, 95]) == pytest.approx(wanted, rel=0.05)
    assert np.percentile(workload.rtt_s, [5, 50, 95]) == pytest.approx((0.068, 0.084, 0.106), rel=0.05)
    slow_link = workload.uplink_bps < np.median(workload.uplink_bps)
    assert workload.rtt_s[slow_link].mean() > workload.rtt_s[~slow_link].mean()


def test_a_device_keeps_its_slowdown_and_its_link_changes_slowly() -> None:
    fleet = changed(
        classes={"count": 1, "rate_per_s": 50.0, "slowdown": Percentiles(1, 0.5, 2), "networks": {"lte": 1.0}}
    )
    workload = draw(scenario(fleet))
    assert np.ptp(workload.slowdown) == 0
    logs = np.log(workload.uplink_bps)
    assert np.abs(np.diff(logs)).mean() < 0.2 * logs.std()


def test_a_quantity_without_percentiles_does_not_vary() -> None:
    assert (quantile(Percentiles(3.0), np.linspace(-4, 4, 9)) == 3.0).all()


def test_a_recorded_rate_is_what_the_trace_delivers() -> None:
    steady = RecordedRate(LinkTrace(tuple(range(1, 5001))))  # a packet each millisecond
    rates = steady.at(np.zeros(50), np.linspace(0, 100, 50))
    assert rates == pytest.approx(1448 * 8 * 1000, rel=0.01)
    halves = RecordedRate(LinkTrace((*range(1, 5001), *range(5010, 15001, 10))))  # then one each ten
    fast, slow = halves.at(np.zeros(2), np.array([1.0, 10.0]))
    assert fast == pytest.approx(10 * slow, rel=0.02)


def test_a_trace_takes_the_place_of_every_rate(tmp_path: Path) -> None:
    up, down = (synthetic_trace(low, 2 * low, 4 * low, 30, seed=1) for low in (1e6, 5e6))
    for suffix, trace in (("up", up), ("down", down)):
        text = "".join(f"{time_ms}\n" for time_ms in trace.opportunities_ms)
        (tmp_path / f"bus.{suffix}").write_text(text, encoding="ascii")
    links = load_links(changed(), tmp_path / "bus.up")
    assert set(links) == set(CLASS.networks)
    for link in links.values():
        assert isinstance(link.uplink, RecordedRate)
        assert isinstance(link.downlink, RecordedRate)
        assert (link.uplink.trace, link.downlink.trace) == (up, down)
    assert links["lte"].rtt_s.typical == 0.084
