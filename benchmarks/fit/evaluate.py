"""How far off predictions are on devices held out of the fit: errors, intervals, calibrations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks.fit.model import HeldOut, Spread, calibrated, minus_log_density, spread
from benchmarks.fit.tables import Array, Mask

FOLDS = 8  # of devices, to check intervals on others than they were made of
_SETS = 30  # of three models, drawn for each table


@dataclass(frozen=True, slots=True)
class Interval:
    """The 5th and 95th percentile of held-out errors, in standard deviations."""

    low: float
    high: float

    def covers(self, off: Array, deviation: Array) -> Mask:
        """Whether each error lies within."""
        scaled = off / deviation
        return np.asarray((scaled >= -self.low) & (scaled <= self.high))


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one kind of prediction; devices count alike, however many runs they have.

    Attributes:
        error: mean of |predicted / measured - 1|, each device's mean counting once.
        run_error: the same, each run counting once.
        covered: share of runs whose measured time lies in the stated interval.
    """

    devices: int
    runs: int
    error: float
    run_error: float
    covered: float


def interval(found: HeldOut, spreads: Spread, rows: Mask) -> Interval:
    """Return the percentiles of the errors of *rows*.

    The runs of a table are off together, so what counts is tables. A next one is one more of them: 5 of
    100 among n + 1 are a little further out than among the n that were seen (as in conformal prediction).
    """
    scaled = found.log_ratio[rows] / deviations(found, spreads)[rows]
    tables = len(set(found.runs.column("table")[rows]))
    tail = max(0.05 - 0.95 / tables, 0.0) * 100
    low, high = np.percentile(scaled, [tail, 100 - tail])
    return Interval(float(-low), float(high))


def deviations(found: HeldOut, spreads: Spread) -> Array:
    """Return the stated standard deviation of every run."""
    whole = np.where(found.known, spreads.known, spreads.unknown)
    return np.asarray(np.sqrt(whole**2 + (found.shares**2) @ spreads.terms**2 + spreads.model**2))


@dataclass(frozen=True, slots=True)
class Fold:
    """Runs of some devices, with the spreads and percentiles that the other devices give."""

    rows: Mask
    spreads: Spread
    plain: Interval
    calibrated: Interval


def calibrated_interval(found: HeldOut, spreads: Spread, rows: Mask) -> Interval:
    """Return the percentiles of the errors of *rows* after one other run on the same device."""
    scaled = np.concatenate([off / deviation for off, deviation, _ in _after(found, spreads, rows, 1)])
    low, high = np.percentile(scaled, [5, 95])
    return Interval(float(-low), float(high))


def folds(found: HeldOut) -> Iterator[Fold]:
    """Divide the devices; each is judged by what the others give."""
    devices = found.runs.column("device")
    names = sorted(set(devices))
    for fold in range(FOLDS):
        rows = np.isin(devices, names[fold::FOLDS])
        spreads = spread(found, ~rows)
        plain, after = interval(found, spreads, ~rows), calibrated_interval(found, spreads, ~rows)
        yield Fold(rows, spreads, plain, after)


def score(off: Array, devices: Sequence[str], covered: Mask) -> Score:
    """Sum up errors, given log(measured / predicted)."""
    errors, names = np.abs(np.exp(-off) - 1), np.array(devices)
    each = [errors[names == name].mean() for name in sorted(set(devices))]
    return Score(len(each), len(errors), float(np.mean(each)), float(errors.mean()), float(covered.mean()))


def uncalibrated(found: HeldOut, threads: int, by_fold: Sequence[Fold]) -> Score:
    """Score predictions from the descriptor alone."""
    chosen = found.runs.column("threads") == str(threads)
    covered = np.zeros(len(chosen), bool)
    for fold in by_fold:
        covered |= fold.rows & fold.plain.covers(found.log_ratio, deviations(found, fold.spreads))
    return score(found.log_ratio[chosen], list(found.runs.column("device")[chosen]), covered[chosen])


def after_runs(found: HeldOut, threads: int, count: int, by_fold: Sequence[Fold]) -> Score:
    """Score predictions of all other models after *count* whole runs on the device, over choices of them."""
    chosen = found.runs.column("threads") == str(threads)
    offs, names, covered = [], [], []
    for fold in by_fold:
        for off, deviation, device in _after(found, fold.spreads, fold.rows & chosen, count):
            offs.append(off)
            covered.append(fold.calibrated.covers(off, deviation))
            names += [device] * len(off)
    return score(np.concatenate(offs), names, np.concatenate(covered))


def _after(found: HeldOut, spreads: Spread, chosen: Mask, count: int) -> Iterator[tuple[Array, Array, str]]:
    """Yield (errors, stated deviations, device) of the other runs of a table once *count* are known."""
    tables, devices = found.runs.column("table"), found.runs.column("device")
    random = np.random.default_rng(0)
    for table in sorted(set(tables[chosen])):
        rows = np.flatnonzero(tables == table)
        off, known = found.log_ratio[rows], bool(found.known[rows[0]])
        covariance = spreads.covariance(found.shares[rows], known=known)
        for used in _choices(len(rows), count, random):
            correction, deviation = calibrated(off, covariance, spreads.model, used)
            rest = np.setdiff1d(np.arange(len(rows)), used)
            yield off[rest] - correction[rest], deviation[rest], str(devices[rows[0]])


def _choices(runs: int, count: int, random: np.random.Generator) -> list[list[int]]:
    if count == 1:
        return [[index] for index in range(runs)]
    return [sorted(random.choice(runs, min(count, runs - 1), replace=False).tolist()) for _ in range(_SETS)]


def whole_spread(found: HeldOut, base: Spread) -> float:
    """Return the most likely spread of machines in *found*, all else being as in *base*."""
    tables = found.runs.column("table")
    groups = [
        (found.log_ratio[rows], found.shares[rows])
        for rows in (tables == name for name in sorted(set(tables)))
    ]

    def unlikely(log_whole: float) -> float:
        whole = float(np.exp(log_whole))
        guess = Spread(whole, whole, base.terms, base.model)
        return sum(
            minus_log_density(off, guess.covariance(shares, known=True), base.model) for off, shares in groups
        )

    return float(np.exp(minimize_scalar(unlikely, bounds=(np.log(0.05), np.log(2.0)), method="bounded").x))
