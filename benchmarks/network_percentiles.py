"""Compute the percentiles in `targets/networks/*.toml` from recorded cellular links.

    python benchmarks/network_percentiles.py TRACES_FOLDER

TRACES_FOLDER contains traces in the mahimahi format: each line is a time in milliseconds since the start at which
one packet of 1,500 bytes can be delivered. They are part of mahimahi (github.com/ravinet/mahimahi, traces/) under
the GPL, and not part of this project. Needs the standard library only.
"""

import argparse
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

WINDOW_MS = 5000
PACKET_BITS = 1500 * 8
PERCENTILES = (5, 50, 95)
RULE = (
    "consecutive windows of 5 s from the start, without an incomplete last one; percentiles between two windows "
    "are interpolated"
)


def rates_bps(moments_ms: Sequence[int]) -> list[float]:
    """Return the deliverable rate in each complete window, in bits per second."""
    count = (moments_ms[-1] + 1) // WINDOW_MS
    edges = [bisect_left(moments_ms, index * WINDOW_MS) for index in range(count + 1)]
    packets = [after - before for before, after in pairwise(edges)]
    return [number * PACKET_BITS * 1000 / WINDOW_MS for number in packets]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile *percent* of *values*, interpolated between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("traces", type=Path, help="folder with NAME.up and NAME.down")
    folder = parser.parse_args().traces
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".up", ".down"})
    if not paths:
        parser.error(f"{folder}: contains no *.up or *.down files")
    print(RULE)
    print(f"{'trace':28} {'windows':>7} " + " ".join(f"{f'p{p} bit/s':>12}" for p in PERCENTILES))
    for path in paths:
        rates = rates_bps([int(line) for line in path.read_text(encoding="ascii").split()])
        shown = " ".join(f"{percentile(rates, p):12.4g}" for p in PERCENTILES)
        print(f"{path.name:28} {len(rates):7d} {shown}")


if __name__ == "__main__":
    main()
