"""The fluid approximation agrees with events where both can be had."""

from dataclasses import replace

import pytest

from splitc.simulate.bounds.fluid import phase_count, plan
from splitc.simulate.bounds.offline import reach
from splitc.simulate.engine import simulate
from splitc.simulate.fleet import Fleet, Outage, Percentiles
from splitc.simulate.report.summary import Summary, summarise
from splitc.simulate.workload import draw
from tests.simulate.scenarios import ONLY_CLOUD, changed, named, scenario

# Many devices, each seldom asking: what their own processors make them wait for is nothing. More are on one network
# than on the other, or the median would lie in the gap between the latencies of the two.
MANY = changed(
    horizon_s=300.0,
    cloud={"machines": 2},
    classes={
        "count": 2000,
        "rate_per_s": 0.02,
        "slowdown": Percentiles(2.0, 1.0, 4.0),
        "jitter": 0.1,
        "networks": {"wifi": 0.7, "lte": 0.3},
    },
)


def both(fleet: Fleet, name: str) -> tuple[Summary, Summary]:
    of = scenario(fleet)
    workload, chosen = draw(of), named(name, of)
    simulated = summarise(of, workload, simulate(of, workload, chosen, lambda _: None), reach(of, workload))
    told = list[int]()
    planned = plan(of, chosen, told.append)
    assert sum(told) == phase_count(fleet)
    return simulated, planned


# Of the cloud: little to do, much, and more than fits.
@pytest.mark.parametrize("slowdown", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("name", ["least-cloud", "latency", "price", "all-cloud", "all-device"])
def test_agrees_with_events(name: str, slowdown: float) -> None:
    simulated, planned = both(replace(MANY, cloud=replace(MANY.cloud, slowdown=slowdown)), name)
    # In percentage points of all jobs, and of the time of all machines.
    for share in ("device", "split", "cloud", "refused", "met"):
        assert getattr(planned.all, share) == pytest.approx(getattr(simulated.all, share), abs=0.06)
    assert planned.utilisation == pytest.approx(simulated.utilisation, abs=0.06)
    assert planned.all.p50_s == pytest.approx(simulated.all.p50_s, rel=0.12)


def test_batches_do_more_than_single_runs() -> None:
    busy = replace(MANY.cloud, slowdown=6.0, max_batch=8, batch=((8, 3.0),))
    simulated, planned = both(replace(MANY, cloud=busy), "all-cloud")
    assert simulated.turned_away == planned.turned_away == 0
    assert planned.all.p50_s == pytest.approx(simulated.all.p50_s, rel=0.25)


def test_without_machines_devices_do_it_alone_or_are_refused() -> None:
    gone = replace(MANY, cloud=replace(MANY.cloud, down=(Outage(0, 300),)))
    for cuts, end in ((None, "device"), (ONLY_CLOUD, "refused")):
        of = scenario(gone) if cuts is None else scenario(gone, cuts)
        found = plan(of, named("latency", of), lambda _: None)
        assert getattr(found.all, end) == pytest.approx(1)
        assert found.busy_s == 0


def test_a_million_devices_take_no_longer_than_a_few() -> None:
    """The same fleet, a thousand times as large, with a thousand times the machines."""
    large = replace(
        MANY,
        cloud=replace(MANY.cloud, machines=2000, slowdown=10.0),
        classes=(replace(MANY.classes[0], count=2_000_000),),
    )
    of = scenario(large)
    found = plan(of, named("price", of), lambda _: None)
    assert found.all.jobs == pytest.approx(2e6 * 0.02 * 300)
    assert 0 < found.utilisation <= 0.86
