"""Where the outputs of a model come from: which may differ by a rounding, and which must be equal."""

from collections.abc import Iterable, Mapping
from typing import Literal

import onnx_ir as ir

from splitc.bundle.manifest import StageEntry
from splitc.compile.verification.whole import Whole
from splitc.model.model import Model, load
from splitc.model.shape_inference import name_of

Origin = Literal["given", "rounded", "chosen", "computed"]
"""Why two right results may differ.

given: they may not: inputs and weights that are only moved, compared and counted.
rounded: whole numbers that were rounded from floats: one step, where a float is close to the middle of two.
chosen: indices, and whatever else depends on which float is larger: anything, where two floats are nearly equal.
computed: floats.
"""

# Of an output that is made of several, the last of these.
_ORDER: tuple[Origin, ...] = ("given", "rounded", "chosen", "computed")
_QUANTIZERS = {"QuantizeLinear", "DynamicQuantizeLinear"}
_ROUNDINGS = {"Cast", "CastLike", "Round", "Floor", "Ceil"}
_COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
# Operators that move the elements of their first input, or choose among neighbours, and change none.
_MOVES = {
    *(
        "Identity",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
        "Expand",
        "Tile",
    ),
    *("Gather", "GatherND", "GatherElements", "Pad", "DepthToSpace", "SpaceToDepth", "ReverseSequence"),
    *("Clip", "Not", "MaxPool", "ReduceMax", "ReduceMin"),
}
# The same of all of their inputs.
_JOINS = {"Concat", "Min", "Max", "And", "Or", "Xor"}
_FLOATS = ("float", "bfloat")


def origins(whole: Whole) -> dict[str, Origin]:
    """The origin of every value of *whole*, as far as its models tell.

    Raises:
        ModelError: a model cannot be read.
    """
    program = whole.program
    if program.file is not None:
        return model_origins(load(whole.files.path(program.file)), {})
    models: dict[str, Model] = {}
    found: dict[str, Origin] = {}
    for stage in program.stages:
        for call in stage.entry.calls:
            if call.file not in models:
                models[call.file] = load(whole.files.path(call.file))
        _follow(stage.entry, models, found)
    return found


def _follow(stage: StageEntry, models: Mapping[str, Model], found: dict[str, Origin]) -> None:
    """Add to *found* what *stage* makes."""
    loop = stage.loop
    if loop is not None:
        found.update({value: found.get(begin, "given") for value, begin in loop.carry.items()})
    for _ in range(loop.end - loop.first if loop is not None else 1):
        for call in stage.calls:
            given = {name: found.get(value, "given") for name, value in call.inputs.items()}
            made = model_origins(models[call.file], given)
            found.update({value: made[name] for name, value in call.outputs.items()})


def model_origins(model: Model, given: Mapping[str, Origin]) -> dict[str, Origin]:
    """The origin of every tensor of *model*, some of whose inputs have the origins *given*."""
    found: dict[str, Origin] = {item.name: given.get(item.name, "given") for item in model.inputs()}

    def is_float(value: ir.Value | None) -> bool:
        dtype = model.infos[name_of(value)].dtype if value is not None and value.name in model.infos else None
        return dtype is not None and dtype.startswith(_FLOATS)

    for node in model.ir.graph:
        sources = [
            found.get(value.name or "", "given") if value is not None else "given" for value in node.inputs
        ]
        for output in node.outputs:
            if output.name:
                found[output.name] = _origin(node, sources, makes_floats=is_float(output))
    for name in model.outputs():
        found.setdefault(name, "given")  # an initializer
    return found


def _origin(node: ir.Node, sources: list[Origin], *, makes_floats: bool) -> Origin:
    """The origin of what *node* makes of values with the origins *sources*."""
    op = node.op_type
    if op in _QUANTIZERS or op.startswith("QLinear"):
        return "rounded"
    is_known = node.domain == "" and not any(_is_graph(item) for item in node.attributes.values())
    found = _simple(node, sources, makes_floats=makes_floats) if is_known else None
    if found is not None:
        return found
    if is_known and not makes_floats and _last(sources) == "given":
        return "given"
    return "computed" if makes_floats else "chosen"


def _simple(node: ir.Node, sources: list[Origin], *, makes_floats: bool) -> Origin | None:
    """What `_origin` returns for an operator that rounds, compares or moves elements; None for others."""
    op = node.op_type
    if op in _ROUNDINGS:
        return _rounded(op, sources[0], makes_floats=makes_floats)
    if op in _COMPARISONS:
        return "rounded" if _last(sources) == "computed" else _last(sources)
    if op in _JOINS:
        return _last(sources)
    if (op in _MOVES or _repeats(node)) and _last(sources[1:]) == "given":
        return sources[0]
    return None


def _rounded(op: str, source: Origin, *, makes_floats: bool) -> Origin:
    changes = not (op.startswith("Cast") and makes_floats)
    return "rounded" if changes and source == "computed" else source


def _repeats(node: ir.Node) -> bool:
    """Whether *node* enlarges an image by repeating its elements."""
    mode = node.attributes.get("mode")
    return node.op_type in ("Resize", "Upsample") and (mode is None or mode.as_string() == "nearest")


def _last(found: Iterable[Origin]) -> Origin:
    return max(found, key=_ORDER.index, default="given")


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
