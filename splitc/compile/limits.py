"""From what a user asks for (names, budgets) to limits on units and tensors."""

from collections.abc import Iterable
from dataclasses import dataclass

from splitc.common.errors import ModelError
from splitc.common.records import did_you_mean
from splitc.model.graph import Graph
from splitc.model.model import Model
from splitc.model.nodes import Sources
from splitc.solve.costs import Limits


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """Pins name nodes, or tensors for the node that makes them; `private` names tensors."""

    pin_device: tuple[str, ...] = ()
    pin_cloud: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    max_device_weight_bytes: int | None = None
    max_device_peak_bytes: int | None = None
    max_payload_bytes: int | None = None
    max_energy_j: float | None = None


def read_limits(
    options: LimitOptions, sources: Sources, graph: Graph, original: Model | None = None
) -> Limits:
    """Find what *options* name in the graph; *original* is the model before it was simplified to that.

    Raises:
        ModelError: a name that the model does not have.
    """
    by_node: dict[str, int] = {}
    by_tensor: dict[str, int] = {}
    for number, unit in enumerate(graph.units):
        for index in unit.nodes:
            node = sources.nodes[index]
            by_node[node.name or ""] = number
            by_tensor |= {output.name: number for output in node.outputs if output.name}
    units = by_tensor | by_node
    gone = _names(original) if original is not None else frozenset()
    crossing = graph.tensor_index()
    for name in options.private:
        _find(name, crossing | by_tensor, "--private", "tensor", gone)
    # A tensor inside a unit never crosses; its unit must only be on the device.
    inner = [name for name in options.private if name not in crossing]
    return Limits(
        pin_device=frozenset(_find_all(options.pin_device, units, "--pin-device", gone))
        | {by_tensor[name] for name in inner},
        pin_cloud=frozenset(_find_all(options.pin_cloud, units, "--pin-cloud", gone)),
        private=frozenset(crossing[name] for name in options.private if name in crossing),
        max_device_weight_bytes=options.max_device_weight_bytes,
        max_device_peak_bytes=options.max_device_peak_bytes,
        max_payload_bytes=options.max_payload_bytes,
        max_energy_j=options.max_energy_j,
    )


def _names(model: Model) -> frozenset[str]:
    """Names of all nodes and of the tensors that they make."""
    nodes = list(model.ir.graph)
    outputs = [output.name for node in nodes for output in node.outputs]
    return frozenset(name for name in (*outputs, *(node.name for node in nodes)) if name)


def _find_all(names: Iterable[str], known: dict[str, int], option: str, gone: frozenset[str]) -> list[int]:
    return [_find(name, known, option, "node or tensor", gone) for name in names]


def _find(name: str, known: dict[str, int], option: str, what: str, gone: frozenset[str]) -> int:
    if name not in known and name in gone:
        raise ModelError(
            f"{option}: '{name}' depends on no input, or is simplified away; add --no-simplify or name another"
        )
    if name not in known:
        raise ModelError(
            f"{option}: the model has no {what} '{name}'{did_you_mean(name, known) or ';'} "
            "`splitc inspect --tensors` lists what could be cut"
        )
    return known[name]
