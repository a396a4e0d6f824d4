"""Policies choose as `splitc.bundle.decide` does."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions, aim, decide, latency_s
from splitc.simulate.policies import latency, least_cloud, price
from tests import manifests
from tests.simulate.scenarios import named, scenario

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
CONDITIONS = st.builds(
    Conditions,
    st.floats(1e4, 1e9),
    st.floats(1e4, 1e9),
    st.floats(0, 1),
    st.floats(0, 1),
    device_slowdown=st.floats(0.1, 20),
    cloud_slowdown=st.floats(0.1, 20),
    price=st.floats(0, 100),
)
SLAS = st.one_of(st.none(), st.floats(0.01, 1))


@SETTINGS
@given(CONDITIONS, SLAS)
def test_each_is_a_use_of_decide(conditions: Conditions, sla_s: float | None) -> None:
    manifest = manifests.manifest()
    assert least_cloud(manifest, conditions, sla_s) == aim(manifest.cuts, conditions, sla_s)
    assert price(manifest, conditions, sla_s) == decide(manifest, conditions)
    selfish = latency(manifest, conditions, sla_s)
    assert selfish.latency_s == min(latency_s(cut, conditions) for cut in manifest.cuts)


@SETTINGS
@given(CONDITIONS, st.floats(0.01, 1), st.floats(0.1, 2))
def test_another_share_of_the_target_may_be_aimed_at(
    conditions: Conditions, sla_s: float, share: float
) -> None:
    of = scenario()
    (manifest,) = of.manifests
    found = named(f"least-cloud:{share}", of).choose(manifest, conditions, sla_s)
    aimed = decide(manifest, conditions, share * sla_s)
    assert found == (aimed if aimed.latency_s <= share * sla_s else decide(manifest, conditions, sla_s))
    assert named("least-cloud:0.8", of).choose(manifest, conditions, sla_s) == aim(
        manifest.cuts, conditions, sla_s
    )


@SETTINGS
@given(CONDITIONS, SLAS)
def test_some_always_choose_the_same(conditions: Conditions, sla_s: float | None) -> None:
    of = scenario()
    (manifest,) = of.manifests
    for name, cut in (("all-device", "c0"), ("all-cloud", "c2"), ("fixed:c1", "c1")):
        decision = named(name, of).choose(manifest, conditions, sla_s)
        assert decision.cut.id == cut
        assert decision.latency_s == latency_s(decision.cut, conditions)


@SETTINGS
@given(CONDITIONS, st.floats(1, 10))
def test_the_cloud_does_not_do_more_at_a_higher_price(conditions: Conditions, factor: float) -> None:
    manifest = manifests.manifest()
    dearer = replace(conditions, price=factor * conditions.price)
    assert price(manifest, dearer, None).cut.cloud_s <= price(manifest, conditions, None).cut.cloud_s
