"""Fit the coefficients of `splitc/profile/targets/roofline.py` to measured tables, and report prediction errors.

    python benchmarks/fit_targets.py DATA_FOLDER                       fit, write, print
    python benchmarks/fit_targets.py DATA_FOLDER --check OTHER.csv     predict machines that were not in the fit

DATA_FOLDER contains device_latency.csv, ncnn_layer_costs.csv and devices.csv. The program writes
targets/coefficients/*.toml and the tables of docs/prediction.md, which explains the method. Its output is
deterministic. OTHER.csv has the columns of device_latency.csv. Needs numpy and scipy.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the program runs from anywhere

from benchmarks.fit import decisions, evaluate, files, runtime, tables  # noqa: E402
from benchmarks.fit.machines import Core, Machines  # noqa: E402
from benchmarks.fit.model import Design, HeldOut, Spread, design, fit, held_out, predicted, spread  # noqa: E402
from benchmarks.fit.tables import ARM, PER, X86, Array, Run, Runs  # noqa: E402
from splitc.profile.targets.coefficients import TERMS  # noqa: E402

MOST_THREADS = 16
_NCNN = "Tencent/ncnn benchmark/README.md@a4d2ea1"
_AI_HUB = "quic/ai-hub-models perf.yaml, 2024-04-16"


@dataclass(frozen=True, slots=True)
class Study:
    """How times of ncnn differ between machines, for one kind of processor."""

    runs: Runs
    excluded: dict[str, str]
    plan: Design
    x: Array
    found: HeldOut
    spreads: Spread
    plain: evaluate.Interval
    calibrated: evaluate.Interval
    known_family: float
    unknown_core: float

    def parameter(self, *key: str) -> float:
        """Return a fitted offset; 0 if the data does not determine it."""
        return float(dict(zip(self.plan.keys, self.x, strict=True)).get(key, 0.0))

    def hardware(self, core: str, family: str) -> runtime.Hardware:
        """Return the fitted factors of machines with this core."""
        whole = self.parameter("family", family, "whole") + self.parameter("core", core)
        return runtime.Hardware(
            whole=float(np.exp(whole)),
            memory=float(np.exp(self.parameter("family", family, "memory"))),
            unit=float(np.exp(self.parameter("family", family, "unit"))),
            # Work cannot speed up more than the peak does; a larger fitted value is noise.
            threads=np.array([min(self.parameter("threads", name), 1.0) for name in TERMS]),
        )


def study(
    latencies: list[dict[str, str]], machines: Machines, folder: Path, families: tuple[str, ...]
) -> Study:
    """Fit ncnn's runs on cores of these *families*."""
    runs, excluded = tables.ncnn_runs(latencies, machines, folder, families)
    runs = runs.where(row.threads <= MOST_THREADS for row in runs.rows)
    plan = design(runs)
    everything = np.ones(len(runs.rows), bool)
    x = fit(runs, plan, everything)
    found = held_out(runs, plan, x)
    spreads = spread(found)
    return Study(
        runs, excluded, plan, x, found, spreads,
        plain=evaluate.interval(found, spreads, everything),
        calibrated=evaluate.calibrated_interval(found, spreads, everything),
        known_family=evaluate.whole_spread(held_out(runs, plan, x, "core"), spreads),
        unknown_core=evaluate.whole_spread(held_out(runs, plan, x, "family"), spreads),
    )  # fmt: skip


# --- coefficients ---


def write_cpu(
    path: Path, description: str, of: Study, machines: Machines, costs: runtime.Costs, source: str
) -> None:
    """Write the coefficients of ONNX Runtime on one kind of processor."""
    across = f"ncnn on {len(set(of.runs.column('device')))} machines ({_NCNN}), each held out"
    threads = of.hardware("", "").threads
    parts = [
        files.quantity(
            "core_bytes_per_cycle",
            tables.CORE_BYTES_PER_CYCLE,
            "about ten lines of 64 bytes under way, 70 to 100 ns each",
            "derived",
        )
    ]
    for index, name in enumerate(TERMS):
        if name == "other":
            continue
        parts.append(
            files.term(
                name,
                costs.costs[index],
                threads[index],
                of.spreads.terms[index],
                f"cost: {source}; threads and spread: {across}",
                "fitted",
            )
        )
    # An operator of which only the bytes are known may compute much or nothing.
    cost, apart = runtime.only_bytes(machines)
    said = (
        "units of all kinds that were measured on x86-64 (benchmarks/data/units_x86.csv), per byte they touch"
    )
    parts.append(files.term("other", cost, 0.0, apart, said, "fitted"))
    own = of.spreads.known  # of the machine that the costs were fitted on
    errors = {
        "known_core": np.hypot(of.spreads.known, own),
        "known_family": np.hypot(max(of.known_family, of.spreads.known), own),
        "unknown_core": np.hypot(max(of.unknown_core, of.known_family, of.spreads.known), own),
        "model": max(of.spreads.model, costs.deviation()),
        "low": of.plain.low, "high": of.plain.high,
        "calibrated_low": of.calibrated.low, "calibrated_high": of.calibrated.high,
    }  # fmt: skip
    sources = {
        "known_core": f"{across}; and as much again for the machine that the costs were fitted on",
        "known_family": "the same, all machines with the same core held out together",
        "unknown_core": "the same, all cores of a family held out together",
        "model": f"{source}, each model held out",
    }
    parts += [
        files.quantity(f"errors.{name}", float(value), sources.get(name, across))
        for name, value in errors.items()
    ]
    seen = of.runs.column("core")
    families = sorted(set(of.runs.column("family")))
    for name in families:
        hardware = of.hardware("", name)
        parts.append(files.family(name, (hardware.whole, hardware.memory, hardware.unit), across))
    known = {row.cores[0].name: row.cores[0] for row in of.runs.rows}
    devices = of.runs.column("device")
    for name, family in machines.spellings():
        if family in families:
            plain = machines.core(name, 1.0).name
            count = len(set(devices[seen == plain])) if plain in known else 0
            parts.append(
                files.core(
                    name,
                    family,
                    float(np.exp(of.parameter("core", plain))),
                    count,
                    across if count else f"its family, {name} was not measured",
                )
            )
    files.coefficients(path, description, parts)


def write_gpu(path: Path, classes_apart: float, bytes_apart: float) -> None:
    """Write the coefficients of ONNX Runtime's CUDA provider."""
    gpu = runtime.fit_gpu()
    source = "ONNX Runtime's CUDA provider, fp32, transformer encoders on T4 and RTX 3090 (ELS-RD/transformer-deploy docs/benchmarks.md@07b342e)"
    unmeasured = f"{source}; no model of this kind was measured: spread as between kinds of work on x86-64"
    off = float(np.sqrt(np.mean(gpu.log_ratio**2)))
    parts = []
    for name in TERMS:
        per, cost, spread_of, said = PER[name], gpu.cost, 0.0, source
        if name == "unit":
            per, cost = "second", gpu.unit_s
        elif PER[name] == tables.MEMORY:
            cost, said = 1.0, "the memory's peak, a lower bound"
            spread_of = bytes_apart if name == "other" else classes_apart
        elif name != "matmul":
            spread_of, said = classes_apart, unmeasured
        parts.append(
            files.term(
                name, cost, 0.0, spread_of, said, "fitted" if PER[name] != tables.MEMORY else "derived", per
            )
        )
    ends = np.percentile(gpu.log_ratio / off, [5, 95])
    errors = {"known_core": off, "known_family": off, "unknown_core": off, "model": off}
    parts += [
        files.quantity(f"errors.{name}", value, "8 runs, each chip predicted from the other's")
        for name, value in errors.items()
    ]
    for name in ("low", "calibrated_low"):
        parts.append(
            files.quantity(
                f"errors.{name}",
                max(1.645, -float(ends[0])),
                "a normal distribution's, or the 8 runs' if further",
                "derived",
            )
        )
    for name in ("high", "calibrated_high"):
        parts.append(
            files.quantity(
                f"errors.{name}",
                max(1.645, float(ends[1])),
                "a normal distribution's, or the 8 runs' if further",
                "derived",
            )
        )
    files.coefficients(
        path, "ONNX Runtime's CUDA provider in single precision, from a handful of published runs", parts
    )


# --- tables ---


def accuracy(of: Study, by_fold: list[evaluate.Fold]) -> str:
    """Return the table of errors and coverage."""
    rows = []
    for threads in sorted({row.threads for row in of.runs.rows}):
        kinds = {"descriptor alone": evaluate.uncalibrated(of.found, threads, by_fold)}
        for count in (1, 3):
            kinds[f"and {count} run{'s' if count > 1 else ''}"] = evaluate.after_runs(
                of.found, threads, count, by_fold
            )
        rows += [
            (
                threads,
                kind,
                got.devices,
                files.percent(got.error),
                files.percent(got.run_error),
                files.percent(got.covered),
            )
            for kind, got in kinds.items()
        ]
    return files.table(
        ("threads", "known", "devices", "mean error", "per run", "inside the 90 % interval"), rows
    )


def stricter(of: Study) -> str:
    """Return the errors when more than the device is held out."""
    rows = []
    for by, said in (
        ("device", "the device"),
        ("core", "all devices with the same core"),
        ("family", "all cores of the family"),
    ):
        found = of.found if by == "device" else held_out(of.runs, of.plan, of.x, by)
        rows.append((said, *(files.percent(_mean(found, threads)) for threads in (1, 4))))
    return files.table(("held out", "1 thread", "4 threads"), rows)


def _mean(found: HeldOut, threads: int) -> float:
    rows = found.runs.column("threads") == str(threads)
    return evaluate.score(found.log_ratio[rows], list(found.runs.column("device")[rows]), rows[rows]).error


def devices(of: Study) -> str:
    """Return the error and bias of each device and core."""
    names, cores, threads = (of.runs.column(name) for name in ("device", "core", "threads"))
    rows = []
    for name in sorted(set(names)):
        for core in sorted(set(cores[names == name])):
            for count in sorted(set(threads[(names == name) & (cores == core)]), key=int):
                its = (names == name) & (cores == core) & (threads == count)
                bias = float(np.exp(np.median(of.found.log_ratio[its])))
                rows.append(
                    (
                        name.replace("|", "/"),
                        core,
                        count,
                        int(its.sum()),
                        files.percent(float(of.found.error()[its].mean())),
                        f"x{bias:.2f}",
                    )
                )
    return files.table(
        ("device", "fastest core used", "threads", "runs", "mean error", "measured / predicted"), rows
    )


def families(of: Study) -> str:
    """Return the error of each family of cores."""
    its_family, threads, error = of.runs.column("family"), of.runs.column("threads"), of.found.error()
    rows = []
    for name in sorted(set(its_family)):
        chosen = [(its_family == name) & (threads == count) for count in ("1", "4")]
        rows.append(
            (name, *(files.percent(float(error[rows_].mean())) if rows_.any() else "" for rows_ in chosen))
        )
    return files.table(("family", "1 thread", "4 threads"), rows)


def strangers(of: Study, latencies: list[dict[str, str]], machines: Machines, folder: Path) -> str:
    """Return the errors on cores that no coefficients list, such as Apple's."""
    both, _ = tables.ncnn_runs(latencies, machines, folder, (*ARM, "apple", "undocumented"))
    both = both.where(row.threads <= MOST_THREADS for row in both.rows)
    new = ~np.isin(both.column("family"), ARM)
    found = _predict(both, ~new)
    wide = Spread(of.unknown_core, of.unknown_core, of.spreads.terms, of.spreads.model)
    covered = of.plain.covers(found.log_ratio, evaluate.deviations(found, wide))
    rows = []
    for name in sorted(set(both.column("table")[new])):
        its = both.column("table") == name
        row, bias = both.rows[int(its.argmax())], np.exp(np.median(found.log_ratio[its]))
        error, inside = float(found.error()[its].mean()), float(covered[its].mean())
        rows.append(
            (
                row.device,
                row.cores[0].name,
                row.threads,
                files.percent(error),
                f"x{bias:.2f}",
                files.percent(inside),
            )
        )
    head = ("device", "core", "threads", "mean error", "measured / predicted", "inside the interval")
    return files.table(head, rows)


def _predict(both: Runs, known: tables.Mask) -> HeldOut:
    """Predict all runs from a fit of those that are *known*."""
    plan = design(both)
    spent = predicted(both, plan, fit(both, plan, known), np.ones(len(known), bool))
    total, cores = spent.sum(axis=1), both.column("core")
    return HeldOut(
        both, both.log_seconds - np.log(total), spent / total[:, None], np.isin(cores, cores[known])
    )


def left_out(*studies: Study) -> str:
    """Return why devices are in no fit."""
    used = {row.device for of in studies for row in of.runs.rows}
    why = {name: reason for of in studies for name, reason in of.excluded.items() if name not in used}
    return files.table(
        ("device", "left out because"),
        sorted((name.replace("|", "/"), reason) for name, reason in why.items()),
    )


def runtime_costs(arm: runtime.Costs, x86: runtime.Costs) -> str:
    """Return what each kind of work costs ONNX Runtime."""
    rows = [
        (name, PER[name], f"{arm.costs[i]:.3g}", f"{x86.costs[i]:.3g}")
        for i, name in enumerate(TERMS)
        if name != "other"
    ]
    errors = [("mean error, each model held out", "", files.percent(arm.error()), files.percent(x86.error()))]
    return files.table(("kind of work", "per", "arm64", "x86-64"), rows + errors)


def runtime_models(costs: runtime.Costs) -> str:
    """Return the error of each model."""
    rows = [(name, f"x{np.exp(off):.2f}") for name, off in zip(costs.models, costs.log_ratio, strict=True)]
    return files.table(("model", "measured / predicted"), rows)


def phones(arm: Study, latencies: list[dict[str, str]], machines: Machines) -> str:
    """Return how a model that is matrix products nearly all is carried from the board to phones."""
    place = TERMS.index("matmul")

    def one_mac(cores: tuple[Core, ...]) -> float:
        hardware = arm.hardware(cores[0].name, cores[0].family)
        gain = sum(core.peak for core in cores) / cores[0].peak
        return float(hardware.whole / cores[0].peak * gain ** -hardware.threads[place])

    board = one_mac(runtime.arm_cores(machines))
    rows = [
        (phone, " + ".join(core.name for core in cores), f"{ratio:.2f}", f"{one_mac(cores) / board:.2f}")
        for phone, cores, ratio in runtime.carried(latencies, machines)
    ]
    return files.table(("phone", "cores assumed", "measured, of the board's time", "predicted"), rows)


def units(costs: runtime.Costs, per_amount: Array) -> str:
    """Return how far single units are off."""
    errors = runtime.unit_errors(costs, per_amount)
    shares = [f"{100 * value:.0f} %" for value in np.percentile(errors, [50, 75, 90])]
    return files.table(
        ("units", "median error", "75th percentile", "90th percentile"), [(len(errors), *shares)]
    )


def regrets(arm: Study, x86_costs: runtime.Costs, ideal: Array) -> str:
    """Return what decisions from predictions lose."""
    units = runtime.x86_units()
    total = np.exp(arm.runs.log_seconds - arm.found.log_ratio)
    spent = arm.found.shares * total[:, None]
    rows = []
    for said, found in (
        ("devices held out, 1 thread", decisions.on_devices(arm.found, spent, 1, units)),
        ("devices held out, 4 threads", decisions.on_devices(arm.found, spent, 4, units)),
        ("this machine, true times per unit", decisions.on_this_machine(x86_costs, ideal, units)),
    ):
        rows += [
            (
                said,
                got.network,
                got.decisions,
                files.percent(got.best),
                files.percent(got.mean),
                files.percent(got.high),
            )
            for got in found
        ]
    return files.table(
        ("device", "network", "decisions", "best cut chosen", "mean loss", "95th percentile"), rows
    )


# --- check ---


def check(other: Path, latencies: list[dict[str, str]], machines: Machines, folder: Path) -> None:
    """Predict the machines in *other* from the fit of all others, and print how far off that is."""
    seen = {row["device"] for row in latencies}
    rows = tables.read(other.parent, other.name)
    fresh = [row for row in rows if row["device"] not in seen]
    print(f"{len(rows)} rows, {len(rows) - len(fresh)} of them of devices that are in the fit")
    for families_, kind in ((ARM, "Arm"), (X86, "x86-64")):
        of = study(latencies, machines, folder, families_)
        both, excluded = tables.ncnn_runs(latencies + fresh, machines, folder, families_)
        both = both.where(row.threads <= MOST_THREADS for row in both.rows)
        new = np.array([row.device not in seen for row in both.rows])
        for name in sorted(set(excluded) - seen):
            print(f"  {kind}: {name} is left out: {excluded[name]}")
        if not new.any():
            continue
        found = _predict(both, ~new)
        spreads = replace(of.spreads, unknown=max(of.known_family, of.spreads.known))
        covered = of.plain.covers(found.log_ratio, evaluate.deviations(found, spreads))
        _print_check(kind, found, covered, new)


def _print_check(kind: str, found: HeldOut, covered: tables.Mask, new: tables.Mask) -> None:
    devices_, threads, all_tables = (found.runs.column(name) for name in ("device", "threads", "table"))
    for name in sorted(set(all_tables[new])):
        its = all_tables == name
        row = found.runs.rows[int(its.argmax())]
        print(
            f"  {row.device:70.70} {row.cores[0].name:12} {row.threads:2} thread(s) {int(its.sum()):3} runs"
            f"  error {files.percent(float(found.error()[its].mean())):>7}"
            f"  measured x{np.exp(np.median(found.log_ratio[its])):.2f}"
            f"  inside {files.percent(float(covered[its].mean()))}"
        )
    for count in sorted(set(threads[new]), key=int):
        its = new & (threads == count)
        got = evaluate.score(found.log_ratio[its], list(devices_[its]), covered[its])
        print(
            f"  {kind}, {count} thread(s): {got.devices} devices, {got.runs} runs, mean error {files.percent(got.error)}"
            f" (per run {files.percent(got.run_error)}), inside the interval {files.percent(got.covered)}"
        )


# --- all of it ---


def fit_all(folder: Path, out: Path) -> dict[str, str]:
    """Fit, write the coefficients under *out*, and return the tables of the documentation."""
    latencies, machines = tables.read(folder, "device_latency.csv"), Machines(folder)
    arm, x86 = (study(latencies, machines, folder, which) for which in (ARM, X86))

    core, memory = runtime.x86_core(machines)
    here = x86.hardware(core.name, core.family)
    x86_costs = runtime.fit_costs(here.ideal(runtime.x86_runs(machines)), _base(x86))
    board = arm.hardware("Cortex-A78", "wide")
    arm_costs = runtime.fit_costs(board.ideal(runtime.arm_runs(latencies, machines)), x86_costs.costs)
    measured_here = f"ONNX Runtime 1.32.0 with one thread on a virtual AMD Zen 4 (benchmarks/data/units_x86.csv), {len(x86_costs.models)} models"
    on_board = f"ONNX Runtime fp32 on RB3 Gen 2 ({_AI_HUB}), {len(arm_costs.models)} models; little-known kinds of work as on x86-64"
    coefficients = out / "targets" / "coefficients"
    write_cpu(
        coefficients / "onnxruntime-arm64.toml",
        "ONNX Runtime's CPU provider on 64-bit Arm",
        arm,
        machines,
        arm_costs,
        on_board,
    )
    write_cpu(
        coefficients / "onnxruntime-x86_64.toml",
        "ONNX Runtime's CPU provider on x86-64",
        x86,
        machines,
        x86_costs,
        measured_here,
    )
    compute = [
        x86_costs.costs[TERMS.index(name)]
        for name in ("depthwise", "grouped", "pointwise", "dense3x3", "conv", "matmul")
    ]
    write_gpu(
        coefficients / "onnxruntime-cuda.toml",
        float(np.std(np.log(compute))),
        runtime.only_bytes(machines)[1],
    )

    one = Run("here", "", "", 1, (core,), memory, older=False, amounts=(1.0,) * len(TERMS), seconds=1.0)
    per_amount = here.ideal(tables.runs([one])).ideal[0]
    return {
        "accuracy arm64": accuracy(arm, list(evaluate.folds(arm.found))),
        "stricter arm64": stricter(arm),
        "families arm64": families(arm),
        "devices arm64": devices(arm),
        "strangers arm64": strangers(arm, latencies, machines, folder),
        "accuracy x86-64": accuracy(x86, list(evaluate.folds(x86.found))),
        "stricter x86-64": stricter(x86),
        "devices x86-64": devices(x86),
        "left out": left_out(arm, x86),
        "runtime": runtime_costs(arm_costs, x86_costs),
        "models arm64": runtime_models(arm_costs),
        "models x86-64": runtime_models(x86_costs),
        "phones": phones(arm, latencies, machines),
        "units x86-64": units(x86_costs, per_amount),
        "decisions": regrets(arm, x86_costs, per_amount),
    }


def _base(of: Study) -> Array:
    return np.array([np.exp(of.parameter("base", name)) for name in TERMS])


def main() -> None:
    """Fit and write, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--check", type=Path, metavar="OTHER.csv", help="predict the machines in this table")
    parser.add_argument("--out", type=Path, default=ROOT, help="where targets/ and docs/ lie")
    given = parser.parse_args()
    if given.check is not None:
        check(given.check, tables.read(given.data, "device_latency.csv"), Machines(given.data), given.data)
        return
    sections = fit_all(given.data, given.out)
    for name, text in sections.items():
        print(f"## {name}\n\n{text}")
    files.into_docs(given.out / "docs" / "prediction.md", sections)


if __name__ == "__main__":
    main()
