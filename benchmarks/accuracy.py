"""Measure how accurate profiles are: for whole models, and for heads and tails cut from them.

    python benchmarks/accuracy.py                           # models in ../shared/models, and the samples
    python benchmarks/accuracy.py --models FOLDER --models model.onnx --threads 1

Each model is profiled. Before and after, separate processes run the whole model, and then the heads and tails of
some of its cuts, in blocks that alternate with the whole model. A table compares the times in the profile with
these runs. Parts under 0.3 ms are listed separately, because the fixed cost of a call dominates there. On a
shared machine, run this while the machine is idle.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from rich.console import Console
from rich.table import Table

from splitc.bundle.weights import weight_pool
from splitc.common import ort
from splitc.common.cache import Cache
from splitc.common.errors import SplitcError
from splitc.common.values import Feeds, random_feeds
from splitc.compile.parts import Emitter, head_part, prepare, tail_part, write_part
from splitc.model.analysis import Analysis, AnalysisOptions, analyse
from splitc.model.model import fix_dims, load
from splitc.profile.attribution import measured_times
from splitc.profile.document import UnitTimes
from splitc.profile.measure.job import ProfileJob, write_feeds
from splitc.profile.measure.local import profile_here
from splitc.samples.catalogue import write_sample
from splitc.solve.costs import Box, Costs
from splitc.solve.cuts import Cut, make_cut
from splitc.solve.solve import solve

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
SAMPLES = ("regnet_y_400mf", "tiny_cnn")
DIMS = {
    "silero_vad": {"input:1": 576, "state:1": 1},
    "silero_vad_op18": {"batch": 1, "sequence": 576},
    "tiny_distilbert": {"sequence": 32},
    "bert_tiny_dyn": {"seq": 32},
}
GIVEN = {"silero_vad": {"sr": 16000}, "silero_vad_op18": {"sr": 16000}}  # a sampling rate cannot be random
SHORT_S = 3e-4
SLOW_S = 0.3  # parts of slower models are not measured, because they would take most of the time
TIMED_S, MIN_RUNS = 1.0, 15
BRACKET = 2  # processes before a profile, and after it: their times differ by a few percent
BLOCK_S, MAX_BLOCK = 0.05, 100  # consecutive runs of one model: seconds, number
CONSOLE = Console(width=120, highlight=False)


@dataclass(frozen=True, slots=True)
class Compared:
    """The profiled and the measured time of a model or part.

    `drift` is the measured time of the whole model over its profiled time.
    """

    what: str
    threads: int
    said_s: float
    took_s: float
    drift: float

    @property
    def error(self) -> float:
        """Relative error of the profile."""
        return self.said_s / self.took_s - 1

    @property
    def steady_error(self) -> float:
        """Relative error of the profile, corrected for the drift of the whole model."""
        return self.said_s * self.drift / self.took_s - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, action="append", help="a folder of models, or a model")
    parser.add_argument("--threads", default="1,2", help="thread counts (default 1,2)")
    parser.add_argument("--cuts", type=int, default=2, help="cuts of each model (default 2)")
    parser.add_argument("--runs", type=int, help="runs of each profile (default: until stable)")
    parser.add_argument("--json", type=Path, help="keep every comparison in this file")
    parser.add_argument("--time", nargs="+", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads = tuple(map(int, arguments.threads.split(",")))
    if arguments.time:
        print(json.dumps(time_in_turns(arguments.time, threads[0])))
        return
    wholes, again, parts = [], [], []
    with tempfile.TemporaryDirectory(prefix="splitc-bench-") as name:
        for path in find_models(arguments.models, Path(name)):
            try:
                compared = compare(path, threads, arguments.cuts, arguments.runs)
            except SplitcError as error:
                CONSOLE.print(f"{path.stem}: left out: {error}")
                continue
            wholes += compared[0]
            again += compared[1]
            parts += compared[2]
            show_progress(path, compared[0], compared[2])
    show(wholes, again, parts)
    if arguments.json:
        rows = [[item.what, item.threads, item.said_s, item.took_s, item.drift] for item in (*wholes, *parts)]
        arguments.json.write_text(json.dumps(rows), encoding="utf-8")


def find_models(given: Sequence[Path] | None, folder: Path) -> Iterable[Path]:
    if given is None and not MODELS.is_dir():
        CONSOLE.print(f"{MODELS} does not exist, so only the samples of splitc are measured")
    for path in given or [MODELS]:
        yield from [path] if path.is_file() else sorted(path.glob("*.onnx"))
    if given is None:
        for name in SAMPLES:
            write_sample(name, folder / f"{name}.onnx")
            yield folder / f"{name}.onnx"


# --- one model ---


def compare(
    path: Path, threads: tuple[int, ...], cuts: int, runs: int | None
) -> tuple[list[Compared], list[Compared], list[Compared]]:
    """Profile the model at *path*; return comparisons of the whole model, of its runs with each other, and of parts."""
    wholes: list[Compared] = []
    again: list[Compared] = []
    parts: list[Compared] = []
    with tempfile.TemporaryDirectory(prefix="splitc-bench-") as name:
        folder = Path(name)
        options = AnalysisOptions(DIMS.get(path.stem, {}), samples(path, folder))
        found = analyse(path, options, folder, Cache(None), lambda _: None)
        inputs = folder / "inputs.npz"
        write_feeds(found.feeds[0], inputs)
        emitted = folder / "parts"
        emitted.mkdir()
        with weight_pool(emitted) as pool:
            emitter = prepare(found.model, found.partition.graph, found.sources, found.sizes, pool)
        for number in threads:
            took = [in_another_process([found.model.path], inputs, number)[0] for _ in range(BRACKET)]
            profile = profile_here(ProfileJob(found.model, found.feeds[:1], (number,), runs), lambda _: None)
            took += [in_another_process([found.model.path], inputs, number)[0] for _ in range(BRACKET)]
            times = measured_times(profile, profile.measurements[0], "here", found.sources, found.partition)
            said_s, took_s = (times.fixed_s or 0.0) + sum(times.seconds), median(took)
            wholes.append(Compared(path.stem, number, said_s, took_s, took_s / said_s))
            again += [
                Compared(path.stem, number, took[place], median([*took[:place], *took[place + 1 :]]), 1.0)
                for place in range(len(took))
            ]
            if took_s < SLOW_S:
                parts += compare_parts(path.stem, found, times, emitter, inputs, cuts)
    return wholes, again, parts


def samples(path: Path, folder: Path) -> tuple[Path, ...]:
    """Return a file of inputs for a model that cannot run with random ones; an empty tuple for other models."""
    if path.stem not in GIVEN:
        return ()
    model = load(path)
    dims = fix_dims(model, DIMS.get(path.stem, {}))
    feeds = random_feeds(model.inputs(), dims, 0)
    feeds |= {name: np.full_like(feeds[name], value) for name, value in GIVEN[path.stem].items()}
    write_feeds(feeds, folder / "given.npz")
    return (folder / "given.npz",)


def compare_parts(
    name: str, found: Analysis, times: UnitTimes, emitter: Emitter, inputs: Path, count: int
) -> list[Compared]:
    """Compare heads and tails of cuts for a device five times slower than this machine."""
    compared = []
    fixed_s = times.fixed_s or 0.0
    costs = Costs(
        found.partition.graph,
        tuple(5 * seconds for seconds in times.seconds),
        times.seconds,
        device_fixed_s=5 * fixed_s,
        cloud_fixed_s=fixed_s,
    )
    whole_s = fixed_s + sum(times.seconds)
    for number, cut in enumerate(some_cuts(costs, count)):
        files = emit(emitter, cut, inputs.with_name("parts"), f"{times.threads}-{number}")
        took_s = in_another_process([found.model.path, *files], inputs, times.threads)
        drift = took_s[0] / whole_s
        for side, units, part_s in (
            ("head", cut.head, took_s[1]),
            ("tail", frozenset(range(len(times.seconds))) - cut.head, took_s[2]),
        ):
            said_s = fixed_s + sum(times.seconds[unit] for unit in units)
            what = f"{name} {side} {len(units)}/{len(times.seconds)}"
            compared.append(Compared(what, times.threads, said_s, part_s, drift))
    return compared


def some_cuts(costs: Costs, count: int) -> list[Cut]:
    """Return *count* cuts spread evenly over the frontier; if it has fewer, also cuts in execution order."""
    splits = sorted(
        (cut for cut in solve(costs, Box()).frontier if cut.kind == "split"), key=lambda cut: len(cut.head)
    )
    if len(splits) > count:
        return [splits[round(number * (len(splits) - 1) / max(1, count - 1))] for number in range(count)]
    units, wanted = len(costs.graph.units), count - len(splits)
    for number in range(1, wanted + 1):
        with contextlib.suppress(ValueError):  # a boundary tensor cannot be sent
            cut = make_cut(costs, frozenset(range(number * units // (wanted + 1))))
            splits += [cut] if cut.kind == "split" else []
    return splits


def emit(emitter: Emitter, cut: Cut, folder: Path, label: str) -> list[Path]:
    files = []
    for side, part in (("head", head_part(emitter, cut)), ("tail", tail_part(emitter, cut))):
        assert part is not None, "both sides of a split have units"
        files.append(folder / f"{side}-{label}.onnx")
        write_part(emitter, part, files[-1])
    return files


# --- runs in a separate process ---


def in_another_process(models: Sequence[Path], inputs: Path, threads: int) -> list[float]:
    command = [sys.executable, __file__, "--threads", str(threads), "--time", str(inputs), *map(str, models)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise SplitcError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    medians: list[float] = json.loads(done.stdout)
    return medians


def time_in_turns(paths: Sequence[Path], threads: int) -> list[float]:
    """Run the models in turns; return the median seconds of each."""
    inputs, *models = paths
    with np.load(inputs) as arrays:
        values: dict[str, Any] = dict(arrays)
    runs = []
    for model in models:
        opened = ort.session(model, threads=threads)
        feeds = {item.name: values[item.name] for item in opened.get_inputs()}
        values |= ort.run(opened, feeds)
        runs.append(once(opened, feeds))
    block = max(1, min(MAX_BLOCK, round(BLOCK_S / timed(runs[0]))))
    samples: list[list[float]] = [[] for _ in runs]
    groups = [group for group in (range(1), range(1, len(runs))) if group]  # the whole; head and tail
    began = time.perf_counter()
    while len(samples[0]) < MIN_RUNS or time.perf_counter() - began < TIMED_S:
        for group in groups:
            taken = [[timed(runs[which]) for which in group] for _ in range(1 + block)][1:]
            for which, seconds in zip(group, zip(*taken, strict=True), strict=True):
                samples[which] += seconds
    return [median(taken) for taken in samples]


def once(opened: InferenceSession, feeds: Feeds) -> Callable[[], object]:
    names = [output.name for output in opened.get_outputs()]
    return lambda: opened.run(names, dict(feeds))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


# --- the tables ---


def show_progress(path: Path, wholes: Sequence[Compared], parts: Sequence[Compared]) -> None:
    long = [abs(item.steady_error) for item in parts if item.took_s >= SHORT_S]
    whole = ", ".join(f"{item.threads}t {item.took_s * 1e3:.2f} ms {item.error:+.0%}" for item in wholes)
    worst = f"median {median(long):.0%}, worst {max(long):.0%}" if long else "none over 0.3 ms"
    CONSOLE.print(f"{path.stem}: whole {whole}; {len(parts)} parts: {worst}")


def show(wholes: Sequence[Compared], again: Sequence[Compared], parts: Sequence[Compared]) -> None:
    table = Table(title="how far profiles are off, relative to later runs", title_justify="left")
    for column in ("what", "threads", "count", "median", "worst", "without drift: median", "worst"):
        table.add_column(column, justify="left" if column == "what" else "right")
    groups: Mapping[str, Sequence[Compared]] = {
        "whole models": wholes,
        "no profile: a run against its like": again,
        "parts over 0.3 ms": [item for item in parts if item.took_s >= SHORT_S],
        "shorter parts": [item for item in parts if item.took_s < SHORT_S],
    }
    for name, items in groups.items():
        for threads in sorted({item.threads for item in items}):
            chosen = [item for item in items if item.threads == threads]
            errors = [abs(item.error) for item in chosen]
            steady = [abs(item.steady_error) for item in chosen]
            row = [f"{value:.1%}" for value in (median(errors), max(errors), median(steady), max(steady))]
            if items is wholes or items is again:
                row[2:] = ["", ""]
            table.add_row(name, str(threads), str(len(chosen)), *row)
    CONSOLE.print(table)
    worst = sorted(parts, key=lambda item: -abs(item.steady_error))
    listed = Table(title="parts that are most off", title_justify="left")
    for column in ("part", "threads", "said ms", "took ms", "error", "without drift"):
        listed.add_column(column, justify="left" if column == "part" else "right")
    for item in [item for item in worst if item.took_s >= SHORT_S][:12]:
        times = (f"{item.said_s * 1e3:.3f}", f"{item.took_s * 1e3:.3f}")
        listed.add_row(
            item.what, str(item.threads), *times, f"{item.error:+.1%}", f"{item.steady_error:+.1%}"
        )
    CONSOLE.print(listed)


if __name__ == "__main__":
    main()
