"""From one model, or from the description of a pipeline with its models and arrays, to stages that fit together."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from splitc.common.arrays import read_arrays
from splitc.common.errors import ModelError
from splitc.common.files import resolved
from splitc.common.records import did_you_mean
from splitc.common.values import Array
from splitc.compile.pipeline.spec import DESCRIPTION, StageSpec, StepSpec, read_spec
from splitc.compile.pipeline.stages import Loop, ModelCall, Pipeline, Stage
from splitc.compile.pipeline.wiring import given_values, refuse_useless
from splitc.model.model import Model, load
from splitc.model.onnx_file import digest


def load_pipeline(path: Path, name: str | None = None) -> Pipeline:
    """Read the pipeline that the TOML file *path* describes, or the model *path* as a pipeline of one stage.

    Args:
        name: what to call it; by default, as the description says, or as the model's file is called.

    Raises:
        ModelError: the description or a model cannot be read, or they do not fit together.
    """
    if path.suffix != DESCRIPTION:
        return _alone(load(path, name))
    found = _described(path)
    return found if name is None else replace(found, name=name)


def files_of(path: Path, pipeline: Pipeline) -> tuple[Path, ...]:
    """Return the files that *pipeline* was read from: *path*, and the models, weights and arrays that it names."""
    found = [path, *(file for model in pipeline.models for file in (model.path, *model.external))]
    for stage in read_spec(path).stage if path.suffix == DESCRIPTION else ():
        found += [path.parent / step.model for step in stage.steps]
        arrays = (described.partition(".npz:") for described in stage.each.values())
        found += [path.parent / (f"{name}.npz" if archived else name) for name, archived, _ in arrays]
    return tuple(dict.fromkeys(found))


def _alone(model: Model) -> Pipeline:
    """The pipeline that is nothing but *model*; values have the model's own names."""
    inputs, outputs = tuple(item.name for item in model.inputs()), model.outputs()
    call = ModelCall(model, {name: name for name in inputs}, {name: name for name in outputs})
    stage = Stage(model.name, (call,), None)
    return Pipeline(model.path, model.name, (stage,), inputs, outputs, model.sha256, (model,))


def _described(path: Path) -> Pipeline:
    spec = read_spec(path)
    models: dict[Path, Model] = {}
    stages = []
    for described in spec.stage:
        calls = tuple(_call(path, described, step, models) for step in described.steps)
        stages.append(Stage(described.name, calls, _loop(path, described)))
    inputs = given_values(path, spec, stages)
    refuse_useless(path, spec, stages)
    alike: dict[str, Model] = {}
    for model in models.values():
        alike.setdefault(model.sha256, model)
    return Pipeline(
        path, spec.name, tuple(stages), inputs, spec.outputs, _sha256(path, stages), tuple(alike.values())
    )


def _call(path: Path, stage: StageSpec, step: StepSpec, models: dict[Path, Model]) -> ModelCall:
    file = path.parent / step.model
    where = resolved(file)
    if where is None:
        raise ModelError(
            f"{path}: stage '{stage.name}': '{step.model}' is not the name of a file, or is a link to itself"
        )
    if where not in models:
        models[where] = load(file)
    model = models[where]
    inputs = [item.name for item in model.inputs()]
    for given, known, what in (
        (step.inputs, inputs, "input"),
        (step.outputs, model.outputs(), "output"),
    ):
        wrong = next((name for name in given if name not in known), None)
        if wrong is not None:
            raise ModelError(
                f"{path}: stage '{stage.name}': {step.model} has no {what} '{wrong}'"
                f"{did_you_mean(wrong, known) or ';'} it has {', '.join(known)}"
            )
    return ModelCall(
        model,
        {name: step.inputs.get(name, name) for name in inputs},
        {name: step.outputs.get(name, name) for name in model.outputs()},
    )


def _loop(path: Path, stage: StageSpec) -> Loop | None:
    if stage.times is None:
        return None
    return Loop(
        stage.times,
        stage.carry,
        {value: _rows(path, stage, value, file) for value, file in stage.each.items()},
    )


def _rows(path: Path, stage: StageSpec, value: str, described: str) -> Array:
    """The array that *described* names: "file.npy", or "file.npz:key"."""
    where = f"{path}: stage '{stage.name}': each '{value}'"
    name, archived, key = described.partition(".npz:")
    file = path.parent / (f"{name}.npz" if archived else described)
    try:
        loaded = read_arrays(file)
    except FileNotFoundError as error:
        raise ModelError(f"{where}: there is no file {file}; check the path") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{where}: {file} is not a NumPy array ({error}); write it with numpy.save"
        ) from error
    if isinstance(loaded, np.ndarray):
        if archived:
            raise ModelError(f"{where}: {file} holds one array, not several; give its path without ':{key}'")
        rows: Array = loaded
    else:
        if key not in loaded:
            hint = did_you_mean(key, loaded) or ";"
            raise ModelError(
                f"{where}: {file} holds {', '.join(loaded)}, not '{key}'{hint} write it as file.npz:key"
            )
        rows = loaded[key]
    if rows.dtype.kind not in "fiub":
        raise ModelError(f"{where}: {file} holds {rows.dtype.name}, but must hold numbers")
    if not rows.ndim or len(rows) != stage.times:
        found = f"{len(rows)} rows" if rows.ndim else "a single number"
        raise ModelError(
            f"{where}: needs a row for each of the {stage.times} iterations, but {file} has {found}"
        )
    return rows


def _sha256(path: Path, stages: Sequence[Stage]) -> str:
    models = [call.model.sha256 for stage in stages for call in stage.calls]
    arrays = [
        hashlib.sha256(f"{rows.dtype.str}{rows.shape}".encode() + rows.tobytes()).hexdigest()
        for stage in stages
        if stage.loop is not None
        for _, rows in sorted(stage.loop.each.items())
    ]
    parts = [digest([path]), *models, *arrays]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
