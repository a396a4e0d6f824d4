"""The nodes of a trace are found in the model as ONNX Runtime optimises it here, whatever they are called."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

import onnx
import pytest

from splitc.model.model import load
from splitc.profile.attribution import attributed_share, unit_seconds
from splitc.profile.document import Measurement, NodeTimes
from splitc.profile.match_nodes import reconnected
from tests import models
from tests.profile.test_ort_trace import LEVELS, look, node, read, record, whole, write
from tests.running import save_tiny

# Models whose nodes ONNX Runtime renames, fuses, wraps or numbers, each in another way.
NAMES = [
    "tiny_cnn",
    "regnet_y_400mf",
    "chain",
    "unnamed_nodes",
    "named_dims",
    "fp16_chain",
    "qdq_residual",
    "local_function",
    "function_calls_function",
    "if_captures",
    "loop_captures",
    "recurrent",
]


def forgotten(measurement: Measurement) -> Measurement:
    return replace(
        measurement, nodes=tuple(replace(item, inputs=(), outputs=()) for item in measurement.nodes)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_all_time_finds_its_unit(name: str, level: str, tmp_path: Path) -> None:
    """The trace is of the model as it is; what is cut is the simplified one."""
    model = save_tiny(name, tmp_path)
    dims = (
        {"height": 4, "width": 4}
        if name == "named_dims"
        else {"batch": 1, "time": 3}
        if name == "recurrent"
        else {}
    )
    found = look(model, simplify=True, dims=dims)
    trace = read(record(model, tmp_path, level=level))
    measured = reconnected(trace.profile.measurements[0], found.original)
    assert [item.name for item in measured.nodes if not item.outputs] == []
    assert attributed_share(measured, found.sources, found.partition.graph) == pytest.approx(1)
    seconds = unit_seconds(measured, found.sources, found.partition.graph)
    assert sum(seconds) == pytest.approx(median(measured.whole_s))


def test_nodes_without_names(tmp_path: Path) -> None:
    """The runtime numbers them as they stand in the file, constants left out."""
    model = models.diamond()
    for item in model.graph.node:
        item.name = ""
    constant = onnx.helper.make_node("Constant", [], ["unused"], value_float=1.0)
    model.graph.node.insert(0, constant)
    onnx.save_model(model, tmp_path / "m.onnx")
    measured = reconnected(
        read(record(tmp_path / "m.onnx", tmp_path)).profile.measurements[0], load(tmp_path / "m.onnx")
    )
    assert [item.outputs for item in measured.nodes if item.op == "Add"] == [("d",)]
    assert all(item.outputs for item in measured.nodes)


def test_numbers_of_inserted_nodes_tell_nothing(tmp_path: Path) -> None:
    """They differ from run to run, so another number must lead to the same node, by its place."""
    model = save_tiny("chain", tmp_path)
    events = json.loads(record(model, tmp_path).read_bytes())
    once = reconnected(read(write(events, tmp_path)).profile.measurements[0], load(model))
    swapped = json.dumps(events).replace("ReorderOutput_token_", "ReorderOutput_token_7")
    swapped = swapped.replace("ReorderOutput_kernel", "ReorderOutput_token_6_kernel")
    again = reconnected(read(write(json.loads(swapped), tmp_path)).profile.measurements[0], load(model))
    assert [item.outputs for item in again.nodes] == [item.outputs for item in once.nodes]
    assert all(item.outputs for item in once.nodes)


def test_nodes_whose_neighbours_left_no_event(tmp_path: Path) -> None:
    """The remaining node between two known ones is matched if it is of the same kind.

    Two inserted nodes that run side by side and have the same reader cannot be told apart once one of them is gone.
    Either match is right then: their time belongs to the unit of the reader.
    """
    model = load(save_tiny("regnet_y_400mf", tmp_path))
    nodes = reconnected(read(record(model.path, tmp_path)).profile.measurements[0], model).nodes
    readers = {value: item.name for item in nodes for value in item.inputs}
    kinds = Counter((item.op, readers.get(item.outputs[0], "")) for item in nodes)

    def identity(item: NodeTimes) -> object:
        kind = (item.op, readers.get(item.outputs[0], "") if item.outputs else "nothing")
        return (*kind, item.name) if kinds[kind] > 1 and item.op.startswith("Reorder") else item

    places = [place for place, item in enumerate(nodes) if item.op.startswith("Reorder")]
    assert len(places) > 20
    for place in places[1::10]:
        left = (*nodes[: place - 1], nodes[place], *nodes[place + 2 :])
        again = reconnected(forgotten(Measurement(1, {}, 0, (1.0,), (), (), left)), model)
        assert [identity(item) for item in again.nodes] == [identity(item) for item in left]


def test_a_stranger_stays_unknown(tmp_path: Path) -> None:
    events = [node("NNAPI_17", 1, 10, op_name="NNAPI"), node("Tanh_a", 11, 10, op_name="Tanh"), whole(0, 30)]
    measured = reconnected(
        read(write(events, tmp_path)).profile.measurements[0], load(save_tiny("diamond", tmp_path))
    )
    assert [item.outputs for item in measured.nodes] == [(), ("a",)]


def test_what_is_known_is_left_alone(tmp_path: Path) -> None:
    nodes = (
        NodeTimes("Tanh_a", "Tanh", ("x",), ("somewhere",), (1.0,)),
        NodeTimes("n", "Add", (), (), (1.0,)),
    )
    measured = Measurement(1, {}, 0, (2.0,), (), (), nodes)
    model = load(save_tiny("diamond", tmp_path))
    assert reconnected(measured, model) is measured
    assert reconnected(replace(measured, nodes=()), model).nodes == ()
    assert reconnected(forgotten(measured), model).nodes[0].outputs == ("a",)
