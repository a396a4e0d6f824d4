"""How long each unit takes on a target: measured here by a program, read from a file, or predicted."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from splitc.bundle import Source
from splitc.cache import Cache
from splitc.errors import ProfileError
from splitc.graph import Graph
from splitc.inference import RUNTIME_VERSION, Feeds
from splitc.model import Model
from splitc.predict import predict, prediction_interval
from splitc.records import RecordError, decode, encode
from splitc.shipped import shipped
from splitc.sources import Sources
from splitc.targets import Target
from splitc.units import Partition

PROGRAM = "onnxruntime_cpu.py"
_TIMEOUT_S = 1800
# ONNX Runtime computes fp16 operators that it lacks in fp32 and calls their tensors so.
_CAST_PREFIX = "InsertedPrecisionFreeCast_"


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """A node as ONNX Runtime ran it: fused nodes bear one of the names of what they replace."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a program of `profilers/` printed: every run of the whole model and of each node.

    Attributes:
        model: SHA-256 of the profiled model, as `Model.sha256`, or of its file alone.
        whole_s: runs without profiling, which itself slows a run down; `profiled_whole_s`: with it.
    """

    splitc_profile: int
    model: str
    runtime: str
    runtime_version: str
    provider: str
    threads: int
    machine: dict[str, str | int | None]
    dims: dict[str, int]
    warmup: int
    runs: int
    whole_s: tuple[float, ...]
    profiled_whole_s: tuple[float, ...]
    nodes: tuple[NodeTimes, ...]

    def __post_init__(self) -> None:
        if self.splitc_profile != 1:
            raise ValueError(f"profile version {self.splitc_profile}, but this splitc reads version 1")
        if not self.whole_s or not self.nodes or any(not node.seconds for node in self.nodes):
            raise ValueError("the profile holds no runs")
        if min(self.whole_s) <= 0 or any(min(node.seconds) < 0 for node in self.nodes) or self.threads < 1:
            raise ValueError("the profile holds times or threads below zero")


@dataclass(frozen=True, slots=True)
class UnitTimes:
    """Seconds per unit of a graph on one target, and how they were obtained.

    Attributes:
        interval: (lowest, highest) measured over predicted; None unless predicted.
        sha256: of the profile, or of the descriptor that the prediction was made from.
        here: measured on this machine, so that parts may be timed here too.
    """

    target: str
    source: Source
    runtime: str
    runtime_version: str | None
    provider: str
    threads: int
    seconds: tuple[float, ...]
    interval: tuple[float, float] | None
    sha256: str
    here: bool = False


def measure_here(model: Model, feeds: Feeds, threads: int, dims: Mapping[str, int], cache: Cache) -> Profile:
    """Profile *model* on this machine in a process of its own, or return the profile kept from last time.

    Raises:
        ProfileError: the program failed; the message holds what it said.
    """
    program = shipped("profilers") / PROGRAM
    version = hashlib.sha256(program.read_bytes()).hexdigest()
    key = (model.sha256, "local", RUNTIME_VERSION, threads, dict(dims), version)
    with suppress(RecordError):  # absent, or damaged: then it is measured anew
        return decode(Profile, cache.get("profiles", key), "cache")
    document = _run_program(program, model, feeds, threads)
    profile = _decode(document, PROGRAM)
    cache.put("profiles", key, document)
    return profile


def read_profile(path: Path, model: Model, accepted: set[str]) -> Profile:
    """Read the profile in *path*, recorded for *model* or under another of the *accepted* digests.

    Raises:
        ProfileError: not a profile, or one of another model.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(
            f"{path}: not a JSON profile: {error}; record one with `splitc profile`"
        ) from error
    profile = _decode(value, str(path))
    if profile.model not in accepted:
        raise ProfileError(
            f"{path}: is a profile of another model ({profile.model[:12]}..., but {model.name} is "
            f"{model.sha256[:12]}...); record one with `splitc profile`"
        )
    return profile


def measured_times(
    profile: Profile, target: str, model: Model, sources: Sources, partition: Partition, *, here: bool
) -> UnitTimes:
    """Add node times up to units, scaled so that they sum to the median whole run without profiling."""
    units = _units_of_nodes(profile, sources, partition.graph)
    seconds = [0.0] * len(partition.graph.units)
    for node, unit in zip(profile.nodes, units, strict=True):
        if unit is not None:
            seconds[unit] += median(node.seconds)
    total = sum(seconds)
    if total <= 0:
        raise ProfileError(
            f"no node of the profile belongs to {model.name}; record one with `splitc profile`"
        )
    scale = median(profile.whole_s) / total
    return UnitTimes(
        target=target,
        source="measured",
        runtime=profile.runtime,
        runtime_version=profile.runtime_version,
        provider=profile.provider,
        threads=profile.threads,
        seconds=tuple(scale * value for value in seconds),
        interval=None,
        sha256=_digest(encode(profile)),
        here=here,
    )


def predicted_times(target: Target, partition: Partition, option: str = "--device-profile") -> UnitTimes:
    """Predict the units' times from the descriptor of *target*; *option* is what takes a profile instead.

    Raises:
        ProfileError: the work of a node is unknown, because a tensor it uses has no known size.
        TargetError: the target has nothing to predict from.
    """
    if partition.unsized:
        raise ProfileError(
            f"the work of node '{partition.unsized[0]}' is unknown, because a tensor that it uses has no known size; "
            f"give a profile recorded on {target.name} with {option}"
        )
    seconds = predict(partition.graph, target)
    assert target.threads is not None, "predict() refuses a target without a thread count"
    return UnitTimes(
        target=target.name,
        source="predicted",
        runtime=target.runtime,
        runtime_version=None,
        provider=target.provider,
        threads=target.threads,
        seconds=seconds,
        interval=prediction_interval(partition.graph, target),
        sha256=_digest(encode(target)),
    )


def write_profile(profile: Profile, path: Path) -> None:
    """Write *profile* as the program printed it; through a temporary name, so never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(encode(profile)) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _decode(value: object, where: str) -> Profile:
    try:
        return decode(Profile, value, where)
    except RecordError as error:
        raise ProfileError(str(error)) from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _run_program(program: Path, model: Model, feeds: Feeds, threads: int) -> object:
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **feeds)  # type: ignore[arg-type]
        command = [sys.executable, str(program), str(model.path), "--threads", str(threads)]
        command += ["--inputs", str(inputs), "--model-id", model.sha256]
        try:
            # What the program leaves in its temporary folder when it is killed goes with ours.
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                env={**os.environ, "TMPDIR": folder},
            )
        except subprocess.TimeoutExpired as error:
            raise ProfileError(f"profiling {model.name} took longer than {_TIMEOUT_S} s; give up") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [
            f"it ended with code {done.returncode}"
        ]
        raise ProfileError(f"profiling {model.name} on this machine failed: {said[-1]}")
    try:
        value: object = json.loads(done.stdout)
    except ValueError as error:
        raise ProfileError(f"profiling {model.name} on this machine printed no profile: {error}") from error
    return value


def _units_of_nodes(profile: Profile, sources: Sources, graph: Graph) -> list[int | None]:
    """The unit that each profiled node belongs to; None for one that nothing connects to a unit.

    A node is recognised by a tensor it makes, else by its own name. What ONNX Runtime inserted
    (reorders, casts, transposes) belongs to the unit that reads it, else to the one that it reads.
    """
    by_tensor: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for number, unit in enumerate(graph.units):
        for index in unit.nodes:
            source = sources.nodes[index]
            by_name[source.name or ""] = number
            by_tensor |= {output.name or "": number for output in source.outputs}
    found: list[int | None] = [_recognise(node, by_tensor, by_name) for node in profile.nodes]
    readers: dict[str, int] = {}
    for position in reversed(range(len(found))):
        node = profile.nodes[position]
        if found[position] is None:
            found[position] = next((readers[name] for name in node.outputs if name in readers), None)
        if (unit_number := found[position]) is not None:
            readers |= dict.fromkeys(node.inputs, unit_number)
    makers: dict[str, int] = {}
    for position, node in enumerate(profile.nodes):
        if found[position] is None:
            found[position] = next((makers[name] for name in node.inputs if name in makers), None)
        if (unit_number := found[position]) is not None:
            makers |= dict.fromkeys(node.outputs, unit_number)
    return found


def _recognise(node: NodeTimes, by_tensor: Mapping[str, int], by_name: Mapping[str, int]) -> int | None:
    for output in node.outputs:
        if output in by_tensor:
            return by_tensor[output]
    # At level ALL convolutions are called after the tensor they made; casts of fp16 bear a prefix.
    for name in (node.name, *node.outputs):
        plain = name.removeprefix(_CAST_PREFIX).removesuffix("_nchwc")
        if plain in by_tensor:
            return by_tensor[plain]
    return by_name.get(node.name)
