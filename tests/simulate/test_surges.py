"""A surge, from its beginning to after its end: the price settles, devices that can go on alone, the others are told."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitc.simulate.engine import SLICES, SimulationOutcome, simulate
from splitc.simulate.fleet import Fleet, Outage, Percentiles, Phase
from splitc.simulate.job import End
from splitc.simulate.scenario import Scenario
from splitc.simulate.workload import Workload, draw
from tests import manifests
from tests.simulate.scenarios import CLASS, ONLY_CLOUD, changed, named, scenario

HORIZON_S, BEGINS_S, ENDS_S = 480.0, 80.0, 280.0
# Devices that are all alike, of which the cloud can serve a half at the usual rate, and which gain 0.4 s each by it.
ALIKE = {
    "count": 150,
    "rate_per_s": 0.14,
    "sla_s": None,
    "slowdown": Percentiles(5.0),
    "networks": {"wifi": 1.0},
}


def surge(factor: float, knowledge: str) -> Fleet:
    return changed(
        horizon_s=HORIZON_S,
        phases=(Phase(BEGINS_S, ENDS_S, factor),),
        classes=ALIKE,
        knowledge=knowledge,
    )


def run(of: Scenario, name: str) -> tuple[Workload, SimulationOutcome]:
    workload = draw(of)
    return workload, simulate(of, workload, named(name, of), lambda _: None)


def are_alone(of: Scenario) -> NDArray[np.bool_]:
    """Which cuts leave the cloud out."""
    return np.array([cut.cloud is None for cut in of.manifests[0].cuts])


def within(outcome: SimulationOutcome, from_s: float, to_s: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Load and price of the slices between two times."""
    ends_s = np.arange(1, SLICES + 1) * HORIZON_S / SLICES
    inside = (ends_s > from_s) & (ends_s <= to_s)
    return outcome.load[inside], outcome.price[inside]


@pytest.mark.parametrize("knowledge", ["true", "estimated"])
@pytest.mark.parametrize("factor", [4.0, 8.0], ids=["fourfold", "eightfold"])
def test_the_price_of_a_surge_settles_and_goes_away_with_it(factor: float, knowledge: str) -> None:
    of = scenario(surge(factor, knowledge), manifests.CUTS[::2])
    _, outcome = run(of, "price")
    _, before = within(outcome, 0, BEGINS_S)
    assert (before == 0).all()
    load, price = within(outcome, BEGINS_S + 100, ENDS_S)
    # Who hears of a price only with its own requests may still be on the way there.
    near = 0.05 if knowledge == "true" else 0.1
    assert load.mean() == pytest.approx(of.fleet.cloud.utilisation, abs=near)
    # Between all and nothing, the load would swing by half of itself, and the price by a factor of ten.
    assert load.std() < 0.12
    assert price.max() < 4 * price.min()
    _, after = within(outcome, ENDS_S + 80, HORIZON_S)
    assert (after == 0).all()


@pytest.mark.parametrize("knowledge", ["true", "estimated"])
def test_while_the_price_is_up_fewer_go_to_the_cloud_and_none_is_turned_away(knowledge: str) -> None:
    of = scenario(surge(8.0, knowledge), manifests.CUTS[::2])
    workload, outcome = run(of, "price")
    offloaded = ~are_alone(of)[
        outcome.cut
    ]  # for a while after late answers, some devices are faster nevertheless
    late = (workload.time_s > BEGINS_S + 100) & (workload.time_s < ENDS_S)
    # 50 of 168 requests a second are what the cloud can do at its target.
    assert offloaded[late].mean() == pytest.approx(0.85 * 50 / 168, abs=0.05)
    assert offloaded[workload.time_s > ENDS_S + 80].mean() > 0.95
    assert outcome.refused < 0.01 * len(workload)


def mixed(fleet: Fleet) -> Scenario:
    """Devices that can do it alone, and as many that cannot, with a class for each."""
    devices = ("able", "unable")
    classes = tuple(replace(CLASS, name=name, device=name, sla_s=None) for name in devices)
    fleet = replace(fleet, classes=classes)
    of = scenario(fleet)
    able, whole = of.manifests[0], manifests.manifest(ONLY_CLOUD)
    head = replace(whole.targets.device, name="unable")
    unable = replace(
        whole,
        model=replace(whole.model, sha256=whole.model.sha256[::-1]),
        targets=replace(whole.targets, device=head),
    )
    return replace(of, manifests=(able, unable))


@pytest.mark.parametrize("knowledge", ["true", "estimated"])
@pytest.mark.parametrize(
    "cloud",
    [
        {"slowdown": 60.0, "max_queue": 2},
        {"down": (Outage(10, 50),)},
        {"down": (Outage(0, 60),)},
    ],
    ids=["overloaded", "gone for a while", "gone"],
)
def test_who_can_finishes_alone_and_who_cannot_is_told_at_once(
    cloud: dict[str, object], knowledge: str
) -> None:
    of = mixed(changed(cloud=cloud, knowledge=knowledge))
    workload, outcome = run(of, "all-cloud")
    able = workload.owner == 0
    assert not np.any(outcome.end[able] == End.REFUSED)
    assert np.count_nonzero(outcome.end[able] == End.DEVICE) > 10
    refused = np.flatnonzero(outcome.end == End.REFUSED)
    assert len(refused) > 10
    assert not able[refused].any()
    payload_bytes = 100_000
    for index in refused.tolist():
        up_bps, rtt_s = float(workload.uplink_bps[index]), float(workload.rtt_s[index])
        # At most a connection is opened, and the request sent while TCP opens its window: its answer says no.
        at_once_s = (2 + 4) * rtt_s + 8 * payload_bytes / up_bps
        broke_off = any(
            outage.from_s - 5 < workload.time_s[index] <= outage.from_s for outage in of.fleet.cloud.down
        )
        assert outcome.latency_s[index] <= at_once_s or broke_off
