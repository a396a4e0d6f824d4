"""Compute the lower envelope of linear functions over a box, stored as the vertices of the envelope.

Latency is linear and homogeneous in the prices, so which cut is better depends only on the
proportions of the prices: the envelope is defined on the cone over the box, with one dimension less.
The method is double description (Motzkin et al. 1953; Fukuda and Prodon 1996): each new function
cuts off the vertices above it and adds one on each edge that it crosses. Edges are found from the
sets of constraints that hold with equality; this stays correct if many functions meet in a vertex.
"""

from itertools import product

import numpy as np

from splitc.solve.space import BoolArray, FloatArray, IntArray

_EPS = 1e-12  # a slack below this share of the summed numbers is rounding error


class Envelope:
    """min over functions f of f.x, for x in the cone over the box {low <= x <= 1}.

    Attributes:
        points: (vertices, prices); each lies in the box, and its largest price is 1.
        values: the value of the envelope at each point.
        keys: one number per vertex, never reused for another vertex.
    """

    def __init__(self, low: FloatArray, first: FloatArray) -> None:
        self._fixed = low >= 1.0 - _EPS
        corners, tight = _extreme_rays(self._reduced_low(low))
        # The region below the envelope is a polyhedron. Row 0 is its only ray that is not a vertex: it points down.
        self._rays = np.vstack([np.zeros(corners.shape[1]), corners])
        self._values = np.append(-1.0, corners @ self._reduced(first))
        self._tight = np.vstack([np.ones(tight.shape[1], dtype=bool), tight])
        self._tight = np.column_stack([self._tight, np.arange(len(self._rays)) > 0])
        self._keys = np.arange(len(self._rays))

    @property
    def points(self) -> FloatArray:  # noqa: D102 - an attribute, see above
        points = np.empty((len(self._rays) - 1, len(self._fixed)))
        points[:, ~self._fixed] = self._rays[1:, : int(np.sum(~self._fixed))]
        points[:, self._fixed] = 1.0
        return points

    @property
    def values(self) -> FloatArray:  # noqa: D102 - an attribute, see above
        return self._values[1:]

    @property
    def keys(self) -> list[int]:  # noqa: D102 - an attribute, see above
        return [int(key) for key in self._keys[1:]]

    def add(self, function: FloatArray) -> None:
        """Lower the envelope to *function* wherever *function* is lower."""
        reduced = self._reduced(function)
        slack = self._rays @ reduced - self._values
        noise = _EPS * (self._rays @ np.abs(reduced) + np.abs(self._values))
        above, below = np.flatnonzero(slack < -noise), np.flatnonzero(slack > noise)
        first, second, shared = self._edges(above, below)
        weight = (slack[second] / (slack[second] - slack[first]))[:, None]
        rays = weight * self._rays[first] + (1.0 - weight) * self._rays[second]
        values = weight[:, 0] * self._values[first] + (1.0 - weight[:, 0]) * self._values[second]
        size = rays.max(axis=1, initial=0.0)
        kept = slack >= -noise
        self._tight = np.vstack(
            [
                np.column_stack([self._tight[kept], (np.abs(slack) <= noise)[kept]]),
                np.column_stack([shared, np.ones(len(shared), dtype=bool)]),
            ]
        )
        self._rays = np.vstack([self._rays[kept], rays / size[:, None]])
        self._values = np.append(self._values[kept], values / size)
        fresh = np.arange(len(rays)) + self._keys.max() + 1
        self._keys = np.append(self._keys[kept], fresh)

    def _edges(self, above: IntArray, below: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
        """Return the pairs of rays, one from each side, that an edge joins, and the tight constraints of the edge."""
        tight = self._tight.astype(np.float32)
        common = tight[above] @ tight[below].T
        row, column = np.nonzero(common >= self._rays.shape[1] - 1)
        first, second = above[row], below[column]
        shared = self._tight[first] & self._tight[second]
        # Only the two ends of an edge meet all of its constraints with equality.
        lacking = shared.astype(np.float32) @ (1.0 - tight).T
        joined = np.sum(lacking == 0, axis=1) == 2  # noqa: PLR2004 - an edge has two ends
        return first[joined], second[joined], shared[joined]

    def _reduced(self, function: FloatArray) -> FloatArray:
        """Join all fixed prices, which are 1, into one coordinate."""
        if not self._fixed.any():
            return function
        return np.append(function[~self._fixed], function[self._fixed].sum())

    def _reduced_low(self, low: FloatArray) -> FloatArray:
        return np.append(low[~self._fixed], 1.0) if self._fixed.any() else low


def _extreme_rays(low: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return the extreme rays of the cone over the box {low <= x <= 1}, and the tight facets of each ray.

    The facets are low[j] * x[i] <= x[j] for each ordered pair of prices. Extreme rays are corners of the box,
    but some corners lie inside the cone or one of its faces, for example the highest corner if no price is fixed.
    """
    size = len(low)
    pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
    normals = np.array([np.eye(size)[j] - low[j] * np.eye(size)[i] for i, j in pairs]).reshape(-1, size)
    corners = [c for c in product(*(sorted({float(end), 1.0}) for end in low)) if max(c) == 1.0]
    tight = [[low[j] * c[i] == c[j] for i, j in pairs] for c in corners]
    extreme = [size == 1 or np.linalg.matrix_rank(normals[on]) == size - 1 for on in tight]
    rays = np.array(corners)[extreme]
    return rays, np.array(tight, dtype=bool)[extreme].reshape(len(rays), len(pairs))
