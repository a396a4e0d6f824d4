"""Recorded links: read from files in the mahimahi format, or synthesised from percentiles.

A file has one line, a time in milliseconds, for each packet of 1,500 bytes that the link could deliver.
"""

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from splitc.common.errors import TestBedError
from splitc.testbed.spec import MTU_BYTES, LinkTrace, Rate

_STEP_S = 0.1
_MEMORY_S = 4.0  # how long good and bad periods last
_DIGITS = 12
_FADE = 20.0  # the factor by which the worst moment is below the low percentile


def read_trace(path: Path) -> LinkTrace:
    """Read the trace at *path*.

    Raises:
        TestBedError: it cannot be read, or a line is not a time in order.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise TestBedError(f"{path}: the trace cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TestBedError(
            f"{path}: not a trace, it is not text; one has a millisecond on each line"
        ) from error
    times_ms: list[int] = []
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word.isdecimal() or len(word) > _DIGITS:
            raise TestBedError(
                f"{path}: line {number} is {word[:40]!r}, but must be a whole number of milliseconds"
            )
        times_ms.append(int(word))
        if len(times_ms) > 1 and times_ms[-2] > times_ms[-1]:
            raise TestBedError(
                f"{path}: line {number} is {word}, before the {times_ms[-2]} above it; a trace must be in order"
            )
    try:
        return LinkTrace(tuple(times_ms))
    except TestBedError as error:
        raise TestBedError(f"{path}: {error}") from error


def synthetic_trace(
    low_bps: float, typical_bps: float, high_bps: float, seconds: float, seed: int
) -> LinkTrace:
    """Synthesise a trace; equal arguments give equal traces.

    Its rate varies as a mobile link's does, over seconds, with short fades far below the low rate.

    Args:
        low_bps, typical_bps, high_bps: a tenth, half and nine tenths of the time the link is slower than these,
            in bits per second of TCP payload.

    Raises:
        TestBedError: the rates are not in order, or the time is too short.
    """
    if not (0 < low_bps <= typical_bps <= high_bps < math.inf and _STEP_S <= seconds < math.inf):
        raise TestBedError(
            f"a trace needs rates above zero and in order, and {_STEP_S:g} s at least, "
            f"not {low_bps:g}, {typical_bps:g} and {high_bps:g} bit/s over {seconds:g} s"
        )
    moods = _moods(round(seconds / _STEP_S), seed)
    rates_bps = [_quantile(mood, low_bps, typical_bps, high_bps) for mood in moods]
    end_ms = round(1000 * _STEP_S * len(moods))
    return LinkTrace((*(time_ms for time_ms in _opportunities_ms(rates_bps) if time_ms < end_ms), end_ms))


def _moods(count: int, seed: int) -> list[float]:
    """A random walk whose values are uniformly distributed over 0 to 1.

    Ranks make the percentiles exact for every walk.
    """
    source = random.Random(seed)  # noqa: S311 - nothing secret
    keep = math.exp(-_STEP_S / _MEMORY_S)
    values = [0.0]
    while len(values) < count:
        # Sums, not logarithms and sines: these give equal results on every machine.
        noise = sum(source.random() for _ in range(12)) - 6
        values.append(keep * values[-1] + math.sqrt(1 - keep * keep) * noise)
    ranks = sorted(range(count), key=values.__getitem__)
    moods = [0.0] * count
    for rank, position in enumerate(ranks):
        moods[position] = (rank + 0.5) / count
    return moods


def _quantile(mood: float, low_bps: float, typical_bps: float, high_bps: float) -> float:
    """The rate that the link stays below for the share *mood* of the time; linear on a logarithmic scale."""
    ceiling_bps = high_bps * math.sqrt(high_bps / typical_bps)
    points = ((0.0, low_bps / _FADE), (0.1, low_bps), (0.5, typical_bps), (0.9, high_bps), (1.0, ceiling_bps))
    (start, below), (end, above) = next(pair for pair in pairwise(points) if mood <= pair[1][0])
    return below * math.pow(above / below, (mood - start) / (end - start))


def _opportunities_ms(rates_bps: Sequence[float]) -> tuple[int, ...]:
    times_ms: list[int] = []
    begun = 0.0  # part of the next packet
    for step, rate_bps in enumerate(rates_bps):
        per_s = Rate(rate_bps).line_bps / 8 / MTU_BYTES
        whole = math.floor(begun + per_s * _STEP_S)
        times_ms += [
            math.ceil(1000 * (step * _STEP_S + (packet - begun) / per_s)) for packet in range(1, whole + 1)
        ]
        begun += per_s * _STEP_S - whole
    return tuple(times_ms)
