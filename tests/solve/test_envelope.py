"""The vertices of an envelope are those that trying all combinations of constraints finds."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.solve.envelope import Envelope
from splitc.solve.space import FloatArray

SETTINGS = settings(derandomize=True, deadline=None, max_examples=80)


def all_vertices(low: FloatArray, functions: FloatArray) -> FloatArray:
    """Rays of {value <= f.x for each f, low[j] x[i] <= x[j]} by brute force, largest price 1."""
    size = len(low)
    unit = np.eye(size)
    facets = [unit[j] - low[j] * unit[i] for i in range(size) for j in range(size) if i != j]
    rows = np.vstack(
        [
            np.column_stack([functions, -np.ones(len(functions))]),
            np.column_stack([facets, np.zeros(len(facets))]),
        ]
    )
    found = []
    for chosen in combinations(range(len(rows)), size):
        *_, singular, right = np.linalg.svd(rows[list(chosen)])
        if singular[size - 1] < 1e-9 or not (right[-1, :size] ** 2).sum() > 1e-12:
            continue
        ray = right[-1] / right[-1][np.argmax(np.abs(right[-1, :size]))]
        if np.all(rows @ ray >= -1e-9) and np.any(rows[: len(functions)] @ ray <= 1e-9):
            found.append(ray[:size])
    return np.array(found)


@SETTINGS
@given(st.integers(0, 2**32), st.integers(2, 3), st.integers(1, 5), st.booleans())
def test_vertices_are_complete(seed: int, prices: int, count: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    low = random.choice([0.1, 0.5, 0.0], prices)
    functions: FloatArray = random.random((count, prices))
    if ties:
        functions = np.floor(4.0 * functions)
    envelope = Envelope(low, functions[0])
    for function in functions[1:]:
        envelope.add(function)
    expected = all_vertices(low, functions)
    assert np.allclose(envelope.values, np.min(envelope.points @ functions.T, axis=1), atol=1e-9)
    distance = np.abs(expected[:, None] - envelope.points[None]).max(axis=2)
    assert np.all(distance.min(axis=1) < 1e-6)
    assert np.all(distance.min(axis=0) < 1e-6)


def test_fixed_prices_leave_fewer_dimensions() -> None:
    low = np.array([1.0, 0.25, 1.0])
    envelope = Envelope(low, np.array([2.0, 0.0, 0.0]))
    envelope.add(np.array([0.0, 2.0, 1.0]))
    assert sorted(envelope.points[:, 1]) == [0.25, 0.5, 1.0]
    assert sorted(envelope.values) == [1.5, 2.0, 2.0]
    assert np.all(envelope.points[:, [0, 2]] == 1.0)


def test_a_vertex_keeps_its_key_and_no_key_returns() -> None:
    random = np.random.default_rng(0)
    envelope = Envelope(np.full(4, 0.1), np.ones(4))
    seen = dict(zip(envelope.keys, map(tuple, envelope.points), strict=True))
    for _ in range(10):
        envelope.add(random.random(4))
        now = dict(zip(envelope.keys, map(tuple, envelope.points), strict=True))
        assert len(now) == len(envelope.points)
        assert all(seen.get(key, point) == pytest.approx(point) for key, point in now.items())
        seen |= now
    assert len(seen) > len(envelope.points)
