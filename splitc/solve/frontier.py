"""Find exactly all cuts that are optimal somewhere in the box.

The method is an outer approximation (Benson 1998): keep the lower envelope of the cuts found so far, ask the
oracle for the best cut at each vertex of the envelope, and add that cut if it is better. The latency of the
best cut is concave in the prices, so once every vertex is confirmed, the envelope is correct everywhere.

The round trip is the same for all cuts that offload, so it only decides between these cuts and all-head. The
cuts that offload are therefore enumerated at the shortest round trip, where most of them are faster than
all-head, and all-head is compared with them once more at the longest round trip.
"""

import numpy as np

from splitc.solve.cuts import Cut
from splitc.solve.envelope import Envelope
from splitc.solve.space import FloatArray, Oracle, Space

TOLERANCE = 1e-9  # a cut that is better by less than this share of the latency is ignored
# Two cuts closer than this are equal; it is far below TOLERANCE, otherwise a dropped cut would be found again.
_TIE = 1e-11


def frontier(space: Space, oracle: Oracle, all_head: Cut | None) -> tuple[Cut, ...]:
    """Find the fewest cuts that contain a best possible cut for every point of the box.

    All-head comes first, then the others by increasing cloud time. *all_head* is None if it is not feasible.
    Of cuts with the same costs only one is returned: a device-first one, if there is any.
    """
    fixed = _all_head_functions(space, all_head)
    cuts = [] if len(fixed) else [oracle(space.oracle_prices(np.ones(len(space.low) - 1)))]
    confirmed = np.empty((0, len(space.low) - 1))
    while True:
        found, envelope, confirmed = _explore(space, oracle, fixed, cuts, confirmed)
        news = len(found) > len(cuts)
        cuts = _needed(space, envelope, fixed, found)
        if not news:
            break
        # Repeat with the needed cuts in order: an independent check that calls the oracle only a few more times.
    if all_head is not None and _wins_somewhere(space, all_head, cuts):
        return (all_head, *cuts)
    return tuple(cuts)


def _all_head_functions(space: Space, all_head: Cut | None) -> FloatArray:
    """Return all-head as functions comparable with cuts without round trip: latency minus shortest round trip.

    Only the proportions of the prices matter, and relative to them the round trip is shortest if the largest
    scaled price is 1: all-head is then head - r * max(x), which is the lower envelope of head - r * x[i].
    """
    if all_head is None:
        return np.empty((0, len(space.low) - 1))
    amounts = space.scaled_amounts([all_head])[0, :-1]
    functions: FloatArray = amounts - space.low[-1] * np.eye(len(amounts))
    return functions


def _explore(
    space: Space, oracle: Oracle, fixed: FloatArray, cuts: list[Cut], confirmed: FloatArray
) -> tuple[list[Cut], Envelope, FloatArray]:
    """Call the oracle at each vertex until no vertex is new.

    Return *cuts* with the new cuts, their envelope, and the confirmed vertices.
    """
    functions = np.vstack([fixed, space.scaled_amounts(cuts)[:, :-1]])
    envelope = Envelope(space.scaled_low()[:-1], functions[0])
    for function in functions[1:]:
        envelope.add(function)
    cuts = list(cuts)
    done = {
        key for key, point in zip(envelope.keys, envelope.points, strict=True) if _is_among(point, confirmed)
    }
    while (at := next((at for at, key in enumerate(envelope.keys) if key not in done), None)) is not None:
        point, value = envelope.points[at], envelope.values[at]
        cut = oracle(space.oracle_prices(point))
        function = space.scaled_amounts([cut])[0, :-1]
        done.add(envelope.keys[at])
        confirmed = np.vstack([confirmed, point])
        if cut.offloads and function @ point < value - TOLERANCE * (value + space.low[-1]):
            cuts.append(cut)
            envelope.add(function)
    return cuts, envelope, confirmed


def _is_among(point: FloatArray, points: FloatArray) -> bool:
    return bool(np.any(np.all(np.abs(points - point) <= TOLERANCE * point, axis=1)))


def _needed(space: Space, envelope: Envelope, fixed: FloatArray, cuts: list[Cut]) -> list[Cut]:
    """Drop each of *cuts* that is best only where another cut is as good; sort by increasing cloud time."""
    order = sorted(cuts, key=lambda cut: (cut.cloud_s, preference(cut), sorted(cut.device)))
    functions = np.vstack([fixed, space.scaled_amounts(order)[:, :-1]])
    values = envelope.values
    best = functions @ envelope.points.T <= values + _TIE * (values + space.low[-1])
    kept = np.ones(len(functions), dtype=bool)
    doubtful = sorted(range(len(order)), key=lambda at: preference(order[at]), reverse=True)
    for row in (at + len(fixed) for at in doubtful):
        kept[row] = False
        kept[row] = not np.any(np.all(best[kept] >= best[row], axis=1))
    return [cut for cut, keep in zip(order, kept[len(fixed) :], strict=True) if keep]


def preference(cut: Cut) -> tuple[int, bool, int]:
    """Return the sort key that decides between equally good cuts: the lowest one is kept."""
    return cut.uplink_bytes, cut.direction == "cloud-first", len(cut.device)


def _wins_somewhere(space: Space, all_head: Cut, others: list[Cut]) -> bool:
    """Return whether all-head is the best cut for the fastest device with everything else at its slowest."""
    prices = np.append(space.scaled_low()[0], np.ones(len(space.low) - 1))
    latency_s = space.scaled_amounts([all_head, *others]) @ prices
    return bool(np.all(latency_s[0] < latency_s[1:] * (1.0 - TOLERANCE)))
