# /// script
# requires-python = ">=3.9"
# dependencies = ["numpy", "onnxruntime"]
# ///
"""Time an ONNX model, node by node, on the CPU of the machine that this program runs on.

It prints one JSON document on stdout, and progress on stderr. It needs numpy and onnxruntime, but not
splitc, so this single file can be copied to any board:

    python onnxruntime_cpu.py model.onnx --threads 1,4 > profile.json
    python onnxruntime_cpu.py model.onnx --dim seq=128,256 > profile.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

# Since 1.29, official packages of ONNX Runtime send telemetry to Microsoft and leave files in the temporary
# folder. A profiler should do neither; a value that the user has set is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"
# Runs continue until the relative standard error of the median is this small, for at most PATIENCE_S.
PRECISION = 0.005
MIN_S, PATIENCE_S = 1.0, 10.0
MIN_RUNS, MAX_RUNS = 5, 1000
BLOCK_S, MAX_BLOCK = 0.05, 100  # consecutive runs of one session: seconds, number
MAX_SAMPLES = 200_000  # limit of node times in the document
# ONNX Runtime keeps the events of a session in memory until profiling ends, 2 to 3 kB each. After this number,
# another session takes its place.
MAX_EVENTS = 30_000
FLOATS = {"float16": np.float16, "float": np.float32, "double": np.float64}
INTEGERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
BFLOAT16 = 16  # onnx.TensorProto.DataType
WHOLE, BODY, KERNEL_SUFFIX = "model_run", "SequentialExecutor::Execute", "_kernel_time"
stopped: list[int] = []  # signals received that end this program


class Failure(Exception):  # noqa: N818 - the name says what happened
    """An error message for the user."""


class Node(NamedTuple):
    """A top-level node of the graph that ONNX Runtime runs."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]


class Timed(NamedTuple):
    """An event of a node; `events` counts it and the events in bodies of the node."""

    event: dict[str, Any]
    events: int


class Times(NamedTuple):
    """Seconds of each run with profiling, without it, and of a model that does nothing.

    The three are timed in turns, in blocks, so that they meet the same conditions.
    """

    profiled: list[float]
    plain: list[float]
    fixed: list[float]


def main() -> int:
    """Profile the model named on the command line; return the exit status."""
    arguments = parse_arguments()
    # When an SSH session ends, no files may stay in the board's temporary folder.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), stop)
    try:
        document = profile(arguments)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except MemoryError:
        print("out of memory; try fewer --runs", file=sys.stderr)
        return 1
    json.dump(document, sys.stdout, allow_nan=False)
    print()
    return 0


def stop(number: int, _frame: object) -> None:
    """Exit and clean up; ONNX Runtime sometimes swallows the exception, so `timed` checks `stopped` again."""
    stopped.append(number)
    sys.exit(128 + number)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="The document has one measurement for each thread count and each size of the inputs.",
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument(
        "--threads", type=counts, default=[1], metavar="N[,N...]", help="threads within a node (default 1)"
    )
    parser.add_argument(
        "--runs", type=positive, help=f"timed runs (default: until stable, {MIN_RUNS} to {MAX_RUNS})"
    )
    parser.add_argument("--warmup", type=positive, default=3, help="runs before the timed ones (default 3)")
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=SIZE[,SIZE...]",
        help="sizes of a symbolic dimension; all combinations of sizes are measured",
    )
    parser.add_argument(
        "--inputs",
        action="append",
        type=Path,
        metavar="FILE.npz",
        help="values of some or all inputs; if repeated, each file is measured",
    )
    parser.add_argument(
        "--custom-ops",
        action="append",
        default=[],
        metavar="LIBRARY",
        help="library of custom operators, or onnxruntime-extensions; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random inputs (default 0)")
    parser.add_argument(
        "--model-id", help='value of "model" in the output (default: SHA-256 of the model file)'
    )
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def counts(text: str) -> list[int]:
    return list(dict.fromkeys(positive(item) for item in text.split(",")))


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure with every thread count and size; return the document to print."""
    model_id = arguments.model_id or sha256(arguments.model)
    sizings = parse_dims(arguments.dim)
    given = [read_inputs(path) for path in arguments.inputs or []] or [{}]
    return {
        "splitc_profile": 1,
        "model": model_id,
        "source": "measured",
        "runtime": "onnxruntime",
        "runtime_version": ort.__version__,
        "provider": PROVIDER,
        "machine": machine(),
        "measurements": [
            measure(arguments, threads, dims, values)
            for threads in arguments.threads
            for dims in sizings
            for values in given
        ],
        "units": None,
    }


def measure(
    arguments: argparse.Namespace, threads: int, dims: dict[str, int], given: dict[str, Any]
) -> dict[str, Any]:
    """Time the model with and without profiling, with one thread count and one size."""
    with tempfile.TemporaryDirectory(prefix="splitc-profile-") as name:
        folder = Path(name)
        say(f"loading {arguments.model}")
        tracer = Tracer(
            lambda: load(arguments.model, with_custom_ops(options(threads, profile_into=folder), arguments))
        )
        try:
            plain = load(arguments.model, with_custom_ops(options(threads), arguments))
            fixed = ort.InferenceSession(does_nothing(), options(threads), providers=[PROVIDER])
            feeds = make_feeds(plain.get_inputs(), dims, given, arguments.seed)
            used = used_dims(plain.get_inputs(), feeds)
            binary = any("bfloat16" in value.type for value in plain.get_inputs() + plain.get_outputs())
            tracer.begin((folder / "optimized.onnx").read_bytes(), feeds, as_ort_values=binary)
            runners = (
                tracer.run,
                runner(plain, feeds, as_ort_values=binary),
                runner(fixed, {"x": np.zeros(1, np.float32)}, as_ort_values=binary),
            )
            at = "".join(f", {dim}={size}" for dim, size in used.items())
            say(f"timing with {threads} thread{'s' if threads > 1 else ''}{at}")
            max_runs = MAX_SAMPLES // max(1, len(tracer.nodes))
            times = time_runs(runners, tracer, arguments.warmup, arguments.runs, max_runs)
            tracer.read()
        finally:
            tracer.close()
    say(f"{len(times.plain)} runs, median {median(times.plain) * 1e3:.3g} ms")
    return {
        "threads": threads,
        "dims": used,
        "warmup": arguments.warmup,
        "whole_s": times.plain,
        "profiled_whole_s": times.profiled,
        "fixed_s": times.fixed,
        "nodes": tracer.documents(),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise Failure(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return digest.hexdigest()


def parse_dims(texts: list[str]) -> list[dict[str, int]]:
    """Return the sizes to measure with: all combinations of the sizes given for each dimension."""
    choices = {}
    for text in texts:
        name, _, values = text.rpartition("=")
        sizes = values.split(",")
        if not name or not all(size.isdecimal() for size in sizes):
            raise Failure(f"invalid --dim {text!r}; write NAME=SIZE[,SIZE...] with whole numbers as sizes")
        choices[name] = [int(size) for size in sizes]
    return [dict(zip(choices, sizes)) for sizes in itertools.product(*choices.values())]  # noqa: B905 - strict= needs Python 3.10


# --- sessions ---


def options(threads: int, profile_into: Path | None = None) -> ort.SessionOptions:
    """Return the options of a typical app; threads do not spin, which would slow down other programs."""
    chosen = ort.SessionOptions()
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 4  # fatal errors only: other errors are reported as Failure
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile_into is not None:
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(profile_into / "events")
        chosen.optimized_model_filepath = str(profile_into / "optimized.onnx")
        # Only names are read from that file; external weights keep it small and below protobuf's limit of 2 GB.
        prefix = "session.optimized_model_external_initializers_"
        chosen.add_session_config_entry(prefix + "file_name", "weights.bin")
        chosen.add_session_config_entry(prefix + "min_size_in_bytes", "1024")
    return chosen


def with_custom_ops(chosen: ort.SessionOptions, arguments: argparse.Namespace) -> ort.SessionOptions:
    """Add the libraries of custom operators."""
    for given in arguments.custom_ops:
        try:
            path = given
            if given == "onnxruntime-extensions":
                path = importlib.import_module("onnxruntime_extensions").get_library_path()
            chosen.register_custom_ops_library(path)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise Failure(f"cannot load the custom operators of {given}: {sentence(error)}") from error
    return chosen


def load(path: Path, chosen: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), chosen, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failure(f"ONNX Runtime {ort.__version__} cannot load {path}: {sentence(error)}") from error


def runner(session: ort.InferenceSession, feeds: dict[str, Any], *, as_ort_values: bool) -> Callable[[], Any]:
    """Return a function that runs the session once; bfloat16, which numpy lacks, needs OrtValues, a slower way."""
    names = [output.name for output in session.get_outputs()]
    if not as_ort_values:
        return lambda: session.run(names, feeds)
    types = {value.name: value.type for value in session.get_inputs()}
    values = {name: ort_value(array, types[name]) for name, array in feeds.items()}
    return lambda: session.run_with_ort_values(names, values)


def ort_value(array: Any, declared: str) -> Any:
    if "bfloat16" in declared:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def does_nothing() -> bytes:
    """Return a model with one Identity of one float: its run time is the fixed cost of a call."""
    shape = message((1, message((1, 1))))  # one dimension, of size 1
    one_float = message((1, message((1, 1), (2, shape))))
    node = message((1, b"x"), (2, b"y"), (4, b"Identity"))
    graph = message(
        (1, node),
        (2, b"nothing"),
        (11, message((1, b"x"), (2, one_float))),
        (12, message((1, b"y"), (2, one_float))),
    )
    return message((1, 4), (8, message((2, 9))), (7, graph))


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Return a protobuf message with small numbers, and strings or messages of less than 128 bytes."""
    parts = (
        bytes([number << 3, value])
        if isinstance(value, int)
        else bytes([number << 3 | 2, len(value)]) + value
        for number, value in fields
    )
    return b"".join(parts)


# --- timing ---


def time_runs(
    runners: tuple[Callable[[], Any], ...], tracer: Tracer, warmup: int, runs: int | None, max_runs: int
) -> Times:
    """Time all three in turns, in blocks: *runs* times, or until the median of the plain runs is stable.

    Without blocks, each run would find caches filled by the others, which makes a short run 1.5 times as slow or
    more. For the same reason, the first run of a block is not counted, unless runs are long.
    """
    for _ in range(warmup):
        run_s = [timed(each) for each in runners][1]
    block = max(1, min(MAX_BLOCK, round(BLOCK_S / run_s)))
    lead = int(block > 1)
    times = Times([], [], [])
    begun = time.perf_counter()
    while not enough(times.plain, runs, max_runs, time.perf_counter() - begun):
        interrupted = time.perf_counter()
        block = min(block, tracer.make_room(lead + block, warmup) - lead)
        begun += time.perf_counter() - interrupted
        count = block if runs is None else min(block, runs - len(times.plain))
        for each, samples in zip(runners, times):  # noqa: B905 - strict= needs Python 3.10
            samples.extend([timed(each) for _ in range(lead + count)][lead:])
        tracer.count(count)
    return times


def enough(samples: list[float], runs: int | None, max_runs: int, spent_s: float) -> bool:
    count = len(samples)
    if runs is not None or count < MIN_RUNS:
        return runs is not None and count >= runs
    if count >= max(MIN_RUNS, min(MAX_RUNS, max_runs)) or spent_s >= PATIENCE_S:
        return True
    if spent_s < MIN_S:
        return False
    low, middle, high = np.percentile(samples, [25, 50, 75])
    # Standard error of the median, for normally distributed times with these quartiles.
    return bool(0.93 * (high - low) / count**0.5 <= PRECISION * middle)


def timed(run: Callable[[], Any]) -> float:
    if stopped:
        sys.exit(128 + stopped[0])
    start = time.perf_counter()
    try:
        run()
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failure(f"the model cannot run with these inputs: {sentence(error)}") from error
    return round(time.perf_counter() - start, 9)


def sentence(error: Exception) -> str:
    return " ".join(str(error).split())


# --- inputs ---


def read_inputs(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, TypeError) as error:  # TypeError: a single .npy array has no __enter__
        raise Failure(f"cannot read --inputs {path} as .npz: {sentence(error)}") from error


def make_feeds(inputs: list[Any], dims: dict[str, int], given: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the given arrays, and random arrays for the other inputs."""
    require_known("--inputs", given, {value.name for value in inputs})
    require_known("--dim", dims, {dim for value in inputs for dim in value.shape if isinstance(dim, str)})
    generator = np.random.Generator(np.random.PCG64(seed))
    return {
        value.name: as_declared(given[value.name], value)
        if value.name in given
        else random_array(value, dims, generator)
        for value in inputs
    }


def as_declared(array: Any, value: Any) -> Any:
    """Return the array; in files, bfloat16 has an unknown type of two bytes, or is an unsigned integer."""
    return array.view(np.uint16) if "bfloat16" in value.type and array.dtype.itemsize == 2 else array


def require_known(option: str, given: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        has = ", ".join(sorted(known)) or "none"
        raise Failure(f"{option} names {unknown[0]!r}, but the model does not have it; it has {has}")


def random_array(value: Any, dims: dict[str, int], generator: np.random.Generator) -> Any:
    if not value.type.startswith("tensor("):
        raise Failure(f"input {value.name!r} has type {value.type}, which this program does not support")
    element = value.type[len("tensor(") : -1]
    if element not in (*FLOATS, *INTEGERS, "bfloat16", "bool"):
        raise Failure(
            f"input {value.name!r} has type {value.type}, for which there are no random values; give its value with "
            "--inputs FILE.npz"
        )
    shape = [size(value.name, axis, dim, dims) for axis, dim in enumerate(value.shape)]
    if element == "bfloat16":  # the upper half of a float
        return (generator.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if element in FLOATS:
        return generator.standard_normal(shape).astype(FLOATS[element])
    return generator.integers(0, 2, shape).astype(INTEGERS.get(element, "bool"))


def size(name: str, axis: int, dim: int | str | None, dims: dict[str, int]) -> int:
    if isinstance(dim, int) and dim >= 0:
        return dim
    if isinstance(dim, str) and dim in dims:
        return dims[dim]
    if axis == 0:
        return 1  # by convention the batch size
    if isinstance(dim, str):
        raise Failure(f"input {name!r} has a symbolic dimension {dim!r}; give its size with --dim {dim}=SIZE")
    raise Failure(
        f"input {name!r} has an unnamed dimension at axis {axis}; give a value of the input with --inputs FILE.npz"
    )


def used_dims(inputs: list[Any], feeds: dict[str, Any]) -> dict[str, int]:
    pairs = [pair for value in inputs for pair in zip(value.shape, np.shape(feeds[value.name]))]  # noqa: B905 - strict= needs Python 3.10
    return {dim: extent for dim, extent in pairs if isinstance(dim, str)}


# --- from events to nodes ---


class Tracer:
    """A session with profiling on, and the times of the model's nodes in the runs that are counted.

    A session that has recorded MAX_EVENTS is replaced by a new one, so that memory does not grow with the runs.
    """

    def __init__(self, open_session: Callable[[], ort.InferenceSession]) -> None:
        self.nodes: list[Node] = []
        self._open, self._session = open_session, open_session()
        self._run: Callable[[], Any] = lambda: None
        self._counted: list[bool] = []  # for each run of the session
        self._most_runs = 0

    def begin(self, optimized: bytes, feeds: dict[str, Any], *, as_ort_values: bool) -> None:
        """Prepare to run with *feeds* the model whose optimised graph is *optimized*."""
        self.nodes = read_nodes(optimized)
        self._feeds, self._as_ort_values = feeds, as_ort_values
        self._run = runner(self._session, feeds, as_ort_values=as_ort_values)
        # How many events a run has inside bodies is known after the first runs only.
        self._most_runs = 0 if has_bodies(optimized) else MAX_EVENTS // max(1, len(self.nodes))
        self._seconds: list[list[float]] = [[] for _ in self.nodes]
        self._events: list[list[int]] = [[] for _ in self.nodes]
        self._labels = [node.name for node in self.nodes]

    def run(self) -> None:
        """Run the model once."""
        self._run()
        self._counted.append(False)

    def count(self, last: int) -> None:
        """Count the *last* runs."""
        self._counted[-last:] = [True] * last

    def make_room(self, runs: int, warmup: int) -> int:
        """Replace the session if it has no room for *runs* more; return how many it has room for, at least two."""
        if len(self._counted) + runs > self._most_runs:
            self.read()
            self._session = self._open()
            self._run = runner(self._session, self._feeds, as_ort_values=self._as_ort_values)
            for _ in range(min(warmup, max(1, self._most_runs // 2))):
                timed(self.run)
        return max(2, min(runs, self._most_runs - len(self._counted)))

    def read(self) -> None:
        """End profiling, and add the times of the nodes in the runs that are counted."""
        path = Path(self.close())
        largest = 0
        for run, counted in zip(top_level_events(read_events(path)), self._counted):  # noqa: B905 - strict= needs Python 3.10
            largest = max(largest, sum(item.events for item in run))
            if counted:
                self._add(run)
        self._most_runs = MAX_EVENTS // max(1, largest)
        self._counted = []
        path.unlink()

    def close(self) -> str:
        """End profiling, which closes the file, so that Windows can delete it; return the path of the file."""
        if self._session is None:
            return ""
        path = str(self._session.end_profiling())
        # The memory of a session is needed for the next one.
        self._session, self._run = None, lambda: None
        return path

    def _add(self, run: list[Timed]) -> None:
        for place, item in zip(places(self.nodes, [item.event for item in run]), run):  # noqa: B905 - strict= needs Python 3.10
            self._seconds[place].append(item.event["dur"] / 1e6)
            self._events[place].append(item.events)
            self._labels[place] = kernel(item.event)

    def documents(self) -> list[dict[str, Any]]:
        """Return the nodes with their times in each run."""
        columns = zip(self.nodes, self._labels, self._seconds, self._events)  # noqa: B905 - strict= needs Python 3.10
        return [
            {
                "name": label,
                "op": node.op,
                "inputs": node.inputs,
                "outputs": node.outputs,
                "seconds": samples,
                "events": round(median(numbers)),
            }
            for node, label, samples, numbers in columns
        ]


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events in the file, one at a time; ONNX Runtime writes each in a line of its own."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = line.strip().lstrip("[").rstrip(",]")
            if text:
                yield json.loads(text)


def top_level_events(events: Iterable[dict[str, Any]]) -> Iterator[list[Timed]]:
    """Yield the node events of each run, without those inside bodies of If, Loop and Scan.

    Events are ordered by the time at which they end. A body has its own Execute event within the event of
    its node, whose time includes it; the Execute event of the main graph comes before model_run.
    """
    pending: list[Timed] = []
    executed = None
    for event in events:
        if event["name"] == WHOLE:
            yield pending
            pending, executed = [], None
        elif executed is not None:
            pending.append(Timed(executed, 1 + take(pending, executed["ts"])))
            executed = None
        if event["name"] == BODY:
            executed = event
        elif event["cat"] == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            pending.append(Timed(event, 1 + take(pending, event["ts"], of=BODY)))


def take(pending: list[Timed], since: float, of: str | None = None) -> int:
    """Remove events that began at *since* or later from the end of the list; return how many events they count."""
    count = 0
    while pending and pending[-1].event["ts"] >= since and of in (None, pending[-1].event["name"]):
        count += pending.pop().events
    return count


def places(nodes: list[Node], events: list[dict[str, Any]]) -> list[int]:
    """Return the position of the node of each event.

    Nodes are matched by name, because ONNX Runtime rejects two nodes of the same name. The event of an unnamed
    node is named after its operator and index; unnamed nodes are in the file in the order of execution.
    """
    named = {node.name: place for place, node in enumerate(nodes) if node.name}
    found = [named.get(kernel(event), position) for position, event in enumerate(events)]
    complete = sorted(found) == list(range(len(nodes)))
    if not complete or [nodes[place].op for place in found] != [event["args"]["op_name"] for event in events]:
        raise Failure(
            f"ONNX Runtime {ort.__version__} recorded events of {len(events)} nodes, which do not match the "
            f"{len(nodes)} nodes of its optimised graph; try fewer --runs"
        )
    return found


def kernel(event: dict[str, Any]) -> str:
    return str(event["name"][: -len(KERNEL_SUFFIX)])


# The board may not have the onnx package, so these functions read names from the protobuf message.


def read_nodes(data: bytes) -> list[Node]:
    """Return the top-level nodes of a serialised ModelProto."""
    nodes = []
    for graph in blocks(data, 7):  # ModelProto.graph
        for node in blocks(graph, 1):  # GraphProto.node
            inputs, outputs, names, ops = (texts(node, field) for field in (1, 2, 3, 4))
            nodes.append(Node("".join(names[-1:]), "".join(ops[-1:]), inputs, outputs))
    return nodes


def has_bodies(data: bytes) -> bool:
    """Return whether any node of a serialised ModelProto has a graph among its attributes, such as the body of a Loop."""
    nodes = (node for graph in blocks(data, 7) for node in blocks(graph, 1))
    attributes = (attribute for node in nodes for attribute in blocks(node, 5))
    return any(blocks(attribute, 6) or blocks(attribute, 11) for attribute in attributes)


def texts(data: bytes, wanted: int) -> list[str]:
    return [block.decode("utf-8") for block in blocks(data, wanted)]


def blocks(data: bytes, wanted: int) -> list[bytes]:
    """Return all length-delimited values of one field of a message."""
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            _, at = varint(data, at)
        elif wire == 2:
            length, at = varint(data, at)
            if field == wanted:
                found.append(data[at : at + length])
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise Failure(f"the optimised graph has a field of unknown wire type {wire}")
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint (base-128 number) at position *at*, and the position after it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


# --- this machine ---


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the name of the board or of the CPU; Linux on Arm often knows only the board."""
    with contextlib.suppress(OSError):
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
