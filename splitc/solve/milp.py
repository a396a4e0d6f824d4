"""Find the best cut under hard limits with a mixed-integer program.

Variables: x[unit], 1 on the device; y[tensor], 1 if it crosses; z[weight], 1 if the device holds it.
Rows read `matrix @ variables <= limit`. Peak memory takes at least one row per unit, each as long as the
model, so these rows are added only when a solution breaks them.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from splitc.common.kinds import Direction
from splitc.model.graph import Graph
from splitc.solve.costs import Costs, Limits
from splitc.solve.cuts import Cut, alive_bytes, meets_budgets, place
from splitc.solve.peak_memory import alive_while
from splitc.solve.pins import Pins
from splitc.solve.space import FloatArray

_INFEASIBLE = 2  # a status of scipy.optimize.milp


@dataclass(slots=True, eq=False)
class MixedIntegerProgram:
    """A program that grows: `best_cut` appends the rows that it needs; they are valid at any prices.

    Attributes:
        sent_bytes, received_bytes: (tensors,) what the device sends and receives when a tensor crosses; a
            model output that crosses has been returned, and costs nothing more.
        returned_bytes: (units,) model outputs that the device receives of each unit in the cloud.
        weight_bytes: (weights,).
        peak_rows: the unit and coefficients of each row on peak memory.
    """

    costs: Costs
    limits: Limits
    pins: Pins
    direction: Direction
    sent_bytes: FloatArray
    received_bytes: FloatArray
    returned_bytes: FloatArray
    weight_bytes: FloatArray
    matrix: csr_array
    limit: FloatArray
    peak_rows: set[tuple[int, bytes]] = field(default_factory=set)


def make_program(
    costs: Costs, limits: Limits, pins: Pins, direction: Direction = "device-first"
) -> MixedIntegerProgram:
    """Build the rows for closure, crossing, shared weights, and all budgets except peak memory."""
    graph = costs.graph
    tensors = graph.tensors
    nbytes = np.array([tensor.nbytes or 0 for tensor in tensors], dtype=np.float64)
    goes_up = np.array([direction == "device-first" or tensor.producer is None for tensor in tensors])
    returned = np.zeros(len(graph.units))
    for tensor in tensors:
        if tensor.is_output and tensor.producer is not None:
            returned[tensor.producer] += tensor.nbytes or 0
    matrix, limit = _structure(graph, direction)
    program = MixedIntegerProgram(
        costs=costs,
        limits=limits,
        pins=pins,
        direction=direction,
        sent_bytes=np.where(goes_up, nbytes, 0.0),
        received_bytes=np.where(goes_up | np.array([t.is_output for t in tensors]), 0.0, nbytes),
        returned_bytes=returned,
        weight_bytes=np.array([weight.nbytes for weight in graph.weights], dtype=np.float64),
        matrix=matrix,
        limit=limit,
    )
    for row, constant, most in _budget_rows(program):
        _append(program, row, most - constant)
    return program


def best_cut(program: MixedIntegerProgram, prices: FloatArray, at_least_s: float = 0.0) -> Cut | None:
    """The best cut within all limits, or None, by unit times and bytes alone.

    *at_least_s* bounds these from below.
    """
    objective = _row(
        program,
        x=prices[0] * np.array(program.costs.device_s)
        - prices[1] * np.array(program.costs.cloud_s)
        - prices[3] * program.returned_bytes,
        y=prices[2] * program.sent_bytes + prices[3] * program.received_bytes,
    )
    # HiGHS stops at an absolute gap of 1e-6; scaling the latency to about 1000 makes that 1e-9 of the latency.
    objective *= 1e3 / at_least_s if at_least_s > 0 else 1.0
    while (device := _solve(program, objective)) is not None:
        cut = place(program.costs, device, program.direction)
        if meets_budgets(program.costs, cut, program.limits):
            return cut
        _exclude(program, cut)
    return None


def _solve(program: MixedIntegerProgram, objective: FloatArray) -> frozenset[int] | None:
    lower, upper = np.zeros(len(objective)), np.ones(len(objective))
    lower[sorted(program.pins.device)] = 1.0
    upper[sorted(program.pins.cloud)] = 0.0
    units = len(program.returned_bytes)
    result = milp(
        objective,
        constraints=LinearConstraint(program.matrix, ub=program.limit),
        bounds=Bounds(lower, upper),
        integrality=np.arange(len(objective)) < units,
        options={"mip_rel_gap": 1e-10},
    )
    if result.status == _INFEASIBLE:
        return None
    if result.x is None:
        raise RuntimeError(f"the program for budgets failed: {result.message}")
    return frozenset(np.flatnonzero(np.rint(result.x[:units])).tolist())


def _row(
    program: MixedIntegerProgram,
    *,
    x: FloatArray | None = None,
    y: FloatArray | None = None,
    z: FloatArray | None = None,
) -> FloatArray:
    blanks = (program.returned_bytes, program.sent_bytes, program.weight_bytes)
    return np.concatenate(
        [np.zeros(len(b)) if part is None else part for part, b in zip((x, y, z), blanks, strict=True)]
    )


def _append(program: MixedIntegerProgram, row: FloatArray, limit: float) -> None:
    # HiGHS has an absolute tolerance of 1e-6, so a row is scaled by its limit, but not by a much smaller number
    # than its largest term.
    scale = max(abs(limit), 1e-3 * float(np.abs(row).max(initial=0.0)), 1e-300)
    program.matrix = vstack([program.matrix, csr_array(row[None] / scale)], format="csr")
    program.limit = np.append(program.limit, limit / scale)


def _structure(graph: Graph, direction: Direction) -> tuple[csr_array, FloatArray]:
    """Closure x[reader] <= x[producer], crossing y >= x[producer] - x[reader], and z >= x[unit].

    For cloud-first cuts the first two are reversed. A model input is always on the device.
    """
    units, tensors = len(graph.units), len(graph.tensors)
    sign = 1.0 if direction == "device-first" else -1.0
    rows: list[tuple[dict[int, float], float]] = []
    for at, tensor in enumerate(graph.tensors):
        for reader in tensor.consumers:
            if tensor.producer is None:
                rows.append(({units + at: -1.0, reader: -1.0}, -1.0))
            else:
                rows.append(({units + at: -1.0, reader: -sign, tensor.producer: sign}, 0.0))
                rows.append(({reader: sign, tensor.producer: -sign}, 0.0))
    for at, unit in enumerate(graph.units):
        rows.extend(({at: 1.0, units + tensors + weight: -1.0}, 0.0) for weight in unit.weights)
    entries = [
        (number, column, value) for number, (row, _) in enumerate(rows) for column, value in row.items()
    ]
    index, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    shape = (len(rows), units + tensors + len(graph.weights))
    matrix = csr_array((value, (index, column)), shape=shape)
    return matrix, np.array([limit for _, limit in rows])


def _budget_rows(program: MixedIntegerProgram) -> list[tuple[FloatArray, float, float]]:
    """Return (row, constant, limit) of each given budget; for peak memory, the row covers the weights only."""
    limits, energy = program.limits, program.costs.energy
    rows: list[tuple[FloatArray, float, float]] = [
        (_row(program, z=program.weight_bytes), 0.0, float(most))
        for most in (limits.max_device_weight_bytes, limits.max_device_peak_bytes)
        if most is not None
    ]
    if limits.max_payload_bytes is not None:
        rows.append((_row(program, y=program.sent_bytes), 0.0, float(limits.max_payload_bytes)))
    if limits.max_energy_j is not None and energy is not None:
        returned_j = energy.downlink_j_per_byte * program.returned_bytes
        row = _row(
            program,
            x=energy.active_w * np.array(program.costs.device_s) - returned_j,
            y=energy.uplink_j_per_byte * program.sent_bytes
            + energy.downlink_j_per_byte * program.received_bytes,
        )
        # A device without units does not spend the fixed seconds; `budget_oracle` compares with that cut itself.
        constant_j = float(returned_j.sum()) + energy.active_w * program.costs.device_fixed_s
        rows.append((row, constant_j, limits.max_energy_j))
    return rows


def peak_row(program: MixedIntegerProgram, unit: int, device: frozenset[int]) -> tuple[FloatArray, float]:
    """Return the bytes in use on the device while *unit* runs, including weights, as a row and a constant.

    They are exact for the cut with the units of *device* on the device, and never too high for other cuts that
    have *unit* on the device.
    """
    alive = alive_while(program.costs.graph, unit, device, program.direction)
    return _row(program, x=alive.by_unit, y=alive.by_tensor, z=program.weight_bytes), alive.always


def _exclude(program: MixedIntegerProgram, cut: Cut) -> None:
    """Add a row that excludes *cut*: the peak memory of its worst unit or, if that is within its limit, the cut itself.

    The second case is a cut that meets all rows within the solver's tolerance of 1e-6, but not exactly.
    """
    most = program.limits.max_device_peak_bytes
    if most is not None and cut.device_peak_bytes > most:
        alive = alive_bytes(program.costs.graph, cut.device, program.direction)
        worst = max(alive, key=lambda unit: alive[unit])
        row, constant = peak_row(program, worst, cut.device)
        key = worst, row.tobytes()
        if key not in program.peak_rows:
            program.peak_rows.add(key)
            # The most by which the row can exceed its limit, so that it excludes no cut with the unit elsewhere.
            excess = float(np.maximum(row, 0.0).sum()) + constant - most
            row[worst] += excess
            _append(program, row, most + excess - constant)
            return
    on_device = np.isin(np.arange(len(program.returned_bytes)), sorted(cut.device))
    _append(program, _row(program, x=np.where(on_device, 1.0, -1.0)), len(cut.device) - 1.0)
