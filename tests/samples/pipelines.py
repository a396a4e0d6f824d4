"""Run pipelines stage by stage, as their description says and with nothing of splitc's run time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.stages import ModelCall, Pipeline, Stage

Array = npt.NDArray[Any]
Values = dict[str, Array]


class Runner:
    """The sessions of a pipeline."""

    def __init__(self, folder: Path) -> None:
        self.pipeline: Pipeline = load_pipeline(folder / "pipeline.toml")
        paths = {model.path for model in self.pipeline.models}
        self.sessions = {
            path: ort.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in sorted(paths)
        }

    def run(self, given: Mapping[str, Array], history: list[Values] | None = None) -> Values:
        """All values at the end; the values after each iteration are appended to *history*."""
        values = dict(given)
        for stage in self.pipeline.stages:
            self._stage(stage, values, history)
        return values

    def iterate(self, given: Mapping[str, Array], iteration: int) -> Values:
        """The values after one iteration of the loop, of everything that it reads but its rows."""
        stage = next(stage for stage in self.pipeline.stages if stage.loop is not None)
        values = {**given, **rows(stage, iteration)}
        for call in stage.calls:
            self.call(call, values)
        return values

    def call(self, call: ModelCall, values: Values) -> None:
        session = self.sessions[call.model.path]
        made = session.run(list(call.outputs), {name: values[value] for name, value in call.inputs.items()})
        values.update(zip(call.outputs.values(), map(np.asarray, made), strict=True))

    def _stage(self, stage: Stage, values: Values, history: list[Values] | None) -> None:
        if stage.loop is not None:
            values.update({value: values[begin] for value, begin in stage.loop.carry.items()})
        for iteration in range(stage.loop.times if stage.loop is not None else 1):
            values.update(rows(stage, iteration))
            for call in stage.calls:
                self.call(call, values)
            if stage.loop is not None and history is not None:
                history.append(dict(values))


def rows(stage: Stage, iteration: int) -> Values:
    return (
        {value: np.asarray(array[iteration]) for value, array in stage.loop.each.items()}
        if stage.loop
        else {}
    )


def request(runner: Runner, seed: int) -> Values:
    """Random tokens and noise of one request; its negative prompt is token 0 over and over."""
    random = np.random.Generator(np.random.PCG64(seed))
    shapes = {
        call.inputs[port.name]: [1 if isinstance(dim, str) else dim for dim in port.shape]
        for stage in runner.pipeline.stages
        for call in stage.calls
        for port in call.model.inputs()
    }
    return {
        "prompt_ids": random.integers(0, 512, shapes["prompt_ids"]),
        "negative_ids": np.zeros(shapes["negative_ids"], np.int64),
        "noise": random.standard_normal(shapes["latents"]).astype(np.float32),
    }
