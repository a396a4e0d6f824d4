"""The price makes many devices fit into one cloud, settles, and goes away when it is not needed."""

import random
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.price import Price, personal

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
REQUESTS = 400  # per interval
BEFORE, DURING, AFTER = 20, 120, 120  # intervals of half the capacity, of too much, of half again


def loop(load: float, worth: float, delay: int = 1) -> tuple[list[float], list[float]]:
    """Devices that are alike: each offloads while its price is below *worth*, as they saw it *delay* intervals ago.

    Returns what was asked for in each interval, over the capacity, and the price after it.
    """
    source = random.Random(7)
    price = Price(capacity=1.0)
    loads, prices = list[float](), [0.0] * delay
    for interval in range(BEFORE + DURING + AFTER):
        wanted = load if BEFORE <= interval < BEFORE + DURING else 0.5
        asked = 0.0
        for number in range(REQUESTS):
            work_s = wanted / REQUESTS * source.expovariate(1)
            if personal(prices[-delay], source.random()) < worth:
                asked += work_s
                price.arrived(work_s, interval + number / REQUESTS)
        loads.append(asked)
        prices.append(price.now(interval + 1))
    return loads, prices[delay:]


def settled_after(loads: Sequence[float]) -> int:
    """Intervals from the surge until every ten of them together stay within a quarter of the capacity."""
    means = [fmean(loads[start : start + 10]) for start in range(BEFORE, BEFORE + DURING - 10)]
    far = [number for number, mean in enumerate(means) if abs(mean - 1) > 0.25]
    return far[-1] + 1 if far else 0


@pytest.mark.parametrize("worth", [0.2, 5.0, 200.0])
@pytest.mark.parametrize("load", [1.5, 3.0, 6.0])
def test_a_surge_settles_at_the_capacity_without_swinging(load: float, worth: float) -> None:
    loads, prices = loop(load, worth)
    assert settled_after(loads) <= 40
    last = slice(BEFORE + DURING - 40, BEFORE + DURING)
    assert fmean(loads[last]) == pytest.approx(1, abs=0.05)
    # A swing between all and nothing would have a deviation of half the load; chance alone gives 0.05 to 0.2.
    assert pstdev(loads[last]) < 0.25
    assert max(prices[last]) < 1.5 * (worth + 0.1)


@pytest.mark.parametrize("worth", [0.2, 5.0, 200.0])
def test_no_price_is_left_when_the_load_falls(worth: float) -> None:
    _, prices = loop(3.0, worth)
    assert prices[BEFORE + DURING - 1] > 0
    assert prices[BEFORE + DURING + 60 :] == [0.0] * (AFTER - 60)


@pytest.mark.parametrize("delay", [2, 3])
def test_settles_where_devices_hear_of_the_price_late(delay: int) -> None:
    loads, _ = loop(3.0, 5.0, delay)
    last = slice(BEFORE + DURING - 40, BEFORE + DURING)
    assert fmean(loads[last]) == pytest.approx(1, abs=0.05)
    assert pstdev(loads[last]) < 0.25


def test_devices_that_are_alike_swing_for_ever_without_a_price_of_their_own() -> None:
    price, prices, loads = Price(capacity=1.0), [0.0], []
    for interval in range(300):
        asked = 3.0 if prices[-1] < 5 else 0.0
        price.arrived(asked, interval)
        loads.append(asked)
        prices.append(price.now(interval + 1))
    assert set(loads[-50:]) == {0.0, 3.0}


def test_room_for_all_costs_nothing() -> None:
    price = Price(capacity=2.0, interval_s=0.5)
    for number in range(1000):
        price.arrived(0.15, number / 10)
        assert price.now(number / 10) == 0


@SETTINGS
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=40))
def test_is_never_below_zero_nor_without_end(steps: list[tuple[float, float]]) -> None:
    price, now_s = Price(capacity=1.0), 0.0
    for work_s, pause_s in steps:
        now_s += pause_s
        price.arrived(work_s, now_s)
        assert 0 <= price.now(now_s) <= 1e4 + 1


def test_a_long_silence_is_over_at_once() -> None:
    price = Price(capacity=1.0)
    for number in range(100):
        price.arrived(3.0, float(number))
    assert price.now(100.0) > 0
    assert price.now(1e9) == 0


def test_only_work_that_does_not_fit_raises_it() -> None:
    rising = [1.2] * 30
    price, seen = Price(capacity=1.0), [0.0]
    for number, work_s in enumerate(rising):
        price.arrived(work_s, float(number))
        seen.append(price.now(number + 1.0))
    assert all(earlier < later for earlier, later in pairwise(seen))


@SETTINGS
@given(st.floats(0, 1e4), st.floats(0, 1), st.floats(0, 1))
def test_personal_prices_lie_around_the_price(price: float, share: float, other: float) -> None:
    assert personal(price, 0.5) == price
    assert price * 0.7 <= personal(price, share) <= price * 1.42
    if share < other:
        assert personal(price, share) <= personal(price, other)


@pytest.mark.parametrize(("capacity", "interval_s"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_nonsense_is_refused(capacity: float, interval_s: float) -> None:
    with pytest.raises(ValueError, match="must be above zero"):
        Price(capacity=capacity, interval_s=interval_s)
