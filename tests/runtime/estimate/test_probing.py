"""When the link is looked at without need, and when that would change nothing."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.decide import Conditions
from splitc.runtime.estimate.probing import is_due, link_matters
from tests import manifests

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
SECONDS = st.floats(0, 1e4)


@SETTINGS
@given(SECONDS, SECONDS)
def test_news_grow_old_later_the_longer_the_device_went_alone(age_s: float, silent_s: float) -> None:
    assert is_due(age_s=age_s, silent_s=silent_s, idle=True) == (age_s > min(max(silent_s / 8, 2.0), 20.0))


@SETTINGS
@given(SECONDS, SECONDS)
def test_what_is_about_to_be_sent_tells_as_much(age_s: float, silent_s: float) -> None:
    assert not is_due(age_s=age_s, silent_s=silent_s, idle=False)


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "about to send"])
def test_of_a_link_that_nobody_has_seen_anything_is_news(idle: bool) -> None:
    assert is_due(age_s=math.inf, silent_s=0.0, idle=idle)


def test_the_link_matters_where_the_best_one_would_be_used() -> None:
    manifest = manifests.manifest()
    dead = Conditions(0.0, 0.0, rtt_s=1.0, price=1e6)
    assert link_matters(manifest, dead)
    assert not link_matters(manifest, replace(dead, device_slowdown=1e-3))
    assert not link_matters(manifest, replace(dead, queue_s=10.0))
    assert not link_matters(manifests.manifest(manifests.CUTS[:1]), dead)
