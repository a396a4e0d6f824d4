"""The fit: every cost is a product, so its logarithm is a sum, and the sums are fitted.

    seconds = sum over terms of  ideal x exp(base + family + core + older - threads x log(gain) + device)

A family of cores has an offset for all terms and further ones for memory and for starting units, a
core one for all terms. Each offset is drawn towards zero by the spread that it has a priori, so that
a core of which little is known stays near its family (partial pooling). A device has an error of its
own, Student-distributed, because some tables are off by a factor of two: no single board then bends
what its sister boards say. It is zero in a prediction. Found by Gauss-Newton steps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.fit.tables import CLOCK, MEMORY, PER, Array, Mask, Runs
from splitc.profile.targets.coefficients import TERMS

RESIDUAL = 0.15  # of a run, beyond its device's error
RUNS_PER_TABLE = 10  # what a table weighs, however many models it has: errors of its models are alike
DEVICE, DEVICE_THREADS, FREEDOM = 0.2, 0.15, 1.5
_PRIOR = {
    # name: (base, how far from it; exponent of the gain, how far from it)
    "depthwise": (5.0, 2.0, 0.9, 0.3), "pointwise": (2.0, 2.0, 0.9, 0.3), "dense3x3": (1.0, 2.0, 0.9, 0.3),
    "conv": (2.0, 2.0, 0.9, 0.3), "grouped": (2.0, 2.0, 0.9, 0.3), "matmul": (3.0, 2.0, 0.9, 0.3), "transcendental": (10.0, 2.0, 0.9, 0.3),
    "dense_traffic": (1.0, 2.0, 0.0, 0.3), "traffic": (1.0, 2.0, 0.0, 0.3), "moved": (1.0, 2.0, 0.0, 0.3),
    "weights": (1.0, 2.0, 0.0, 0.3), "other": (1.0, 2.0, 0.0, 0.3), "unit": (5e3, 2.0, -0.3, 0.3),
}  # fmt: skip
_FAMILY, _CORE, _OLDER = 0.3, 0.15, 0.3
_STEPS = 40

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prior:
    """What is expected of one parameter, and how far it may be off."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Design:
    """Parameters by name, and what each adds to the logarithm of each term of each run."""

    keys: tuple[Key, ...]
    means: Array
    deviations: Array
    effects: Array  # runs x terms x parameters


def design(runs: Runs, priors: dict[str, tuple[float, float, float, float]] | None = None) -> Design:
    """Return the parameters that *runs* call for."""
    priors = priors or _PRIOR
    everywhere, everything = np.ones(len(runs.rows), bool), np.ones(len(TERMS), bool)
    slower = -np.log(runs.gain)
    parts: list[tuple[Key, Prior, Array]] = []

    def add(key: Key, prior: Prior, rows: Mask, terms: Mask, by: Array | float = 1.0) -> None:
        parts.append((key, prior, np.outer(rows * by, terms)))

    kinds = np.array([PER[name] for name in TERMS])
    for index, name in enumerate(TERMS):
        base, off, threads, threads_off = priors[name]
        add(("base", name), Prior(float(np.log(base)), off), everywhere, np.arange(len(TERMS)) == index)
        add(
            ("threads", name), Prior(threads, threads_off), everywhere, np.arange(len(TERMS)) == index, slower
        )
    families, cores, devices = (runs.column(name) for name in ("family", "core", "device"))
    older = np.array([row.older for row in runs.rows])
    for family in sorted(set(families)):
        its = families == family
        add(("family", family, "whole"), Prior(0, _FAMILY), its, everything)
        add(("family", family, "memory"), Prior(0, _FAMILY), its, kinds == MEMORY)
        add(("family", family, "unit"), Prior(0, _FAMILY), its, kinds == CLOCK)
        add(("older", family), Prior(0, _OLDER), its & older, everything)
    for core in sorted(set(cores)):
        add(("core", core), Prior(0, _CORE), cores == core, everything)
    for device in sorted(set(devices)):
        add(("device", device), Prior(0, DEVICE), devices == device, everything)
        add(("device", device, "threads"), Prior(0, DEVICE_THREADS), devices == device, everything, slower)
    keys, found, effects = zip(*parts, strict=True)
    return Design(
        keys, np.array([prior.mean for prior in found]), np.array([prior.deviation for prior in found]),
        np.stack(effects, axis=-1),
    )  # fmt: skip


def fit(
    runs: Runs, of: Design, rows: Mask, start: Array | None = None, weights: Array | None = None
) -> Array:
    """Return the most probable parameters given the runs in *rows*; all tables weigh alike, unless told."""
    ideal, effects, wanted = runs.ideal[rows], of.effects[rows], runs.log_seconds[rows]
    weights = (_alike(runs.column("table")) if weights is None else weights)[rows]
    heavy = np.array([key[0] == "device" for key in of.keys])
    x = of.means.copy() if start is None else start.copy()
    for _ in range(_STEPS):
        spent = ideal * np.exp(effects @ x)
        total = spent.sum(axis=1)
        slopes = ((spent / total[:, None])[:, None, :] @ effects)[:, 0, :]
        off = wanted - np.log(total)
        robust = weights / (1 + (off / (2 * RESIDUAL)) ** 2)
        hold = 1 / of.deviations**2
        tail = (FREEDOM + 1) / (FREEDOM + (x / of.deviations) ** 2)
        hold = np.where(heavy, hold * tail, hold)
        curvature = (slopes.T * robust) @ slopes / RESIDUAL**2 + np.diag(hold)
        step = np.linalg.solve(curvature, slopes.T @ (robust * off) / RESIDUAL**2 - hold * (x - of.means))
        longest = float(np.abs(step).max())
        x = x + step * min(1.0, 0.7 / longest)
        if longest < 1e-3:
            break
    return x


def _alike(tables: NDArray[np.str_]) -> Array:
    sizes = Counter(tables)
    return np.array([RUNS_PER_TABLE / sizes[table] for table in tables])


def predicted(runs: Runs, of: Design, x: Array, rows: Mask) -> Array:
    """Return the seconds of each term of the runs in *rows*, on devices with no error of their own."""
    typical = np.where([key[0] == "device" for key in of.keys], 0.0, x)
    return np.asarray(runs.ideal[rows] * np.exp(of.effects[rows] @ typical))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Runs predicted from a fit without their group.

    Attributes:
        log_ratio: log(measured / predicted).
        shares: of the terms, in the predicted time (runs x terms).
        known: whether other machines with the same core were in the fit.
    """

    runs: Runs
    log_ratio: Array
    shares: Array
    known: Mask

    def error(self) -> Array:
        """Predicted over measured, less one, without its sign."""
        return np.asarray(np.abs(np.exp(-self.log_ratio) - 1))


def held_out(runs: Runs, of: Design, full: Array, by: str = "device") -> HeldOut:
    """Predict each device (or all devices with the same "core", or "family") from a fit without it."""
    groups, devices, cores = runs.column(by), runs.column("device"), runs.column("core")
    spent = np.zeros(runs.ideal.shape)
    known = np.zeros(len(groups), bool)
    for group in sorted(set(groups)):
        rows = groups == group
        without = ~np.isin(devices, devices[rows])
        spent[rows] = predicted(runs, of, fit(runs, of, without, full), rows)
        known[rows] = np.isin(cores[rows], cores[without])
    total = spent.sum(axis=1)
    return HeldOut(runs, runs.log_seconds - np.log(total), spent / total[:, None], known)


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of log(measured / predicted): of the machine, of each term, of a model."""

    known: float
    unknown: float
    terms: Array
    model: float

    def covariance(self, shares: Array, *, known: bool) -> Array:
        """Return the covariance of runs on one machine, without the models' own errors."""
        whole = self.known if known else self.unknown
        return np.asarray(whole**2 + (shares * self.terms**2) @ shares.T)


_LEAST, _MOST = np.log(0.02), np.log(0.75)


def spread(found: HeldOut, devices: Mask | None = None) -> Spread:
    """Return the most likely spreads of held-out errors; *devices* chooses the runs to look at."""
    chosen = np.ones(len(found.log_ratio), bool) if devices is None else devices
    tables = found.runs.column("table")
    groups = [
        (found.log_ratio[rows], found.shares[rows], bool(found.known[rows].any()))
        for rows in (chosen & (tables == table) for table in sorted(set(tables[chosen])))
    ]

    def unlikely(x: Array) -> tuple[float, Array]:
        guess, value, slope = _unpack(x), 0.0, np.zeros(len(x))
        for off, shares, known in groups:
            covariance = guess.covariance(shares, known=known)
            value += minus_log_density(off, covariance, guess.model)
            inverse = np.linalg.inv(covariance + guess.model**2 * np.eye(len(off)))
            explained = inverse @ off
            rest = inverse - np.outer(explained, explained)
            slope[0 if known else 1] += rest.sum()
            slope[2:-1] += np.einsum("ik,ij,jk->k", shares, rest, shares)
            slope[-1] += np.trace(rest)
        return value, slope * np.exp(2 * x)

    start = np.log(np.array([0.25, 0.3, *[0.2] * len(TERMS), 0.13]))
    # Followed to the end: short of it, the last digits of linear algebra would decide where it stops.
    found_x = minimize(
        unlikely,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST, _MOST)] * len(start),
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8},
    ).x
    return _unpack(found_x)


def _unpack(x: Array) -> Spread:
    values = np.exp(x)
    return Spread(float(values[0]), float(values[1]), values[2:-1], float(values[-1]))


def minus_log_density(off: Array, covariance: Array, model: float) -> float:
    """Return how unlikely these errors of one table are."""
    covariance = covariance + model**2 * np.eye(len(off))
    factor = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(factor, off)
    return float(np.log(np.diag(factor)).sum() + scaled @ scaled / 2)


def calibrated(off: Array, covariance: Array, model: float, used: Sequence[int]) -> tuple[Array, Array]:
    """Return (correction, deviation) of every run of a machine once the runs *used* are known."""
    noise = model**2 * np.eye(len(used))
    weights = np.linalg.solve(covariance[np.ix_(used, used)] + noise, covariance[used])
    left = np.diag(covariance) - np.einsum("ij,ij->j", covariance[used], weights)
    return weights.T @ off[used], np.sqrt(left + model**2)
