"""Measure a device and a server at run time: accuracy of predictions, distance from the optimum, throughput, adaptation.

    python benchmarks/runtime.py                                  # everything, 24 minutes
    python benchmarks/runtime.py --only throughput --seconds 20   # one part, longer
    python benchmarks/runtime.py --only predictions --models regnet_y_400mf --json numbers.json

The device and the server both run on this machine, each with one thread on one core, with an emulated link between
two network namespaces. This needs Linux with unprivileged namespaces, or root. Models come from ../shared/models and
the samples of splitc. Other programs distort the results: run this while the machine is idle.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the program runs from anywhere

from rich.console import Console  # noqa: E402

from benchmarks.running import cellular, limit, predictions, throughput, traces  # noqa: E402
from benchmarks.running.models import SAMPLE, TRACES, Compiled, Compiler, shared_names  # noqa: E402
from benchmarks.running.programs import CLOUD_CORE, DEVICE_CORE  # noqa: E402
from splitc.common.errors import SplitcError, TestBedError  # noqa: E402
from splitc.common.ort import RUNTIME_VERSION  # noqa: E402
from splitc.testbed.bed import Bed  # noqa: E402
from splitc.testbed.spec import LinkSpec, Rate  # noqa: E402

CONSOLE = Console(width=130, highlight=False)

# The models that each part measures by default: with several cuts, and of different sizes and kinds.
PREDICTED = ("ultraface_rfb_320", "fastestdet", "basic_pitch", "mobilenet_edgetpu_qdq_part")
SLOWED = ("basic_pitch",)
SLOWDOWN = 4.0

LIMITED = ("ultraface_rfb_320",)
SERVED = ("basic_pitch", "magika_v3_3")
BATCHED = "matrices"
# On cellular links, sending pays only for small payloads.
LISTENER = "listener"
ADAPTING_ALONE_S = 0.6  # so that the choice matters


@dataclass(frozen=True, slots=True)
class Setting:
    """Options of a part: `models` that the user named, and `seconds` for each measurement."""

    compiler: Compiler
    folder: Path
    models: tuple[str, ...]
    seconds: float

    def compiled(self, names: Sequence[str]) -> list[Compiled]:
        """Return the models that the user named, else the sample and the models *names* of ../shared/models."""
        chosen = self.models or (SAMPLE, *shared_names(names, say))
        return list(self.compiler.all_of(chosen))


Part = Callable[[Setting], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts (default {','.join(PARTS)})")
    parser.add_argument(
        "--seconds", type=float, help="duration of each measurement (default: depends on the part)"
    )
    parser.add_argument("--models", default="", help="names of samples or ../shared/models, or .onnx files")
    parser.add_argument("--json", type=Path, help="keep all numbers in this file")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"there is no part '{unknown[0]}'; choose of {', '.join(PARTS)}")
    kept: dict[str, Any] = {"circumstances": circumstances()}
    CONSOLE.print(", ".join(f"{name} {value}" for name, value in kept["circumstances"].items()))
    with tempfile.TemporaryDirectory(prefix="splitc-bench-") as name:
        folder = Path(name)
        compiler = Compiler(folder, say)
        for part in chosen:
            measure, seconds = PARTS[part]
            models = tuple(filter(None, arguments.models.split(",")))
            setting = Setting(compiler, folder, models, arguments.seconds or seconds)
            kept[part] = run(part, measure, setting)
    if arguments.json:
        arguments.json.write_text(json.dumps(kept), encoding="utf-8")


def run(name: str, measure: Part, setting: Setting) -> dict[str, Any]:
    """Run a part; if it cannot run, print the reason."""
    began_s, load = time.monotonic(), os.getloadavg()[0]
    try:
        found = measure(setting)
    except (SplitcError, OSError) as error:  # no privileges, no `taskset`
        say(f"{name}: left out: {error}")
        return {"left out": str(error)}
    say(
        f"{name}: {time.monotonic() - began_s:.0f} s, load average {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    return found | {"load_before": load, "load_after": os.getloadavg()[0]}


def circumstances() -> dict[str, Any]:
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    try:
        with Bed(LinkSpec(Rate(1e6), Rate(1e6), rtt_s=0.0, queue_bytes=9000)) as bed:
            emulated = bed.congestion_control
    except TestBedError:
        emulated = "unknown"  # each part that needs a link reports why there is none
    return {
        "onnxruntime": RUNTIME_VERSION,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "tcp over links": emulated,
        "tcp on loopback": control.read_text(encoding="ascii").strip() if control.is_file() else "unknown",
        "device core": DEVICE_CORE,
        "cloud core": CLOUD_CORE,
    }


def say(text: str) -> None:
    CONSOLE.print(text, style="dim", soft_wrap=True)


# --- the parts ---


def predict(setting: Setting) -> dict[str, Any]:
    models = []
    for model in setting.compiled(PREDICTED):
        if len(model.cuts) > 1:
            models.append(model)
        else:
            say(f"{model.name}: left out: its bundle has one cut, so there is nothing to choose")
    slow = [model for model in models if model.name in (SAMPLE, *SLOWED)] or models[:1]
    cases = [
        predictions.Case(model, network, slowdown)
        for network in predictions.NETWORKS
        for slowdown, chosen in ((1.0, models), (SLOWDOWN, slow))
        for model in chosen
    ]
    if not cases:
        raise SplitcError("no model has two cuts; name other models with --models")
    cuts, choices, raw = [], [], []
    for case, rows in predictions.measure(cases, setting.folder, setting.seconds):
        own = predictions.predicted(case, rows)
        cuts += own
        choices.append(predictions.settled(case, rows, own))
        raw.append(
            {"model": case.model.name, "network": case.network, "slowdown": case.slowdown, "rows": rows}
        )
    CONSOLE.print(predictions.errors_table(cuts))
    CONSOLE.print(predictions.regret_table(choices))
    for line in predictions.verdicts(cuts, choices):
        CONSOLE.print(line)
    return {"cuts": [asdict(row) for row in cuts], "settled": [asdict(row) for row in choices], "raw": raw}


def limits(setting: Setting) -> dict[str, Any]:
    rows = list(limit.measure(setting.compiled(LIMITED), setting.folder, setting.seconds))
    CONSOLE.print(limit.table(rows))
    CONSOLE.print(limit.verdict(rows))
    return {"rows": [asdict(row) for row in rows]}


def serve(setting: Setting) -> dict[str, Any]:
    raw = list(throughput.against_raw(setting.compiled(SERVED), setting.folder, setting.seconds))
    if raw:
        CONSOLE.print(throughput.raw_table(raw))
        CONSOLE.print(throughput.verdict(raw))
    else:
        say("no tail takes 5 ms or more with a payload of at most 256 KB")
    batched = list(throughput.batching([setting.compiler.compiled(BATCHED)], setting.folder, setting.seconds))
    CONSOLE.print(throughput.batching_table(batched))
    return {"raw": [asdict(row) for row in raw], "batching": [asdict(row) for row in batched]}


def adapt(setting: Setting) -> dict[str, Any]:
    compiler = setting.compiler
    found: list[tuple[traces.Case, dict[str, traces.Stretch]]] = []
    recorded = cellular.recorded_links()
    if not recorded:
        say(f"{TRACES} is not there: only made-up links are measured")
    links = recorded or [cellular.made_up_link("lte", seed) for seed in range(3)]
    models = setting.models or (LISTENER,)
    cases = [
        traces.Case(model, ADAPTING_ALONE_S, link) for model in compiler.all_of(models) for link in links
    ]
    for case, stretches in traces.measure(cases, setting.folder, setting.seconds):
        _tell(traces.policies(case, stretches))
        found.append((case, stretches))
    pooled = [
        traces.together(own)
        for model in dict.fromkeys(case.model.name for case in cases)
        if len(own := [(case, each) for case, each in found if case.model.name == model]) > 1
    ]
    for rows in pooled:
        _tell(rows)
    return {
        "cases": [
            {
                "policies": [asdict(row) for row in traces.policies(case, stretches)],
                "raw": {name: asdict(stretch) for name, stretch in stretches.items()},
            }
            for case, stretches in found
        ],
        "together": [[asdict(row) for row in rows] for rows in pooled],
    }


def _tell(rows: Sequence[traces.Policy]) -> None:
    CONSOLE.print(traces.table(rows))
    CONSOLE.print(traces.verdict(rows))


PARTS: dict[str, tuple[Part, float]] = {
    "predictions": (predict, 2.4),
    "limit": (limits, 1.6),
    "throughput": (serve, 8.0),
    "traces": (adapt, 36.0),
}

if __name__ == "__main__":
    main()
