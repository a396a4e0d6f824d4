"""Tensors as models declare them, under the names of the pipeline."""

from collections.abc import Mapping

import numpy as np

from splitc.common.errors import ModelError
from splitc.common.values import Array, Input, Value
from splitc.compile.pipeline.stages import Pipeline, Stage


def declared_inputs(pipeline: Pipeline) -> tuple[Input, ...]:
    """The pipeline's inputs, as the models that read them declare them; the strictest declaration, axis by axis."""
    found: dict[str, Input] = {}
    for stage in pipeline.stages:
        begins = stage.loop.carry if stage.loop is not None else {}
        for call in stage.calls:
            for item in call.model.inputs():
                value = call.inputs[item.name]
                name = begins.get(value, value)
                if name in pipeline.inputs:
                    declared = Input(name, item.dtype, item.shape)
                    found[name] = _both(pipeline, found.get(name, declared), declared, stage)
    return tuple(found[name] for name in pipeline.inputs)


def _both(pipeline: Pipeline, one: Input, other: Input, stage: Stage) -> Input:
    fits = len(one.shape) == len(other.shape) and all(
        left == right or isinstance(left, str) or isinstance(right, str)
        for left, right in zip(one.shape, other.shape, strict=True)
    )
    if one.dtype != other.dtype or not fits:
        raise ModelError(
            f"{pipeline.path}: stage '{stage.name}' takes '{one.name}' as {shown(other.dtype, other.shape)}, but "
            f"an earlier stage takes it as {shown(one.dtype, one.shape)}"
        )
    shape = tuple(
        right if isinstance(left, str) and not isinstance(right, str) else left
        for left, right in zip(one.shape, other.shape, strict=True)
    )
    return Input(one.name, one.dtype, shape)


def renamed(shape: tuple[int | str, ...], dim_names: Mapping[str, str]) -> tuple[int | str, ...]:
    """*shape* with a model's symbolic dimensions as the pipeline calls them."""
    return tuple(dim_names.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)


def fits(value: Value, item: Input) -> bool:
    """Whether *value* has the type and shape that the model declares for *item*."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype.name == item.dtype
        and value.ndim == len(item.shape)
        and all(
            isinstance(dim, str) or dim == size for dim, size in zip(item.shape, value.shape, strict=True)
        )
    )


def described(value: Array) -> str:
    """The type and shape of *value*, for people."""
    return shown(value.dtype.name, value.shape)


def shown(dtype: str | None, shape: tuple[int | str, ...]) -> str:
    """A type and a shape, for people."""
    return f"{dtype or 'not a numeric tensor'} [{', '.join(map(str, shape))}]"
