"""Run splitc as a process or in this one, on machines that make tiny models worth splitting."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import onnx

from splitc.common.cache import Cache
from splitc.compile.compile import Compiled, CompileOptions, compile_bundle
from splitc.model.analysis import AnalysisOptions
from splitc.profile.targets.coefficients import TERMS, Errors
from splitc.profile.targets.description import own_folder
from splitc.profile.targets.roofline import MULTIPLYING
from splitc.samples.catalogue import write_sample
from tests import models

LAUNCH = [sys.executable, "-m", "splitc"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line on stderr; the lines before it are progress."""
        return self.err.splitlines()[-1] if self.err else ""


def splitc(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> Done:
    """Run `splitc ARGUMENTS` as a process."""
    done = subprocess.run(
        [*LAUNCH, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def hear_interrupts() -> None:
    """Run in a child before it starts: a shell's background job, as CI may be, ignores Ctrl-C, and so would it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def machine(
    folder: Path, name: str, *, overhead_s: float, macs_per_s: float = 1e9, active_w: float | None = None
) -> Path:
    """Describe a machine on which every unit costs at least *overhead_s*, times being off by up to 2x."""
    quantity = {"source": "made up for tests", "confidence": "recalled"}
    cost = {"cost": 1.0, "threads": 0.0, "spread": 0.0, **quantity}
    terms = {term: {"per": "memory", **cost} for term in TERMS}
    terms |= {kind: {"per": "peak", **cost, "cost": 2.0} for kind in MULTIPLYING}
    terms["unit"] = {"per": "second", **cost, "cost": overhead_s}
    errors = {field.name: {"value": math.log(2.0), **quantity} for field in fields(Errors)}
    errors |= {key: {"value": 1e-9, **quantity} for key in ("known_core", "known_family", "unknown_core")}
    errors |= {key: {"value": 1.0, **quantity} for key in errors if key.endswith(("low", "high"))}
    runtime = {"name": f"{name}-{overhead_s:g}", "description": "made up", "terms": terms, "errors": errors}
    known = own_folder() / "coefficients" / f"{runtime['name']}.toml"
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(toml(runtime), encoding="utf-8")
    hertz, bandwidth, peak = ({"value": value, **quantity} for value in (1e9, 1e9, macs_per_s))
    core = {"core": "none", "cores": 1, "clock_hz": hertz, "peak_macs_per_s": peak}
    target: dict[str, Any] = {
        "name": name,
        "kind": "device",
        "description": "made up",
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "descriptor": {
            "coefficients": runtime["name"],
            "caveat": "this machine does not exist",
            "memory_bytes_per_s": bandwidth,
            "clusters": [core],
        },
    }
    if active_w is not None:
        target["active_w"] = {"value": active_w, **quantity}
    path = folder / f"{name}.toml"
    path.write_text(toml(target), encoding="utf-8")
    return path


def toml(table: Mapping[str, Any]) -> str:
    """*table* as TOML, each value on its line: tables inside are written inline."""
    return "".join(f"{key} = {_inline(value)}\n" for key, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


def slow_device(folder: Path, **options: float) -> Path:
    """A device on which each unit takes 10 ms."""
    return machine(folder, "slow", overhead_s=0.01, **options)


def fast_cloud(folder: Path) -> Path:
    """A cloud machine described, not measured: nothing about it depends on the clock."""
    return machine(folder, "fast", overhead_s=1e-6, macs_per_s=1e12)


def save_tiny(name: str, folder: Path) -> Path:
    """Write one of the tiny models, or a sample of splitc, into *folder*."""
    path = folder / f"{name}.onnx"
    if name in models.ALL:
        onnx.save_model(models.ALL[name](), path)
    else:
        write_sample(name, path)
    return path


def compile_here(
    path: Path,
    folder: Path,
    *,
    dims: Mapping[str, int] | None = None,
    cache: Path | None = None,
    **options: Any,
) -> Compiled:
    """Compile in this process for a slow device and a fast cloud, without onnxsim unless told."""
    simplify = options.pop("simplify", False)
    samples = options.pop("samples", ())
    chosen = CompileOptions(
        AnalysisOptions(dims or {}, samples, simplify),
        device=str(options.pop("device", None) or slow_device(path.parent)),
        cloud=str(options.pop("cloud", None) or fast_cloud(path.parent)),
        **options,
    )
    return compile_bundle(path, folder, chosen, Cache(cache), lambda _: None)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below *folder* with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
