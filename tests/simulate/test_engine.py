"""A simulated job goes through what a real one goes through, and ends once."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions, Decision, latency_s
from splitc.simulate.bounds.offline import least_busy_s, least_mean_s, most_met, reach
from splitc.simulate.engine import SimulationOutcome, simulate
from splitc.simulate.fleet import Fleet, Outage, Percentiles
from splitc.simulate.job import End
from splitc.simulate.policies import POLICIES, Policy
from splitc.simulate.report.summary import summarise
from splitc.simulate.scenario import Scenario
from splitc.simulate.tcp import lone_s
from splitc.simulate.workload import Workload, draw
from tests import manifests
from tests.simulate.scenarios import CLASS, ONLY_CLOUD, changed, named, scenario

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)
FLEETS = st.builds(
    changed,
    cloud=st.fixed_dictionaries(
        {
            "machines": st.integers(1, 3),
            "max_queue": st.integers(1, 20),
            "slowdown": st.floats(0.5, 20),
            "down": st.sampled_from(
                [(), (Outage(5, 10),), (Outage(0, 60),), (Outage(3, 9, 1), Outage(20, 30))]
            ),
        }
    ),
    classes=st.fixed_dictionaries(
        {
            "count": st.integers(1, 40),
            "rate_per_s": st.floats(0.1, 3),
            "sla_s": st.sampled_from([None, 0.05, 0.2, 1.0]),
            "slowdown": st.sampled_from([Percentiles(1.0), Percentiles(2.0, 0.5, 9.0)]),
            "jitter": st.sampled_from([0.0, 0.3]),
        }
    ),
    knowledge=st.sampled_from(["true", "estimated"]),
    seed=st.integers(0, 5),
    horizon_s=st.just(20.0),
).filter(lambda fleet: all((o.machines or 1) <= fleet.cloud.machines for o in fleet.cloud.down))


def run(of: Scenario, name: str = "least-cloud") -> tuple[Workload, SimulationOutcome]:
    workload = draw(of)
    told = list[int]()
    outcome = simulate(of, workload, named(name, of), told.append)
    assert sum(told) == len(workload)
    return workload, outcome


def finishing(of: Scenario, outcome: SimulationOutcome) -> Any:
    """The place of the cut whose result each job got: all-head, if the device did what the cloud should have."""
    alone = [cut.kind for cut in of.manifests[0].cuts].index("all-head")
    return np.where(outcome.end == End.DEVICE, alone, outcome.cut)


@SETTINGS
@given(FLEETS, st.sampled_from(POLICIES))
def test_every_job_ends_once_and_no_faster_than_alone(fleet: Fleet, name: str) -> None:
    of = scenario(fleet)
    workload, outcome = run(of, name)
    assert np.isfinite(outcome.latency_s).all()
    assert ((outcome.end >= 0) & (outcome.end < End.REFUSED)).all(), "a device that can finish alone does"
    found = reach(of, workload)
    least_s = found.latency_s[np.arange(len(workload)), finishing(of, outcome)]
    assert (outcome.latency_s >= least_s * (1 - 1e-9)).all()


@SETTINGS
@given(FLEETS, st.sampled_from(POLICIES))
def test_nothing_beats_the_bounds(fleet: Fleet, name: str) -> None:
    of = scenario(fleet)
    workload, outcome = run(of, name)
    workers = fleet.cloud.machines * fleet.cloud.workers
    assert 0 <= outcome.busy_s <= workers * outcome.until_s * (1 + 1e-9)
    if not len(workload):
        return
    found = reach(of, workload)
    sla_s = fleet.classes[0].sla_s
    if sla_s is not None:
        met = int(np.count_nonzero(outcome.latency_s <= sla_s))
        assert met <= most_met(of, workload, found)
        assert least_busy_s(of, workload, found, met) <= outcome.busy_s * (1 + 1e-6) + 1e-9
    until_s = float((workload.time_s + outcome.latency_s).max())
    assert least_mean_s(of, found, max(until_s, outcome.until_s)) <= outcome.latency_s.mean() * (1 + 1e-9)


def test_of_a_target_that_nothing_meets_the_bounds_are_known() -> None:
    of = scenario(changed(classes={"sla_s": 1e-9}))
    workload, outcome = run(of, "all-cloud")
    found = reach(of, workload)
    assert not found.met.any()
    assert most_met(of, workload, found) == 0
    assert least_busy_s(of, workload, found, 0) == 0.0  # there is an all-head cut
    assert outcome.busy_s > 0


@SETTINGS
@given(FLEETS)
def test_equal_seeds_give_equal_results(fleet: Fleet) -> None:
    (_, first), (_, second) = run(scenario(fleet)), run(scenario(fleet))
    for name in ("latency_s", "end", "cut", "load", "price"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.busy_s == second.busy_s


def test_other_seeds_give_other_jobs() -> None:
    first, second = draw(scenario(changed(seed=1))), draw(scenario(changed(seed=2)))
    assert len(first) != len(second) or (first.time_s != second.time_s).any()


@pytest.mark.parametrize("name", [*POLICIES, "fixed:c1"])
@pytest.mark.parametrize("knowledge", ["true", "estimated"])
def test_an_idle_cloud_and_device_take_what_the_formula_says(name: str, knowledge: str) -> None:
    of = scenario(changed(classes={"rate_per_s": 0.01, "count": 20}, horizon_s=2000.0, knowledge=knowledge))
    workload, outcome = run(of, name)
    wanted_s = expected_s(of, workload, finishing(of, outcome))
    alone = outcome.end == np.where(outcome.cut == 0, 0, outcome.cut)
    assert alone.mean() > 0.9  # the others were late, and hedged
    close = np.isclose(outcome.latency_s[:, None], wanted_s, rtol=1e-9).any(axis=1)
    assert close[alone].mean() > 0.98  # two jobs of one device may still meet, or a job and a probe


def expected_s(of: Scenario, workload: Workload, cuts: Any) -> Any:
    """The formula and what TCP adds to it after a pause: over a connection that was kept, and over a new one."""
    rows = []
    for index, place in enumerate(cuts.tolist()):
        truth = Conditions(
            float(workload.uplink_bps[index]),
            float(workload.downlink_bps[index]),
            float(workload.rtt_s[index]),
            device_slowdown=float(workload.slowdown[index]),
            cloud_slowdown=of.fleet.cloud.slowdown,
        )
        cut = of.manifests[0].cuts[place]
        rows.append([latency_s(cut, truth) + lone_s(cut, truth, rate) for rate in (math.inf, 0.0)])
    return np.array(rows)


def test_a_cloud_first_split_uploads_computes_downloads_and_finishes_here() -> None:
    cuts = (
        manifests.cut("c0", head_s=10.0),
        manifests.cloud_first("c1", head_s=0.02, tail_s=0.03, up=1000, down=5000),
    )
    of = scenario(changed(classes={"rate_per_s": 0.01}, horizon_s=500.0), cuts)
    workload, outcome = run(of, "latency")
    assert (outcome.end == End.SPLIT).all()
    wanted_s = expected_s(of, workload, outcome.cut)
    assert np.isclose(outcome.latency_s[:, None], wanted_s, rtol=1e-9).any(axis=1).all()


@pytest.mark.parametrize("knowledge", ["true", "estimated"])
def test_without_a_cloud_devices_do_it_alone(knowledge: str) -> None:
    of = scenario(changed(cloud={"down": (Outage(0, 1000),)}, knowledge=knowledge))
    _, outcome = run(of, "all-cloud")
    assert (outcome.end == End.DEVICE).all()
    assert outcome.busy_s == 0
    # After two failures a device leaves the cloud alone, and then pays nothing for it but jobs before its turn.
    assert np.median(outcome.latency_s) == pytest.approx(0.1)


@pytest.mark.parametrize("knowledge", ["true", "estimated"])
def test_devices_that_need_a_cloud_are_told_at_once_that_there_is_none(knowledge: str) -> None:
    of = scenario(changed(cloud={"down": (Outage(0, 1000),)}, knowledge=knowledge), ONLY_CLOUD)
    workload, outcome = run(of, "latency")
    assert (outcome.end == End.REFUSED).all()
    if knowledge == "true":
        assert (outcome.latency_s == 0).all()
        return
    for index, latency in enumerate(outcome.latency_s.tolist()):
        cut = ONLY_CLOUD[int(outcome.cut[index])]
        sent_s = workload.rtt_s[index] + 8 * cut.uplink_bytes / workload.uplink_bps[index]
        # The head may have waited for those of earlier jobs of its device.
        assert latency <= cut.device_s * 10 + sent_s + 1e-9


def test_an_overloaded_cloud_turns_away_and_all_that_can_goes_on() -> None:
    of = scenario(changed(cloud={"slowdown": 20.0, "max_queue": 4}))
    _, outcome = run(of, "all-cloud")
    assert outcome.refused > 0
    assert np.count_nonzero(outcome.end == End.DEVICE) > 0
    assert not np.any(outcome.end == End.REFUSED)
    _, outcome = run(scenario(of.fleet, ONLY_CLOUD), "all-cloud")
    assert np.count_nonzero(outcome.end == End.REFUSED) > 0


def test_a_late_answer_is_hedged_on_the_device() -> None:
    """The policy believes in a cloud that is a thousand times as fast as it is."""
    of = scenario(changed(cloud={"slowdown": 1000.0}, classes={"rate_per_s": 0.02}, knowledge="true"))

    def hopeful(manifest: Any, conditions: Any, sla_s: float | None) -> Decision:
        return named("all-cloud", of).choose(
            manifest, replace(conditions, cloud_slowdown=1.0, queue_s=0.0), sla_s
        )

    workload = draw(of)
    outcome = simulate(of, workload, Policy("hopeful", hopeful), lambda _: None)
    assert (outcome.end == End.DEVICE).all()
    assert (outcome.latency_s < 5).all()


def test_a_price_spares_the_cloud_what_is_worth_least() -> None:
    """Both keep the cloud busy; with the price, its second goes to who gains most by it."""
    slow = replace(CLASS, name="slow", device="there", slowdown=Percentiles(8.0), sla_s=None)
    quick = replace(CLASS, name="quick", device="there", slowdown=Percentiles(1.5), sla_s=None)
    fleet = changed(cloud={"slowdown": 5.0}, horizon_s=200.0)
    of = scenario(replace(fleet, classes=(slow, quick)))
    workload = draw(of)
    found = reach(of, workload)
    selfish, priced = (
        summarise(of, workload, simulate(of, workload, named(name, of), lambda _: None), found)
        for name in ("latency", "price")
    )
    assert priced.all.mean_s is not None
    assert selfish.all.mean_s is not None
    assert priced.all.mean_s < selfish.all.mean_s


def test_the_load_over_time_adds_up() -> None:
    of = scenario(changed(cloud={"machines": 2}))
    _, outcome = run(of, "all-cloud")
    slice_s = of.fleet.horizon_s / len(outcome.load)
    assert math.isclose(outcome.load.sum() * slice_s * 2, outcome.busy_s, rel_tol=0.02)
