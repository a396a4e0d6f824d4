"""Cuts under hard limits as a mixed-integer program.

Variables: x[unit], 1 in the head; y[tensor], 1 if it crosses; z[weight], 1 if the head holds it.
Rows read `matrix @ variables <= limit`. Peak memory takes one row per unit, each as long as the model, so
these rows are added only when a solution breaks them.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from splitc.costs import Costs, Limits
from splitc.cuts import Cut, make_cut, meets_budgets
from splitc.graph import Graph
from splitc.solve.pins import Pins
from splitc.solve.space import BoolArray, FloatArray, IntArray

_INFEASIBLE = 2  # a status of scipy.optimize.milp


@dataclass(slots=True, eq=False)
class Program:
    """A program that learns: `best_cut` appends the rows that it needed, which are valid at any prices.

    Attributes:
        producer: (tensors,) unit that makes each, -1 for a model input.
        last_reader: (tensors,) -1 without a reader; a model output waits for the end and has the number of
        units. nbytes: (tensors,).
        returned_bytes: (units,) model outputs that each makes.
    """

    costs: Costs
    limits: Limits
    pins: Pins
    producer: IntArray
    last_reader: IntArray
    nbytes: FloatArray
    returned_bytes: FloatArray
    weight_bytes: FloatArray
    matrix: csr_array
    limit: FloatArray
    peak_rows: set[int] = field(default_factory=set)


def make_program(costs: Costs, limits: Limits, pins: Pins) -> Program:
    """Write down closure, crossing, shared weights, and all budgets but peak memory."""
    graph = costs.graph
    units, tensors = len(graph.units), graph.tensors
    returned = np.zeros(units)
    for tensor in tensors:
        if tensor.is_output and tensor.producer is not None:
            returned[tensor.producer] += tensor.nbytes or 0
    program = Program(
        costs=costs,
        limits=limits,
        pins=pins,
        producer=np.array([-1 if t.producer is None else t.producer for t in tensors], dtype=np.intp),
        last_reader=np.array(
            [units if t.is_output else max(t.consumers, default=-1) for t in tensors], dtype=np.intp
        ),
        nbytes=np.array([t.nbytes or 0 for t in tensors], dtype=np.float64),
        returned_bytes=returned,
        weight_bytes=np.array([w.nbytes for w in graph.weights], dtype=np.float64),
        matrix=csr_array((0, units + len(tensors) + len(graph.weights))),
        limit=np.empty(0),
    )
    matrix, limit = _structure(graph)
    program.matrix, program.limit = matrix, limit
    for row, constant, most in _budget_rows(program):
        _append(program, row, most - constant)
    return program


def best_cut(program: Program, prices: FloatArray, at_least_s: float = 0.0) -> Cut | None:
    """The best cut within all limits, or None, by unit times and bytes alone.

    *at_least_s* bounds these from below.
    """
    objective = _row(
        program,
        x=prices[0] * np.array(program.costs.head_s)
        - prices[1] * np.array(program.costs.tail_s)
        - prices[3] * program.returned_bytes,
        y=prices[2] * program.nbytes,
    )
    # HiGHS is content with an absolute gap of 1e-6: a latency of about 1000 makes that 1e-9.
    objective *= 1e3 / at_least_s if at_least_s > 0 else 1.0
    while (head := _solve(program, objective)) is not None:
        cut = make_cut(program.costs, head)
        if meets_budgets(program.costs, cut, program.limits):
            return cut
        _exclude(program, cut)
    return None


def _solve(program: Program, objective: FloatArray) -> frozenset[int] | None:
    lower, upper = np.zeros(len(objective)), np.ones(len(objective))
    lower[sorted(program.pins.head)] = 1.0
    upper[sorted(program.pins.tail)] = 0.0
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
    program: Program, *, x: FloatArray | None = None, y: FloatArray | None = None, z: FloatArray | None = None
) -> FloatArray:
    blanks = (program.returned_bytes, program.nbytes, program.weight_bytes)
    return np.concatenate(
        [np.zeros(len(b)) if part is None else part for part, b in zip((x, y, z), blanks, strict=True)]
    )


def _append(program: Program, row: FloatArray, limit: float) -> None:
    # HiGHS tolerates 1e-6 absolutely; a tight limit may be far below the largest term, but not without bound.
    scale = max(abs(limit), 1e-3 * float(np.abs(row).max(initial=0.0)), 1e-300)
    program.matrix = vstack([program.matrix, csr_array(row[None] / scale)], format="csr")
    program.limit = np.append(program.limit, limit / scale)


def _structure(graph: Graph) -> tuple[csr_array, FloatArray]:
    """Closure x[reader] <= x[producer], crossing y >= x[producer] - x[reader], and z >= x[unit]."""
    units, tensors = len(graph.units), len(graph.tensors)
    rows: list[tuple[dict[int, float], float]] = []
    for at, tensor in enumerate(graph.tensors):
        for reader in tensor.consumers:
            if tensor.producer is None:
                rows.append(({units + at: -1.0, reader: -1.0}, -1.0))
            else:
                rows.append(({units + at: -1.0, reader: -1.0, tensor.producer: 1.0}, 0.0))
                rows.append(({reader: 1.0, tensor.producer: -1.0}, 0.0))
    for at, unit in enumerate(graph.units):
        rows.extend(({at: 1.0, units + tensors + weight: -1.0}, 0.0) for weight in unit.weights)
    entries = [
        (number, column, value) for number, (row, _) in enumerate(rows) for column, value in row.items()
    ]
    index, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    shape = (len(rows), units + tensors + len(graph.weights))
    matrix = csr_array((value, (index, column)), shape=shape)
    return matrix, np.array([limit for _, limit in rows])


def _budget_rows(program: Program) -> list[tuple[FloatArray, float, float]]:
    """(row, constant, limit) of each budget that is set, peak memory excepted."""
    limits, energy = program.limits, program.costs.energy
    rows: list[tuple[FloatArray, float, float]] = []
    if limits.max_head_weight_bytes is not None:
        rows.append((_row(program, z=program.weight_bytes), 0.0, float(limits.max_head_weight_bytes)))
    if limits.max_payload_bytes is not None:
        rows.append((_row(program, y=program.nbytes), 0.0, float(limits.max_payload_bytes)))
    if limits.max_energy_j is not None and energy is not None:
        received_j = energy.downlink_j_per_byte * program.returned_bytes
        row = _row(
            program,
            x=energy.active_w * np.array(program.costs.head_s) - received_j,
            y=energy.uplink_j_per_byte * program.nbytes,
        )
        # A head without units spends nothing besides; `budget_oracle` compares with that one itself.
        constant_j = float(received_j.sum()) + energy.active_w * program.costs.head_fixed_s
        rows.append((row, constant_j, limits.max_energy_j))
    return rows


def alive_bytes(program: Program, unit: int) -> tuple[FloatArray, float]:
    """Bytes that occupy the device while *unit* runs, weights included, as a row and a constant.

    A tensor whose last reader is still to come is alive if it was made here at all: either that reader is
    in the head, or the tensor waits to be sent. After its last reader it is alive only if it crosses.
    """
    made = program.producer <= unit
    kept = made & ((program.last_reader >= unit) | (program.producer == unit))
    waiting = made & ~kept & (program.last_reader >= 0)
    units = len(program.returned_bytes)
    own = np.bincount(program.producer[kept] + 1, weights=program.nbytes[kept], minlength=units + 1).astype(
        np.float64
    )
    row = _row(program, x=own[1:], y=np.where(waiting, program.nbytes, 0.0), z=program.weight_bytes)
    return row, float(own[0]) + program.costs.graph.units[unit].scratch_bytes


def _exclude(program: Program, cut: Cut) -> None:
    """Add a row that *cut* breaks: the peak of its worst unit, or if that is not the reason, the cut itself.

    The latter is for a cut that keeps all rows within the solver's tolerance of 1e-6, but not to the byte.
    """
    most = program.limits.max_head_peak_bytes
    if most is not None and cut.head_peak_bytes > most:
        assigned = variables(program, cut)
        alive = {unit: alive_bytes(program, unit) for unit in sorted(cut.head)}
        worst = max(alive, key=lambda unit: float(alive[unit][0] @ assigned) + alive[unit][1])
        if worst not in program.peak_rows:
            program.peak_rows.add(worst)
            row, constant = alive[worst]
            excess = float(row.sum()) + constant - most  # the most that the row can be broken by
            row[worst] += excess
            _append(program, row, most + excess - constant)
            return
    in_head = variables(program, cut)[: len(program.returned_bytes)]
    _append(program, _row(program, x=np.where(in_head, 1.0, -1.0)), len(cut.head) - 1.0)


def variables(program: Program, cut: Cut) -> BoolArray:
    """The value of each variable that describes *cut*."""
    graph = program.costs.graph
    units, tensors = len(graph.units), len(graph.tensors)
    values = np.zeros(units + tensors + len(graph.weights), dtype=bool)
    values[sorted(cut.head)] = True
    values[[units + tensor for tensor in cut.boundary]] = True
    values[[units + tensors + weight for unit in cut.head for weight in graph.units[unit].weights]] = True
    return values
