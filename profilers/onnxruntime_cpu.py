# /// script
# requires-python = ">=3.9"
# dependencies = ["numpy", "onnxruntime"]
# ///
"""Time an ONNX model, node by node, on the CPU of the machine this program runs on.

Prints one JSON document on stdout and progress on stderr. Needs numpy and onnxruntime, and nothing
of splitc, so that this one file can be copied to any board:

    python onnxruntime_cpu.py model.onnx --threads 4 > profile.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Since 1.29 the official packages send model names and session facts to Microsoft, and leave files in the
# temporary folder. A profile should do neither; whoever sets the variable otherwise keeps their choice.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"
BUDGET_S = 2.0
MIN_RUNS, MAX_RUNS = 5, 50
FLOATS = {"float16": np.float16, "float": np.float32, "double": np.float64}
INTEGERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
KERNEL_SUFFIX = "_kernel_time"
stopped: list[int] = []  # the signals that asked this program to end


class Failure(Exception):  # noqa: N818 - the name says what happened
    """One sentence for the person who started this program."""


class Node(NamedTuple):
    """A top-level node of the graph as ONNX Runtime runs it."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]


def main() -> int:
    """Profile the model named on the command line; return the exit status."""
    arguments = parse_arguments()
    # An SSH session that goes away must not leave profiles in the board's temporary folder.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), stop)
    try:
        document = profile(arguments)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    json.dump(document, sys.stdout, allow_nan=False)
    print()
    return 0


def stop(number: int, _frame: object) -> None:
    """Leave, cleaning up on the way; ONNX Runtime now and then swallows this, so `run` looks again."""
    stopped.append(number)
    sys.exit(128 + number)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument("--threads", type=positive, default=1, help="threads within a node (default 1)")
    parser.add_argument(
        "--runs", type=positive, help=f"timed runs (default: about {BUDGET_S:g} s, {MIN_RUNS} to {MAX_RUNS})"
    )
    parser.add_argument("--warmup", type=positive, default=3, help="runs before the timed ones (default 3)")
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=VALUE", help="size of a symbolic dimension"
    )
    parser.add_argument("--inputs", type=Path, metavar="FILE.npz", help="values of some or all inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    parser.add_argument("--model-id", help='printed as "model" (default: SHA-256 of the model file)')
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the model with and without profiling; return the document to print."""
    path, threads = arguments.model, arguments.threads
    model_id = arguments.model_id or sha256(path)
    dims = parse_dims(arguments.dim)
    with tempfile.TemporaryDirectory(prefix="splitc-profile-") as folder:
        say(f"loading {path}")
        profiled = load(path, options(threads, profile_into=Path(folder)))
        try:
            plain = load(path, options(threads))
            feeds = make_feeds(plain.get_inputs(), dims, read_inputs(arguments.inputs), arguments.seed)
            profiled_whole_s, whole_s = time_runs(profiled, plain, feeds, arguments.warmup, arguments.runs)
        finally:
            events_path = profiled.end_profiling()  # closes the file, so that Windows can delete it
        events = json.loads(Path(events_path).read_text(encoding="utf-8"))
        nodes = read_nodes((Path(folder) / "optimized.onnx").read_bytes())
    return {
        "splitc_profile": 1,
        "model": model_id,
        "runtime": "onnxruntime",
        "runtime_version": ort.__version__,
        "provider": PROVIDER,
        "threads": threads,
        "machine": machine(),
        "dims": used_dims(plain.get_inputs(), feeds),
        "warmup": arguments.warmup,
        "runs": len(whole_s),
        "whole_s": whole_s,
        "profiled_whole_s": profiled_whole_s,
        "nodes": attribute(nodes, top_level_events(events)[-len(whole_s) :]),
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
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def parse_dims(texts: list[str]) -> dict[str, int]:
    dims = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if not name or not value.isdecimal() or int(value) < 1:
            raise Failure(f"--dim wants NAME=VALUE with a value of at least 1, not {text!r}")
        dims[name] = int(value)
    return dims


# --- sessions ---


def options(threads: int, profile_into: Path | None = None) -> ort.SessionOptions:
    """ONNX Runtime as an app would deploy it; spinning threads hurt everything else on the machine."""
    chosen = ort.SessionOptions()
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 4  # its messages reach the user as one sentence, through Failure
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile_into is not None:
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(profile_into / "events")
        chosen.optimized_model_filepath = str(profile_into / "optimized.onnx")
        # Only names are read from that file: weights beside it keep it small, and below protobuf's 2 GB.
        prefix = "session.optimized_model_external_initializers_"
        chosen.add_session_config_entry(prefix + "file_name", "weights.bin")
        chosen.add_session_config_entry(prefix + "min_size_in_bytes", "1024")
    return chosen


def load(path: Path, chosen: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), chosen, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failure(f"ONNX Runtime {ort.__version__} cannot load {path}: {sentence(error)}") from error


def run(session: ort.InferenceSession, feeds: dict[str, Any]) -> float:
    if stopped:
        sys.exit(128 + stopped[0])
    start = time.perf_counter()
    try:
        session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failure(f"the model does not run on these inputs: {sentence(error)}") from error
    return time.perf_counter() - start


def sentence(error: Exception) -> str:
    return " ".join(str(error).split())


def time_runs(
    profiled: ort.InferenceSession,
    plain: ort.InferenceSession,
    feeds: dict[str, Any],
    warmup: int,
    runs: int | None,
) -> tuple[list[float], list[float]]:
    """Return whole-run times with and without profiling, taken in turns so that both see the same machine."""
    for _ in range(warmup):
        pair_s = run(profiled, feeds) + run(plain, feeds)
    if runs is None:
        runs = max(MIN_RUNS, min(MAX_RUNS, int(BUDGET_S / pair_s)))
    say(f"{runs} runs of about {pair_s / 2 * 1e3:.3g} ms, with and without profiling")
    pairs = [(run(profiled, feeds), run(plain, feeds)) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


# --- inputs ---


def read_inputs(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, TypeError) as error:  # TypeError: a bare .npy is no context manager
        raise Failure(f"cannot read --inputs {path} as .npz: {sentence(error)}") from error


def make_feeds(inputs: list[Any], dims: dict[str, int], given: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the given arrays, and random ones for the other inputs."""
    require_known("--inputs", given, {value.name for value in inputs})
    require_known("--dim", dims, {dim for value in inputs for dim in value.shape if isinstance(dim, str)})
    generator = np.random.Generator(np.random.PCG64(seed))
    feeds = {}
    for value in inputs:
        feeds[value.name] = given[value.name] if value.name in given else random_array(value, dims, generator)
    return feeds


def require_known(option: str, given: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        has = ", ".join(sorted(known)) or "none"
        raise Failure(f"{option} names {unknown[0]!r}, which the model lacks; it has {has}")


def random_array(value: Any, dims: dict[str, int], generator: np.random.Generator) -> Any:
    element = value.type[len("tensor(") : -1] if value.type.startswith("tensor(") else value.type
    if element not in FLOATS and element not in INTEGERS and element != "bool":
        raise Failure(f"input {value.name!r} is a {value.type}: give its value with --inputs FILE.npz")
    shape = [size(value.name, axis, dim, dims) for axis, dim in enumerate(value.shape)]
    if element in FLOATS:
        return generator.standard_normal(shape).astype(FLOATS[element])
    return generator.integers(0, 2, shape).astype(INTEGERS.get(element, "bool"))


def size(name: str, axis: int, dim: int | str | None, dims: dict[str, int]) -> int:
    if isinstance(dim, int) and dim >= 0:
        return dim
    if isinstance(dim, str) and dim in dims:
        return dims[dim]
    if axis == 0:
        return 1  # by custom the batch
    if isinstance(dim, str):
        raise Failure(f"input {name!r} has the free dimension {dim!r}: give --dim {dim}=VALUE")
    raise Failure(
        f"input {name!r} has a free dimension at axis {axis}: give its value with --inputs FILE.npz"
    )


def used_dims(inputs: list[Any], feeds: dict[str, Any]) -> dict[str, int]:
    pairs = [pair for value in inputs for pair in zip(value.shape, np.shape(feeds[value.name]))]  # noqa: B905 - strict= needs Python 3.10
    return {dim: extent for dim, extent in pairs if isinstance(dim, str)}


# --- from events to nodes ---


def top_level_events(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the node events of each run, without those inside bodies of If, Loop and Scan.

    Events come in the order in which they end. A body is an Execute of its own within the node's
    event, so the node's time holds its body's; the Execute of the main graph precedes model_run.
    """
    runs: list[list[dict[str, Any]]] = []
    pending: list[dict[str, Any]] = []
    executed = None
    for event in events:
        if event["name"] == "model_run":
            runs.append(pending)
            pending, executed = [], None
        elif executed is not None:
            while pending and pending[-1]["ts"] >= executed["ts"]:
                pending.pop()
            executed = None
        if event["name"] == "SequentialExecutor::Execute":
            executed = event
        elif event["cat"] == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            pending.append(event)
    return runs


def attribute(nodes: list[Node], runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give each node its time in each run."""
    seconds: list[list[float]] = [[] for _ in nodes]
    labels = [node.name for node in nodes]
    for events in runs:
        for place, event in zip(places(nodes, events), events):  # noqa: B905 - strict= needs Python 3.10
            seconds[place].append(event["dur"] / 1e6)
            labels[place] = kernel(event)
    return [
        {"name": label, "op": node.op, "inputs": node.inputs, "outputs": node.outputs, "seconds": samples}
        for node, label, samples in zip(nodes, labels, seconds)  # noqa: B905 - strict= needs Python 3.10
    ]


def places(nodes: list[Node], events: list[dict[str, Any]]) -> list[int]:
    """Return the position of each event's node.

    Names decide: ONNX Runtime refuses two nodes of one name. A node may have none, and its event is
    then named after operator and index; such nodes stand in the file in the order in which they run.
    """
    named = {node.name: place for place, node in enumerate(nodes) if node.name}
    found = [named.get(kernel(event), position) for position, event in enumerate(events)]
    complete = sorted(found) == list(range(len(nodes)))
    if not complete or [nodes[place].op for place in found] != [event["args"]["op_name"] for event in events]:
        raise Failure(
            f"ONNX Runtime {ort.__version__} profiled {len(events)} nodes that do not match the "
            f"{len(nodes)} of its optimised graph; try fewer --runs"
        )
    return found


def kernel(event: dict[str, Any]) -> str:
    return str(event["name"][: -len(KERNEL_SUFFIX)])


# A target has no onnx package, and names are all that is wanted: forty lines read them from protobuf.


def read_nodes(data: bytes) -> list[Node]:
    """Return the top-level nodes of a serialised ModelProto."""
    nodes = []
    for graph in blocks(data, 7):  # ModelProto.graph
        for node in blocks(graph, 1):  # GraphProto.node
            inputs, outputs, names, ops = (texts(node, field) for field in (1, 2, 3, 4))
            nodes.append(Node("".join(names[-1:]), "".join(ops[-1:]), inputs, outputs))
    return nodes


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
    """Return the base-128 number at a position, and the position after it."""
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
    """Name the board or the CPU; Linux on Arm often knows only the board."""
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
