"""Select the fewest cuts that keep the regret within its limit, or the best `max_cuts` cuts.

This is a set cover problem, solved exactly by constraint generation. A witness is a point of the box; a cut
covers the witness if its regret there is within the limit. The regret of a set of cuts compares its latency
with that of the frontier. In a region where one cut of the set is the best of the set, the regret is a linear
function divided by a concave one, so it is quasi-convex, and its maximum is at a vertex of the envelope of
the set. These vertices become new witnesses until a set that covers all witnesses meets the limit everywhere.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from splitc.solve.cuts import Cut
from splitc.solve.envelope import Envelope
from splitc.solve.frontier import preference
from splitc.solve.space import BoolArray, FloatArray, Space

_ROUNDING = 1e-12


def select(
    space: Space, frontier: Sequence[Cut], always: Sequence[Cut], *, max_cuts: int, regret: float
) -> tuple[Cut, ...]:
    """Choose cuts from *frontier* and *always*; take the cuts of *always* first, as far as *max_cuts* allows."""
    candidates = list(dict.fromkeys([*always, *frontier]))
    amounts = space.scaled_amounts(candidates)
    rows = np.isin(np.arange(len(candidates)), [candidates.index(cut) for cut in frontier])
    forced = np.arange(len(candidates)) < min(len(always), max_cuts)
    chosen = _choose(space.scaled_low(), amounts, rows, forced, max_cuts=max_cuts, limit=regret)
    cuts = [cut for cut, take in zip(candidates, chosen, strict=True) if take]
    ends = {"all-head": 0, "split": 1, "all-tail": 2}
    return tuple(
        sorted(cuts, key=lambda cut: (ends[cut.kind], cut.cloud_s, preference(cut), sorted(cut.device)))
    )


def worst_points(low: FloatArray, shipped: FloatArray, frontier: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the vertices of the envelope of *shipped*, and its regret against *frontier* at each of them.

    Both arguments are scaled amounts.
    """
    envelope = Envelope(low, shipped[0])
    for function in shipped[1:]:
        envelope.add(function)
    points = envelope.points
    return points, _regrets(points, shipped, frontier).min(axis=1)


def _regrets(points: FloatArray, cuts: FloatArray, frontier: FloatArray) -> FloatArray:
    """Return, for each point (row) and cut (column), how much slower the cut is than the best cut."""
    best = np.min(points @ frontier.T, axis=1, keepdims=True)
    regrets: FloatArray = points @ cuts.T / np.maximum(best, 1e-300) - 1.0
    return regrets


def _choose(
    low: FloatArray,
    amounts: FloatArray,
    frontier: BoolArray,
    forced: BoolArray,
    *,
    max_cuts: int,
    limit: float,
) -> BoolArray:
    """Select rows of *amounts*; if *max_cuts* cuts cannot meet *limit*, raise the limit as little as needed."""
    chosen = forced if forced.any() else np.arange(len(amounts)) == 0
    regrets = np.empty((0, len(amounts)))
    while True:
        points, worst = worst_points(low, amounts[chosen], amounts[frontier])
        if worst.max() <= limit + _ROUNDING:
            return chosen
        regrets = np.vstack(
            [regrets, _regrets(points[worst > limit + _ROUNDING], amounts, amounts[frontier])]
        )
        chosen = _cover(regrets <= limit + _ROUNDING, forced)
        if chosen.sum() > max_cuts:
            limit, chosen = _least_limit(regrets, forced, max_cuts, limit)


def _least_limit(
    regrets: FloatArray, forced: BoolArray, max_cuts: int, low: float
) -> tuple[float, BoolArray]:
    """Find the lowest regret at these witnesses that *max_cuts* cuts reach, by bisection over all values."""
    levels = np.unique(regrets[regrets > low])
    first, last = 0, len(levels) - 1
    best = _cover(regrets <= levels[last] + _ROUNDING, forced)
    while first < last:
        middle = (first + last) // 2
        chosen = _cover(regrets <= levels[middle] + _ROUNDING, forced)
        if chosen.sum() <= max_cuts:
            best, last = chosen, middle
        else:
            first = middle + 1
    return float(levels[last]), best


def _cover(covers: BoolArray, forced: BoolArray) -> BoolArray:
    """Return the fewest cuts, including the *forced* ones, that cover all witnesses (rows)."""
    left = np.unique(covers[~covers[:, forced].any(axis=1)], axis=0)
    if not len(left):
        return forced
    result = milp(
        np.ones(len(forced)),
        constraints=LinearConstraint(left.astype(np.float64), lb=1.0),
        bounds=Bounds(forced.astype(np.float64), 1.0),
        integrality=np.ones(len(forced)),
    )
    if result.x is None:
        raise RuntimeError(f"set cover failed: {result.message}")
    chosen: BoolArray = np.rint(result.x).astype(bool)
    return chosen
