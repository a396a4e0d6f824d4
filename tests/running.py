"""Run splitc as a process or in this one, on machines that make tiny models worth splitting."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from splitc.analysis import AnalysisOptions
from splitc.cache import Cache
from splitc.compile import Compiled, CompileOptions, compile_model
from splitc.samples import write_sample
from tests import models

LAUNCH = [sys.executable, "-m", "splitc"]
_QUANTITY = 'value = {value}\nsource = "made up for tests"\nconfidence = "recalled"\n'
_CLASSES = ("depthwise", "pointwise", "dense3x3", "conv", "matmul")


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
    """Describe a machine on which every unit costs at least *overhead_s*."""
    tables = {
        "descriptor.thread_gain": 0.5,
        "descriptor.memory_bytes_per_s": 1e9,
        "descriptor.unit_overhead_s": overhead_s,
        **{f"descriptor.efficiency.{kind}": 0.5 for kind in _CLASSES},
    }
    text = f'name = "{name}"\nkind = "device"\ndescription = "made up"\nruntime = "onnxruntime"\n'
    text += 'provider = "CPUExecutionProvider"\nthreads = 1\n'
    if active_w is not None:
        text += "[active_w]\n" + _QUANTITY.format(value=active_w)
    text += '[descriptor]\ncaveat = "this machine does not exist"\n'
    for table, value in tables.items():
        text += f"[{table}]\n" + _QUANTITY.format(value=value)
    for table in ("interval", "interval_unknown"):
        text += f"[descriptor.{table}]\nlow = 0.5\nhigh = 2.0\n" + _QUANTITY.partition("\n")[2]
    text += '[[descriptor.clusters]]\ncore = "none"\ncores = 1\n'
    text += "[descriptor.clusters.clock_hz]\n" + _QUANTITY.format(value=1e9)
    text += "[descriptor.clusters.peak_macs_per_s]\n" + _QUANTITY.format(value=macs_per_s)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


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
    return compile_model(path, folder, chosen, Cache(cache), lambda _: None)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below *folder* with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
