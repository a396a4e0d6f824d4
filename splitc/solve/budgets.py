"""The best cut under hard limits on weights, memory, payload and energy.

Most cases need no integer program: if the minimum cut without budgets meets the budgets, it is optimal.
"""

from dataclasses import replace

import numpy as np

from splitc.common.errors import NoFeasibleCut
from splitc.common.kinds import Direction
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, energy_j, meets_budgets, place
from splitc.solve.milp import best_cut, make_program
from splitc.solve.mincut import better_of, ends, latency_s, min_cut_oracle
from splitc.solve.pins import Pins, make_pins
from splitc.solve.space import FloatArray, Oracle

_FLAGS = {
    "max_device_weight_bytes": ("--max-device-weights", "weights on the device"),
    "max_device_peak_bytes": ("--max-device-memory", "memory on the device"),
    "max_payload_bytes": ("--max-payload", "the payload"),
    "max_energy_j": ("--max-energy", "the device's energy"),
}


def has_budgets(limits: Limits) -> bool:
    """Return whether *limits* contain a budget, that is, a limit that pins cannot express."""
    return bool(_budgets(limits))


def budget_oracle(costs: Costs, limits: Limits, direction: Direction = "device-first") -> Oracle:
    """Build the integer program for *costs* and *limits* once, and return an oracle that uses it.

    Raises:
        NoFeasibleCut: the pins contradict each other, or no cut meets the pins and the budgets.
    """
    pins = make_pins(costs.graph, limits, direction)
    relaxed = min_cut_oracle(costs, limits, direction)
    program = make_program(costs, limits, pins, direction)
    feasible = [cut for cut in ends(costs, pins, direction) if meets_budgets(costs, cut, limits)]
    if not feasible:
        found = best_cut(program, np.zeros(4))
        if found is None:
            raise _no_feasible_cut(costs, limits, pins, direction)
        feasible.append(found)

    def oracle(prices: FloatArray) -> Cut:
        cut = relaxed(prices)
        if meets_budgets(costs, cut, limits):
            return cut
        fixed_s = prices[0] * costs.device_fixed_s + prices[1] * costs.cloud_fixed_s
        best = best_cut(program, prices, at_least_s=max(latency_s(cut, prices) - fixed_s, 0.0))
        return better_of(best or feasible[0], feasible, prices)

    return oracle


def _budgets(limits: Limits) -> dict[str, float]:
    named = {name: getattr(limits, name) for name in _FLAGS}
    return {name: limit for name, limit in named.items() if limit is not None}


def _no_feasible_cut(costs: Costs, limits: Limits, pins: Pins, direction: Direction) -> NoFeasibleCut:
    """Name a budget that no cut can meet, or all budgets if each one can be met but not all together."""
    pinned = bool(pins.device or pins.cloud)
    with_pins = " with these pins" if pinned else ""
    for name, limit in _budgets(limits).items():
        least = _least(costs, limits, pins, direction, name)
        if least > limit:
            flag, what = _FLAGS[name]
            return NoFeasibleCut(
                f"no cut keeps {what} under {_amount(name, limit)}: the least possible{with_pins} "
                f"is {_amount(name, least)}; raise {flag}{' or drop a pin' if pinned else ''}"
            )
    flags = " and ".join(
        f"{_FLAGS[name][0]} {_amount(name, limit)}" for name, limit in _budgets(limits).items()
    )
    return NoFeasibleCut(f"no cut meets {flags} together{with_pins}, though each alone can be met; raise one")


def _least(costs: Costs, limits: Limits, pins: Pins, direction: Direction, name: str) -> float:
    """Return the smallest amount of one budget that any cut needs, ignoring the other budgets."""
    if name == "max_device_weight_bytes":
        return place(costs, pins.device, direction).device_weight_bytes
    if name == "max_device_peak_bytes":
        return _least_peak_bytes(costs, limits, pins, direction)
    cheapest = min_cut_oracle(costs, limits, direction)
    if name == "max_payload_bytes":
        return cheapest(np.array([0.0, 0.0, 1.0, 0.0])).uplink_bytes
    assert costs.energy is not None  # meets_budgets has already checked this
    prices = [costs.energy.active_w, 0.0, costs.energy.uplink_j_per_byte, costs.energy.downlink_j_per_byte]
    return energy_j(costs, cheapest(np.array(prices)))


def _least_peak_bytes(costs: Costs, limits: Limits, pins: Pins, direction: Direction) -> int:
    """Find the least peak memory by bisection, because no row of the program contains the peak itself."""
    free = replace(limits, max_device_weight_bytes=None, max_payload_bytes=None, max_energy_j=None)
    low, high = -1, place(costs, pins.device, direction).device_peak_bytes
    while high - low > 1:
        middle = (low + high) // 2
        program = make_program(costs, replace(free, max_device_peak_bytes=middle), pins, direction)
        cut = best_cut(program, np.zeros(4))
        low, high = (middle, high) if cut is None else (low, cut.device_peak_bytes)
    return high


def _amount(name: str, amount: float) -> str:
    if name == "max_energy_j":
        return f"{amount:.4g} J"
    scale, unit = next(
        ((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if amount >= s), (1.0, "bytes")
    )
    return f"{amount / scale:.4g} {unit}"
