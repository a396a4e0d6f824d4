"""Measure the cost of `splitc compile`: its stages, solving and writing, and memory with a large model.

    python benchmarks/bench.py                      # everything; a large model is generated (3.4 GB)
    python benchmarks/bench.py --large unet.onnx    # another large model, such as Stable Diffusion's UNet

Times are medians of runs in one process; on a shared machine, compare only ratios.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from splitc.bundle.weights import weight_pool
from splitc.common.cache import Cache
from splitc.common.kinds import Direction
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.compile.parts import head_part, prepare, tail_part, write_part
from splitc.model.analysis import AnalysisOptions, analyse
from splitc.model.graph import Graph, Tensor, Unit
from splitc.profile.targets.description import load_target
from splitc.profile.unit_times import predicted_times
from splitc.samples.catalogue import write_sample
from splitc.solve.costs import Box, Costs
from splitc.solve.solve import solve

RUNS = 5
LARGE_LAYERS, LARGE_WIDTH = 205, 2048
CONSOLE = Console(width=120, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--large", type=Path, help="a model with external data, instead of the generated one")
    parser.add_argument("--skip-large", action="store_true", help="do not compile a large model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="splitc-bench-") as name:
        folder = Path(name)
        stage_times(folder)
        solve_and_emit(folder)
        solve_large()
        if not arguments.skip_large:
            memory(folder, arguments.large or large_model(folder))


# --- stages of the sample model ---


def stage_times(folder: Path) -> None:
    """Compile the sample model with an empty cache and with a full one."""
    model = folder / "regnet.onnx"
    write_sample("regnet_y_400mf", model)
    cache = Cache(folder / "cache")
    first = stages_of(model, folder / "out", cache)
    again = [stages_of(model, folder / "out", cache) for _ in range(3)]
    table = Table(title="regnet_y_400mf, seconds by stage", title_justify="left")
    for column in ("stage", "empty cache", "full cache"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, seconds in first.items():
        table.add_row(stage, f"{seconds:.2f}", f"{median(run[stage] for run in again):.2f}")
    table.add_row("all", f"{sum(first.values()):.2f}", f"{median(sum(run.values()) for run in again):.2f}")
    CONSOLE.print(table)


def stages_of(model: Path, out: Path, cache: Cache) -> dict[str, float]:
    marks: list[tuple[str, float]] = []
    options = CompileOptions(AnalysisOptions({}), "pixel7")
    compile_bundle(model, out, options, cache, lambda text: marks.append((text, time.perf_counter())))
    ends = [start for _, start in marks[1:]] + [time.perf_counter()]
    return {text: end - start for (text, start), end in zip(marks, ends, strict=True)}


# --- solving and writing ---


def solve_and_emit(folder: Path) -> None:
    """Solve and write a residual network of 1,000 nodes, and the sample model."""
    table = Table(title="solve and write, median seconds", title_justify="left")
    for column in ("model", "nodes", "units", "frontier", "cuts", "solve", "write"):
        table.add_column(column, justify="left" if column == "model" else "right")
    models = [("residual_1000", residual_model(folder, 200)), ("regnet_y_400mf", folder / "regnet.onnx")]
    for name, path in models:
        table.add_row(name, *_solve_and_emit(path, folder / f"{name}-parts"))
    CONSOLE.print(table)


def _solve_and_emit(path: Path, folder: Path) -> tuple[str, ...]:
    folder.mkdir()
    found = analyse(path, AnalysisOptions({}, simplify=False), folder, Cache(None), lambda _: None)
    graph = found.partition.graph
    head_s = predicted_times(load_target("pixel7"), found.partition).seconds
    costs = Costs(graph, head_s, tuple(seconds / 5 for seconds in head_s))
    cut_set = solve(costs, Box())

    def write() -> None:
        with weight_pool(folder) as pool:
            emitter = prepare(found.model, graph, found.sources, found.sizes, pool)
        for number, cut in enumerate(cut_set.cuts):
            for side, part in (("head", head_part(emitter, cut)), ("tail", tail_part(emitter, cut))):
                if part is not None:
                    write_part(emitter, part, folder / f"{side}-c{number}.onnx")

    solving = median(timed(lambda: solve(costs, Box())) for _ in range(RUNS))
    writing = median(timed(write) for _ in range(RUNS))
    counts = (len(found.sources.nodes), len(graph.units), len(cut_set.frontier), len(cut_set.cuts))
    return (*map(str, counts), f"{solving:.3f}", f"{writing:.3f}")


def solve_large() -> None:
    """Solve for networks of many units: a chain with skips, and one with side units along its whole length."""
    table = Table(title="solve, median seconds", title_justify="left")
    for column in ("network", "units", "frontier", "device-first", "both directions"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, units, every in (("chain", 3_000, 0), ("chain", 10_000, 0), ("side units", 3_000, 20)):
        costs = network_costs(units, every)
        counts = (len(costs.graph.units), len(solve(costs, Box()).frontier))
        one, both = zip(*((_solve_s(costs, 1), _solve_s(costs, 2)) for _ in range(RUNS)), strict=True)
        table.add_row(name, *map(str, counts), f"{median(one):.3f}", f"{median(both):.3f}")
    CONSOLE.print(table)


def _solve_s(costs: Costs, directions: int) -> float:
    chosen: list[Direction] = ["device-first", "cloud-first"]
    return timed(lambda: solve(costs, Box(), directions=chosen[:directions]))


def network_costs(units: int, every: int) -> Costs:
    """Return a residual network; *every* so many units, one depends on the first unit only, as in a diffusion model."""
    random = np.random.default_rng(0)
    reads: list[list[int]] = [[0]]
    while len(reads) < units:
        last, at = len(reads), len(reads)
        if every and at % every == 1 and at > 1:
            reads += [[1], [last, at + 1]]
        else:
            reads.append([last, max(1, last - 4)] if at % 5 == 4 else [last])
    consumers: list[list[int]] = [[] for _ in range(len(reads) + 1)]
    for unit, read in enumerate(reads):
        for tensor in sorted(set(read)):
            consumers[tensor].append(unit)
    sizes = [int(10 ** random.uniform(4, 6)) for _ in consumers]
    tensors = tuple(
        Tensor(f"t{at}", "float32", (1,), size, at - 1 if at else None, tuple(readers), not readers)
        for at, (size, readers) in enumerate(zip(sizes, consumers, strict=True))
    )
    made = tuple(
        Unit(f"u{at}", (at,), tuple(sorted(set(read))), (at + 1,), (), (), 0) for at, read in enumerate(reads)
    )
    head_s = tuple(10 ** random.uniform(-5, -3) for _ in reads)
    return Costs(Graph(made, tensors, (), frozenset()), head_s, tuple(value / 10 for value in head_s))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def residual_model(folder: Path, blocks: int) -> Path:
    """Write a residual CNN with five nodes per block, whose resolution decreases as in a classifier."""
    random = np.random.default_rng(0)
    nodes, weights, x, channels = [], [], "image", 16
    for block in range(blocks):
        stride = 2 if block % (blocks // 4) == blocks // 8 else 1
        for number in (1, 2):
            filters = random.standard_normal((channels, channels, 3, 3), np.float32) / 12
            weights.append(numpy_helper.from_array(filters, f"w{block}_{number}"))
        name = f"b{block}"
        nodes += [
            helper.make_node(
                "Conv", [x, f"w{block}_1"], [f"{name}_c1"], strides=[stride, stride], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", [f"{name}_c1"], [f"{name}_r"]),
            helper.make_node("Conv", [f"{name}_r", f"w{block}_2"], [f"{name}_c2"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", [f"{name}_c2", f"{name}_r"], [f"{name}_add"]),
            helper.make_node("Relu", [f"{name}_add"], [name]),
        ]
        x = name
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, 64, 64])
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "residual", [image], [result], weights)
    path = folder / "residual.onnx"
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    return path


# --- memory with a large model ---


def memory(folder: Path, model: Path) -> None:
    """Compile with recorded profiles and cached units; report time and peak memory of the process."""
    cache, profile = folder / "cache", folder / "large.profile.json"
    nbytes = sum(path.stat().st_size for path in (model, *model.parent.glob(model.name + ".data")))
    run("profile", model, "-o", profile, "--cache-dir", folder / "profiles")
    common = [model, "--device", "pixel7", "--cloud-profile", profile, "--cache-dir", cache, "--no-verify"]
    run("compile", *common, "-o", folder / "first")  # finds the units and keeps them
    start = time.perf_counter()
    peak = run("compile", *common, "-o", folder / "second")
    seconds = time.perf_counter() - start
    CONSOLE.print(f"{model.name}, {nbytes / 1e9:.2f} GB: compiled from recorded profiles in {seconds:.1f} s")
    CONSOLE.print(f"peak memory {peak / 1e6:.0f} MB, {100 * peak / nbytes:.0f} % of the model's size")


def run(*arguments: object) -> int:
    """Run splitc; return its peak resident bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "splitc", *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"splitc {arguments[0]} failed")
    return usage.ru_maxrss * 1024


def large_model(folder: Path) -> Path:
    """Write a stack of matrix products as large as Stable Diffusion 1.5's UNet in fp32 (3.4 GB), with external data."""
    path, random = folder / "large.onnx", np.random.default_rng(0)
    size = LARGE_WIDTH * LARGE_WIDTH * 4
    nodes, weights, x = [], [], "x"
    with (folder / "large.onnx.data").open("wb") as data:
        block = random.standard_normal((LARGE_WIDTH, LARGE_WIDTH), np.float32) / LARGE_WIDTH**0.5
        for layer in range(LARGE_LAYERS):
            data.write(np.roll(block, layer).tobytes())
            weight = TensorProto(
                name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[LARGE_WIDTH, LARGE_WIDTH]
            )
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.onnx.data"), ("offset", layer * size), ("length", size)):
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [x, f"w{layer}"], [f"m{layer}"]))
            nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"t{layer}"]))
            x = f"t{layer}"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, LARGE_WIDTH])
    made = helper.make_tensor_value_info(x, TensorProto.FLOAT, [16, LARGE_WIDTH])
    graph = helper.make_graph(nodes, "large", [given], [made], weights)
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    return path


if __name__ == "__main__":
    main()
