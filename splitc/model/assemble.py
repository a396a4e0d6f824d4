"""Build the `Graph` that the solver uses from groups of nodes: units, tensors, weights, work."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from splitc.common.errors import ModelError
from splitc.model.graph import Graph, Tensor, Unit, Weight, device_only
from splitc.model.kinds import is_sendable
from splitc.model.model import Model
from splitc.model.nodes import Sources, Wiring
from splitc.model.sizes import Size
from splitc.model.work import node_work


def assemble(
    model: Model,
    found: Sources,
    wires: Wiring,
    members: Sequence[Sequence[int]],
    survivors: frozenset[str],
    sizes: Mapping[str, Size],
) -> Graph:
    """Return the graph whose units are the groups *members*.

    Args:
        members: the indices of the nodes of each unit; units in topological order.
        survivors: see `surviving_tensors`.

    Raises:
        ModelError: the size of a tensor between units, or of an output, is unknown.
    """
    unit_of = {index: number for number, nodes in enumerate(members) for index in nodes}
    tensors = (*_inputs(model, wires, unit_of, sizes), *_between(model, wires, unit_of, sizes))
    reads, makes = defaultdict(list), defaultdict(list)
    for position, tensor in enumerate(tensors):
        for consumer in tensor.consumers:
            reads[consumer].append(position)
        if tensor.producer is not None:
            makes[tensor.producer].append(position)
    scratch = _scratch_bytes(wires, unit_of, {tensor.name for tensor in tensors}, survivors, sizes)
    weights, used = _weights(model, found, members)
    units = []
    for number, nodes in enumerate(members):
        work = (node_work(found.nodes[index], sizes) for index in nodes)
        units.append(
            Unit(
                name=found.nodes[nodes[-1]].name or "",
                nodes=tuple(nodes),
                inputs=tuple(reads[number]),
                outputs=tuple(makes[number]),
                weights=used[number],
                work=tuple(item for item in work if item is not None),
                scratch_bytes=scratch[number],
            )
        )
    return Graph(tuple(units), tensors, weights, device_only(tensors))


def _inputs(
    model: Model, wires: Wiring, unit_of: Mapping[int, int], sizes: Mapping[str, Size]
) -> list[Tensor]:
    tensors = []
    outputs = set(model.outputs())
    for item in model.inputs():
        consumers = tuple(sorted({unit_of[reader] for reader in wires.readers.get(item.name, ())}))
        if consumers or item.name in outputs:
            size = sizes.get(item.name)
            nbytes = size.nbytes if size is not None and size.dtype is not None else None
            dtype = item.dtype or "string"
            tensors.append(
                Tensor(item.name, dtype, item.shape, nbytes, None, consumers, item.name in outputs)
            )
    return tensors


def _between(
    model: Model, wires: Wiring, unit_of: Mapping[int, int], sizes: Mapping[str, Size]
) -> list[Tensor]:
    """Return the tensors that another unit reads, and the model outputs."""
    tensors = []
    outputs = set(model.outputs())
    for name, index in wires.maker.items():
        unit = unit_of[index]
        consumers = tuple(sorted({unit_of[reader] for reader in wires.readers.get(name, ())} - {unit}))
        if not consumers and name not in outputs:
            continue
        size = sizes.get(name)
        if size is None:
            raise ModelError(
                f"cannot tell the size of output '{name}' without running the model, and it cannot run here; "
                "provide real inputs with --samples FILE.npz"
            )
        dtype, sendable = size.dtype or "object", is_sendable(size.kind)
        tensors.append(
            Tensor(name, dtype, size.shape, size.nbytes, unit, consumers, name in outputs, sendable)
        )
    return tensors


def _scratch_bytes(
    wires: Wiring,
    unit_of: Mapping[int, int],
    between: set[str],
    survivors: frozenset[str],
    sizes: Mapping[str, Size],
) -> defaultdict[int, int]:
    """Return, for each unit, the bytes of tensors used only inside it; fused tensors never exist."""
    scratch: defaultdict[int, int] = defaultdict(int)
    for name, index in wires.maker.items():
        if name not in between and name in survivors and name in sizes:
            scratch[unit_of[index]] += sizes[name].nbytes
    return scratch


def _weights(
    model: Model, found: Sources, members: Sequence[Sequence[int]]
) -> tuple[tuple[Weight, ...], list[tuple[int, ...]]]:
    """Return the initializers that units read, directly or through constant nodes, and their indices by unit."""
    tensors = {name: value.const_value for name, value in model.ir.graph.initializers.items()}
    roots: dict[str, frozenset[str]] = {name: frozenset([name]) for name in tensors}
    for index in sorted(found.constant):
        needs = frozenset[str]().union(*(roots[name] for name in found.reads[index]))
        roots |= {output.name: needs for output in found.nodes[index].outputs if output.name}
    names = [
        sorted({root for index in nodes for name in found.reads[index] for root in roots.get(name, ())})
        for nodes in members
    ]
    position = {
        name: number for number, name in enumerate(dict.fromkeys(name for used in names for name in used))
    }
    weights = tuple(Weight(name, tensor.nbytes) for name in position if (tensor := tensors[name]) is not None)
    return weights, [tuple(sorted(position[name] for name in used)) for used in names]
