"""Check a user's description of a machine or network, and report all mistakes at once."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from splitc.common.errors import TargetError
from splitc.common.records import RecordError, decode, did_you_mean
from splitc.profile.targets.coefficients import load_coefficients
from splitc.profile.targets.description import Network, Target, coefficients_paths, read_description

_TOLERANCE = 0.01
"""Relative difference allowed between a derived peak and its formula, because sources round."""

_PLAUSIBLE = {
    # key: (lowest, highest, unit and example)
    "clock_hz": (1e8, 1e10, "hertz, such as 2.85e9"),
    "peak_macs_per_s": (1e8, 1e15, "multiply-accumulates per second (half the FLOP/s), such as 45.6e9"),
    "memory_bytes_per_s": (1e8, 1e14, "bytes per second, such as 51.2e9"),
    "memory_bytes": (1e7, 1e14, "bytes, such as 8e9"),
    "active_w": (1e-3, 1e4, "watts, such as 2.5"),
    "uplink_bps": (1e3, 1e12, "bits per second, such as 20e6"),
    "downlink_bps": (1e3, 1e12, "bits per second, such as 100e6"),
    "rtt_s": (1e-6, 10.0, "seconds, such as 0.03"),
}
_FORMULA = re.compile(r"(\d{1,9}) fp32 lanes x (?:(\d{1,9}) pipes? x )?clock")
_RECALLED = "recalled"

_Table = dict[str, Any]  # a TOML table that is not validated


@dataclass(frozen=True, slots=True)
class CheckedDescription:
    """The result of checking a description.

    Attributes:
        described: None if there are mistakes.
        mistakes: why it cannot be used, one sentence each.
        warnings: values that are probably unintended, one sentence each.
    """

    path: Path
    described: Target | Network | None
    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]


def check_description(path: Path) -> CheckedDescription:
    """Check the target or network described in *path*; a file that cannot be read counts as a mistake."""
    try:
        table: _Table = read_description(path, "target")
    except TargetError as error:
        return CheckedDescription(path, None, (str(error),), ())
    described: Target | Network | None
    described, mistakes = _decode(Network if _is_network(table) else Target, table, path)
    mistakes += [f"{path.name}: {mistake}" for mistake in _target_mistakes(table)]
    warnings = [f"{path.name}: {warning}" for warning in _warnings(table, path)]
    return CheckedDescription(path, None if mistakes else described, tuple(mistakes), tuple(warnings))


def _is_network(table: _Table) -> bool:
    keys = {cls: {field.name for field in fields(cls)} for cls in (Target, Network)}
    return len(table.keys() & keys[Network]) > len(table.keys() & keys[Target])


def _decode(
    cls: type[Target | Network], table: _Table, path: Path
) -> tuple[Target | Network | None, list[str]]:
    try:
        return decode(cls, table, path.name), []
    except RecordError as error:
        return None, list(error.mistakes)


def _target_mistakes(table: _Table) -> Iterator[str]:
    """Yield mistakes that the records do not find themselves; values of a wrong type are skipped here."""
    descriptor = _table(table, "descriptor")
    name, known = descriptor.get("coefficients"), coefficients_paths()
    if isinstance(name, str) and name not in known:
        hint = did_you_mean(name, known) or ";"
        yield f"descriptor.coefficients: unknown coefficients '{name}'{hint} known: {', '.join(known)}"
    threads, cores = table.get("threads"), [cluster.get("cores") for cluster in _clusters(table)]
    counts = [count for count in cores if isinstance(count, int)]
    if isinstance(threads, int) and cores and len(counts) == len(cores) and threads > sum(counts):
        yield f"threads: {threads} threads are more than the {sum(counts)} cores of all clusters"


def _warnings(table: _Table, path: Path) -> Iterator[str]:
    name = table.get("name")
    if isinstance(name, str) and name != path.stem:
        yield f"name: '{name}' differs from the file name '{path.stem}', by which splitc finds it; make them equal"
    if "kind" in table and not table.keys() & {"descriptor", "machine"}:
        yield "there is no [descriptor], so times cannot be predicted and builds need a recorded profile"
    if "descriptor" in table and "threads" not in table:
        yield "key 'threads' is missing, so times cannot be predicted; add it"
    for place, key, quantity in _quantities(table, ""):
        yield from (f"{place}: {warning}" for warning in _quantity_warnings(key, quantity))
    known = _known_cores(_table(table, "descriptor").get("coefficients"))
    for index, cluster in enumerate(_clusters(table)):
        for warning in (*_core_warnings(cluster, known), *_peak_warnings(cluster)):
            yield f"descriptor.clusters[{index}]: {warning}"


def _quantity_warnings(key: str, quantity: _Table) -> Iterator[str]:
    source = quantity.get("source")
    if (
        quantity.get("confidence") == _RECALLED
        and isinstance(source, str)
        and f"{_RECALLED} from" not in source
    ):
        yield 'the source of a recalled number must name its origin: source = "recalled from ..."'
    if key not in _PLAUSIBLE:
        return
    low, high, expected = _PLAUSIBLE[key]
    for name in ("value", "typical", "low", "high"):
        number = _number(quantity, name)
        if number is not None and number > 0 and not low <= number <= high:
            yield f"{name} is {number:g}, which is implausible; give {expected}"


def _known_cores(coefficients: object) -> tuple[str, ...]:
    if not isinstance(coefficients, str):
        return ()
    try:
        return tuple(core.name for core in load_coefficients(coefficients).cores)
    except TargetError:  # reported by _target_mistakes
        return ()


def _core_warnings(cluster: _Table, known: tuple[str, ...]) -> Iterator[str]:
    core = cluster.get("core")
    if isinstance(core, str) and known and core not in known:
        hint = did_you_mean(core, known) or ";"
        yield f"core '{core}' is not in these coefficients{hint} predictions for it are far less certain"


def _peak_warnings(cluster: _Table) -> Iterator[str]:
    peak, clock = _table(cluster, "peak_macs_per_s"), _number(_table(cluster, "clock_hz"), "value")
    source = peak.get("source")
    value, formula = _number(peak, "value"), _FORMULA.search(source) if isinstance(source, str) else None
    if value is None or clock is None or formula is None:
        return
    lanes, pipes = int(formula[1]), int(formula[2] or 1)
    derived = lanes * pipes * clock
    if abs(value - derived) > _TOLERANCE * derived:
        yield f"peak_macs_per_s is {value:g}, but {formula[0]} is {derived:g}"


def _quantities(table: _Table, place: str) -> Iterator[tuple[str, str, _Table]]:
    """Yield the place, key and content of every table with a source inside *table*."""
    for key, item in table.items():
        for index, part in enumerate(item if isinstance(item, list) else [item]):
            where = f"{place}{key}" + (f"[{index}]" if isinstance(item, list) else "")
            if isinstance(part, dict) and "source" in part:
                yield where, key, part
            elif isinstance(part, dict):
                yield from _quantities(part, f"{where}.")


def _clusters(table: _Table) -> list[_Table]:
    clusters = _table(table, "descriptor").get("clusters")
    return [item for item in clusters if isinstance(item, dict)] if isinstance(clusters, list) else []


def _table(table: _Table, key: str) -> _Table:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _number(table: _Table, key: str) -> float | None:
    value = table.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        return None  # a mistake, which the record reports
    return float(value)
