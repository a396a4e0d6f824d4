"""A made-up profile document, for tests of whatever reads one."""

from typing import Any

from splitc.model.graph import Work
from splitc.profile.document import MachineFacts, Measurement, NodeTimes, Profile, UnitRun


def node(name: str = "n", **changes: Any) -> NodeTimes:
    """A node that took one second, unless told otherwise."""
    values: dict[str, Any] = {"op": "Tanh", "inputs": ("x",), "outputs": ("a",), "seconds": (1.0,)}
    return NodeTimes(name=name, **(values | changes))


def measurement(**changes: Any) -> Measurement:
    """One run of one second on one thread, unless told otherwise."""
    values: dict[str, Any] = {
        "threads": 1,
        "dims": {},
        "warmup": 1,
        "whole_s": (1.0,),
        "profiled_whole_s": (1.0,),
        "fixed_s": (),
        "nodes": (node(),),
    }
    return Measurement(**(values | changes))


def profile(*measurements: Measurement, **changes: Any) -> Profile:
    """A profile of a model of no consequence, with one measurement unless others are given."""
    values: dict[str, Any] = {
        "splitc_profile": 1,
        "model": "0" * 64,
        "source": "measured",
        "runtime": "onnxruntime",
        "runtime_version": "1.0",
        "provider": "CPUExecutionProvider",
        "machine": MachineFacts("Linux", "x86_64", "some processor", 2, "3.11.0"),
        "measurements": measurements or (measurement(),),
        "units": None,
    }
    return Profile(**(values | changes))


def full() -> Profile:
    """A profile in which every part of the document occurs."""
    one = measurement(dims={"seq": 8}, fixed_s=(0.0, 1e-5), nodes=(node(events=3), node("m")))
    work = Work("Conv", "pointwise", 1, 2, 3, 1)
    return profile(one, measurement(nodes=()), units=(UnitRun("u", (work,), (0.5, None)),))
