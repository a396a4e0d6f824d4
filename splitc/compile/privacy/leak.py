"""How much of a private tensor a linear decoder rebuilds from what crosses: a lower bound on what an attacker gets.

The decoder is kernel ridge regression with a linear kernel (Saunders, Gammerman and Vovk, 1998), which is ridge
regression solved in the samples. With X and Y the centred features and private values of n samples, one row each, and
K = X X', it predicts k' (K + s I)^-1 Y. Only n x n matrices are needed, however large the tensors are: the error of a
prediction, which is a weighted sum of rows of Y, follows from Y Y'.

The figure is the share of variance explained on samples that were held out, 1 - (squared error) / (squared distance
from the mean of the other samples), over ten folds, and at least 0. In each fold, every tensor that crosses is scaled
to the same total variance, and the strength s is the one with the least leave-one-out error on the other samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from splitc.common.values import Array

MIN_SAMPLES = 8
_FOLDS = 10
_STRENGTHS = 10.0 ** np.arange(-7.0, 5.0)
_COLUMNS = 1 << 16
_DIGITS = 3

_Matrix = NDArray[np.float64]


def products(values: Sequence[Array]) -> _Matrix | None:
    """Return the scalar products of the samples of one tensor, after their mean is subtracted.

    None if samples differ in size, or are not numbers.
    """
    rows = [np.asarray(value).reshape(-1) for value in values]
    if len({row.size for row in rows}) != 1 or any(row.dtype.kind in "OUSM" for row in rows):
        return None
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, rows[0].size, _COLUMNS):
        block = np.stack([row[start : start + _COLUMNS].astype(np.float64) for row in rows])
        block = np.where(np.isfinite(block), block, 0.0)
        block -= block.mean(axis=0)
        total += block @ block.T
    return total


def share_explained(crossing: Sequence[_Matrix], private: _Matrix) -> float | None:
    """Return the share of the variance of *private* that is explained by what crosses, 0 to 1.

    Args:
        crossing: the `products` of each tensor that crosses.
        private: those of the private tensor, of the same samples.

    Returns:
        None with fewer than `MIN_SAMPLES` samples, or if all samples have the same private value.
    """
    count = len(private)
    if count < MIN_SAMPLES:
        return None
    error = spread = 0.0
    folds = min(_FOLDS, count)
    for fold in range(folds):
        held = np.arange(count) % folds == fold
        wrong, far = _held_out(crossing, private, held)
        error += wrong
        spread += far
    if spread <= 0.0:
        return None
    return round(float(min(max(1.0 - error / spread, 0.0), 1.0)), _DIGITS)


def _held_out(crossing: Sequence[_Matrix], private: _Matrix, held: NDArray[np.bool_]) -> tuple[float, float]:
    """The squared error of the samples *held* out, and their squared distance from the mean of the others."""
    rest = ~held
    wanted = _centred(private, rest)
    spread = float(np.trace(wanted[np.ix_(held, held)]))
    kernel = np.zeros_like(private)
    for one in crossing:
        moved = _centred(one, rest)
        size = float(np.trace(moved[np.ix_(rest, rest)])) / int(rest.sum())
        if size > 0.0:
            kernel += moved / size
    if not kernel.any():
        return spread, spread
    fitted = _fit(kernel[np.ix_(rest, rest)], wanted[np.ix_(rest, rest)])
    weights = np.zeros((int(held.sum()), len(private)))
    weights[:, held] = np.eye(int(held.sum()))
    weights[:, rest] = -kernel[np.ix_(held, rest)] @ fitted
    return float(np.sum((weights @ wanted) * weights)), spread


def _centred(products_of: _Matrix, rest: NDArray[np.bool_]) -> _Matrix:
    """The scalar products after the mean of the samples *rest* is subtracted."""
    moving = np.eye(len(products_of)) - rest / rest.sum()
    moved: _Matrix = moving @ products_of @ moving.T
    return moved


def _fit(kernel: _Matrix, wanted: _Matrix) -> _Matrix:
    """Return (K + s I)^-1 with the strength s that has the least leave-one-out error.

    Leaving out sample i multiplies its residual by 1 / (1 - H_ii), where H maps the samples to what is fitted to them:
    K (K + s I)^-1 and the mean, which is fitted without a penalty.
    """
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0.0)
    inner = vectors.T @ wanted @ vectors
    errors = []
    for strength in _STRENGTHS:
        missed = strength / (values + strength)
        squared = np.sum((vectors @ (inner * np.outer(missed, missed))) * vectors, axis=1)
        left = (vectors * missed * vectors).sum(axis=1) - 1.0 / len(kernel)
        errors.append(float(np.sum(squared / np.maximum(left, 1e-9) ** 2)))
    fitted: _Matrix = (vectors / (values + _STRENGTHS[int(np.argmin(errors))])) @ vectors.T
    return fitted
