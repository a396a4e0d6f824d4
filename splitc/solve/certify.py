"""A certified bound on the regret of the shipped cuts, over the whole box.

For a frontier cut f and shipped cuts s, the maximum of (min over s of latency_s) / latency_f is a linear
program (Charnes and Cooper, 1962): scale the prices so that latency_f is 1. Its dual solution gives a
weight to each shipped cut. Any weights prove a bound, so the bound does not depend on a correct LP solver:
the best shipped cut is never slower than the weighted mean of the shipped cuts. The ratio of this mean to
latency_f is a ratio of linear functions, so its maximum is at a corner of the box.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_array

from splitc.solve.cuts import Cut
from splitc.solve.space import FloatArray, Space

_ROUNDING = 1e-12


def certified_regret(space: Space, shipped: Sequence[Cut], frontier: Sequence[Cut]) -> float:
    """Return an upper bound of (best of *shipped*) / (best of *frontier*) - 1, exact except for rounding."""
    missing = space.scaled_amounts(cut for cut in frontier if cut not in set(shipped))
    if not len(missing):
        return 0.0
    amounts = space.scaled_amounts(shipped)
    means = _weightings(space.scaled_low(), amounts, missing) @ amounts
    corners = np.array(list(product(*zip(space.scaled_low(), np.ones(len(space.low)), strict=True))))
    bounds = (means @ corners.T) / np.maximum(missing @ corners.T, 1e-300)
    worst = float(bounds.max()) - 1.0
    return max(0.0, worst + _ROUNDING) if worst > -_ROUNDING else 0.0


def _weightings(low: FloatArray, shipped: FloatArray, missing: FloatArray) -> FloatArray:
    """Return, for each missing cut (row), the weights of the shipped cuts (columns) that prove the best bound.

    One linear program solves all missing cuts, with one independent block for each; this saves set-up time.
    The variables of a block are the prices, the lowest latency of the shipped cuts, and the scale of the box.
    """
    prices = len(low)
    box = np.vstack(
        [
            np.column_stack([np.eye(prices), np.zeros(prices), -np.ones(prices)]),
            np.column_stack([-np.eye(prices), np.zeros(prices), low]),
        ]
    )
    undercut = np.column_stack([-shipped, np.ones(len(shipped)), np.zeros(len(shipped))])
    sizes = missing.max(axis=1, initial=1e-300)
    blocks = [csr_array(np.vstack([undercut / [*[size] * prices, 1, 1], box])) for size in sizes]
    ratios = [
        csr_array(np.append(cut / size, [0.0, 0.0])[None]) for cut, size in zip(missing, sizes, strict=True)
    ]
    objective = np.tile(np.append(np.zeros(prices), [-1.0, 0.0]), len(missing))
    result = linprog(
        objective,
        A_ub=block_diag(blocks, format="csr"),
        b_ub=np.zeros(len(blocks) * blocks[0].shape[0]),
        A_eq=block_diag(ratios, format="csr"),
        b_eq=np.ones(len(missing)),
    )
    if result.status != 0:
        raise RuntimeError(f"the certificate's linear program failed: {result.message}")
    weights = -result.ineqlin.marginals.reshape(len(missing), -1)[:, : len(shipped)]
    weights = np.maximum(weights, 0.0)
    normalised: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return normalised
