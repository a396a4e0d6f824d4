"""The interpreter of parts, on runs that only write down what they were given."""

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.bundle.manifest import (
    BoundaryEntry,
    CallEntry,
    CutEntry,
    LoopEntry,
    PartEntry,
    StageEntry,
)
from splitc.bundle.program import Call, made_by, part_program, run_program, stages_program, steps
from splitc.common.errors import BundleError

ROWS = {"t.npy": np.arange(10, 15)}


def call(file: str, inputs: str, outputs: str) -> CallEntry:
    """A call whose file's ports are called after the values: "in_x" takes x, "out_y" makes y."""
    return CallEntry(
        file,
        {f"in_{name}": name for name in inputs.split()},
        {f"out_{name}": name for name in outputs.split()},
    )


def told(request: Call) -> dict[str, str]:
    """What a run made of, in words."""
    assert request.outputs is not None
    feeds = ",".join(str(request.feeds[name]) for name in sorted(request.feeds))
    return {name: f"{request.file}.{name}({feeds})" for name in request.outputs}


def run(stages: Sequence[StageEntry], values: Mapping[str, Any], *wanted: str) -> dict[str, Any]:
    return run_program(stages_program(stages, wanted), values, told, ROWS.__getitem__)


def denoise(first: int, end: int) -> StageEntry:
    loop = LoopEntry(first, end, {"latents": "noise"}, {"t": "t.npy"})
    return StageEntry(
        "denoise", (call("unet", "latents t", "eps"), call("step", "eps latents", "latents")), loop
    )


def test_stages_run_in_turn_and_values_are_known_by_name() -> None:
    stages = [StageEntry("a", (call("f", "x", "y"),)), StageEntry("b", (call("g", "y x", "z"),))]
    assert run(stages, {"x": "X"}, "z") == {"z": "g.out_z(X,f.out_y(X))"}


def test_a_carried_value_begins_as_told_and_rows_follow_the_iteration() -> None:
    first = "step.out_latents(unet.out_eps(N,10),N)"
    assert run([denoise(0, 1)], {"noise": "N"}, "latents") == {"latents": first}
    second = f"step.out_latents(unet.out_eps({first},11),{first})"
    assert run([denoise(0, 2)], {"noise": "N"}, "latents") == {"latents": second}


@pytest.mark.parametrize("handover", range(1, 5))
def test_a_loop_that_is_handed_over_gives_what_the_whole_loop_gives(handover: int) -> None:
    whole = run([denoise(0, 5)], {"noise": "N"}, "latents")
    crossing = run([denoise(0, handover)], {"noise": "N"}, "latents")
    assert run([denoise(handover, 5)], crossing, "latents") == whole


def test_a_later_part_needs_no_first_value() -> None:
    assert stages_program([denoise(0, 2)], ["latents"]).needs == frozenset(["noise"])
    assert stages_program([denoise(1, 2)], ["latents"]).needs == frozenset(["latents"])


def test_a_call_whose_results_only_the_other_part_needs_is_left_out() -> None:
    stage = denoise(0, 2)
    both = StageEntry(stage.name, (*stage.calls, call("preview", "latents", "picture")), stage.loop)
    calls = list(called(both, "latents"))
    assert calls == ["unet", "step"] * 2
    assert list(called(both, "picture")) == [*["unet", "step"] * 2, "preview"]


def called(stage: StageEntry, *wanted: str) -> Iterator[str]:
    running = steps(stages_program([stage], wanted), {"noise": "N"}, ROWS.__getitem__)
    request = next(running)
    while True:
        yield request.file
        try:
            request = running.send(told(request))
        except StopIteration:
            return


def test_two_requests_take_turns_in_one_program() -> None:
    program = stages_program([denoise(0, 3)], ["latents"])
    running = {name: steps(program, {"noise": name}, ROWS.__getitem__) for name in "AB"}
    requests = {name: next(one) for name, one in running.items()}
    results = {}
    while requests:
        for name, request in list(requests.items()):
            try:
                requests[name] = running[name].send(told(request))
            except StopIteration as done:
                results[name] = done.value["latents"]
                del requests[name]
    assert results == {name: run([denoise(0, 3)], {"noise": name}, "latents")["latents"] for name in "AB"}


class Tensor:
    """Something whose end can be seen."""


def test_values_that_nobody_reads_any_more_are_let_go() -> None:
    """Of a chain of ten values, no more than one is alive while the next is made."""
    stages = [StageEntry(f"s{index}", (call("f", f"v{index}", f"v{index + 1}"),)) for index in range(10)]
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def watched(request: Call) -> dict[str, Tensor]:
        nonlocal most
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
        made = Tensor()
        alive.append(weakref.ref(made))
        assert request.outputs is not None
        return {request.outputs[0]: made}

    run_program(stages_program(stages, ["v10"]), {"v0": Tensor()}, watched, ROWS.__getitem__)
    assert most == 1


def test_what_an_iteration_made_for_itself_is_let_go_before_the_next() -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    counts = []

    def watched(request: Call) -> dict[str, Tensor]:
        gc.collect()
        counts.append((request.file, len(alive)))
        made = Tensor()
        alive.add(made)
        assert request.outputs is not None
        return {request.outputs[0]: made}

    run_program(stages_program([denoise(0, 3)], ["latents"]), {"noise": 0}, watched, ROWS.__getitem__)
    assert counts == [("unet", 0), ("step", 1), ("unet", 1), ("step", 2), ("unet", 1), ("step", 2)]


def test_a_missing_value_is_named() -> None:
    with pytest.raises(BundleError, match="the stage 'denoise' reads 'latents', which has no value"):
        run([denoise(1, 2)], {"noise": "N"}, "latents")


def test_an_array_that_is_too_short_is_named() -> None:
    with pytest.raises(
        BundleError, match=r"'t.npy' has too few rows for the 6 iterations of the stage 'denoise'"
    ):
        run([denoise(0, 6)], {"noise": "N"}, "latents")


# --- parts of cuts ---


def cut(head: Sequence[StageEntry], tail: Sequence[StageEntry], *boundary: str) -> CutEntry:
    return CutEntry(
        id="c1",
        kind="split",
        head=PartEntry(
            file=None,
            latency_s=1.0,
            weight_bytes=0,
            peak_bytes=0,
            source="measured",
            interval=None,
            stages=tuple(head),
        ),
        tail=PartEntry(
            file=None, latency_s=1.0, weight_bytes=0, source="measured", interval=None, stages=tuple(tail)
        ),
        boundary=tuple(BoundaryEntry(name, "float32", (1,), 4) for name in boundary),
        uplink_bytes=4,
        downlink_bytes=4,
        check=None,
    )


def test_an_output_that_the_loop_carries_is_returned_by_the_part_that_finishes_it() -> None:
    divided = cut([denoise(0, 2)], [denoise(2, 5)], "latents")
    assert divided.head is not None
    assert divided.tail is not None
    outputs = ["latents", "other"]
    assert part_program(divided, divided.head, outputs).makes == ("latents",)
    assert part_program(divided, divided.tail, outputs).makes == ("latents",)
    head = part_program(
        cut([denoise(0, 5)], [StageEntry("d", (call("f", "context", "image"),))], "context"),
        divided.head,
        outputs,
    )
    assert head.makes == ("latents",)


def test_a_part_makes_what_crosses_and_outputs_and_nothing_else() -> None:
    text, decode = (
        StageEntry("text", (call("f", "ids", "context early"),)),
        StageEntry("d", (call("g", "context x", "image"),)),
    )
    divided = cut([text], [decode], "x", "context")
    assert divided.head is not None
    assert divided.tail is not None
    assert part_program(divided, divided.head, ["image", "early"]).makes == ("context", "early")
    assert part_program(divided, divided.tail, ["image", "early"]).makes == ("image",)
    assert made_by(divided.head) == {"context", "early"}


def test_a_part_that_is_one_model_is_a_program_of_one_call() -> None:
    whole = CutEntry(
        id="c0",
        kind="all-head",
        head=PartEntry(
            file="head-c0.onnx", latency_s=1.0, weight_bytes=0, peak_bytes=0, source="measured", interval=None
        ),
        tail=None,
        boundary=(),
        uplink_bytes=0,
        downlink_bytes=0,
        check=None,
    )
    assert whole.head is not None
    running = steps(part_program(whole, whole.head, ["y"]), {"x": 1}, ROWS.__getitem__)
    assert next(running) == Call("head-c0.onnx", {"x": 1}, None)
    with pytest.raises(StopIteration) as done:
        running.send({"y": 2})
    assert done.value.value == {"y": 2}


# --- any program ---


@st.composite
def programs(draw: st.DrawFn) -> tuple[StageEntry, ...]:
    """Stages that read any value there is, some of them repeated."""
    known, stages = ["v0"], []
    for number in range(draw(st.integers(1, 4))):
        times = draw(st.integers(0, 4))
        readable, calls = list(known), []
        if times:
            readable += [f"c{number}", f"t{number}"]
        for position in range(draw(st.integers(1, 3))):
            reads = draw(st.lists(st.sampled_from(readable), min_size=1, max_size=3, unique=True))
            readable.append(f"v{number}{position}")
            calls.append(call(f"f{number}{position}", " ".join(reads), readable[-1]))
        loop = None
        if times:
            last = draw(st.sampled_from(readable))
            calls.append(call(f"last{number}", " ".join(dict.fromkeys([f"c{number}", last])), f"c{number}"))
            loop = LoopEntry(0, times, {f"c{number}": draw(st.sampled_from(known))}, {f"t{number}": "t.npy"})
        stages.append(StageEntry(f"s{number}", tuple(calls), loop))
        known += [name for name in readable if name not in known and name != f"t{number}"]
    return tuple(stages)


def plainly(stages: Sequence[StageEntry], values: dict[str, Any]) -> dict[str, Any]:
    """All values at the end, none ever let go, none left out."""
    for stage in stages:
        rounds = range(stage.loop.first, stage.loop.end) if stage.loop else [None]
        for iteration in rounds:
            if stage.loop is not None and iteration is not None:
                if iteration == 0:
                    values |= {value: values[begin] for value, begin in stage.loop.carry.items()}
                values |= {value: ROWS[file][iteration] for value, file in stage.loop.each.items()}
            for entry in stage.calls:
                feeds = {name: values[value] for name, value in entry.inputs.items()}
                made = told(Call(entry.file, feeds, tuple(entry.outputs)))
                values |= {entry.outputs[name]: value for name, value in made.items()}
    return values


@settings(derandomize=True, deadline=None, max_examples=200)
@given(programs(), st.data())
def test_letting_go_and_leaving_out_change_no_result(
    stages: tuple[StageEntry, ...], data: st.DataObject
) -> None:
    everything = plainly(stages, {"v0": "X"})
    names = sorted(name for name in everything if not name.startswith("t"))
    wanted = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert run(stages, {"v0": "X"}, *wanted) == {name: everything[name] for name in wanted}
