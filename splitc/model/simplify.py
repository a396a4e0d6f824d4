"""Fold constants and clean the graph with onnxsim, and trust the result only after a check.

onnxsim runs in a process of its own: it is compiled code that reads untrusted files, and its
memory goes back to the system when it ends.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import Feeds, difference
from splitc.model.model import Model, simplified

# Beyond this a model cannot be one protobuf message, which onnxsim needs in memory.
_MAX_BYTES = 1_500_000_000
# Folding may replace a small recipe by a large constant; more growth than this makes a model worse.
_GROWTH = 1.1
_SLACK_BYTES = 1 << 20
_TOLERANCE = 1e-3
_TIMEOUT_S = 900
# Run by file name, so that the process finds neither this package's modules nor the caller's by accident.
_PROGRAM = Path(__file__).with_name("onnxsim_program.py")


@dataclass(frozen=True, slots=True)
class Simplified:
    """The model to go on with, and in one sentence why it is still the original (or None)."""

    model: Model
    kept_because: str | None


def simplify(model: Model, folder: Path, feeds: Feeds) -> Simplified:
    """Simplify *model* into *folder*; keep the original where that fails, differs or grows.

    Args:
        feeds: values for every input, on which both models must agree. Symbolic dimensions stay symbolic.

    Raises:
        ModelError: ONNX Runtime cannot load or run the original.
    """
    size = _file_bytes(model)
    if size > _MAX_BYTES:
        return Simplified(model, f"it is too large to simplify in memory ({size / 1e9:.1f} GB)")
    want = ort.run(ort.session(model.path), feeds)
    path = folder / "simplified.onnx"
    failure = _run_apart(model.path, path)
    if failure:
        return Simplified(model, f"onnxsim failed: {_placeless(failure, folder)}")
    try:
        result = simplified(model, path)
        _check_interface(model, result)
        got = ort.run(ort.session(result.path), feeds)
    except ModelError as error:
        return Simplified(model, f"the simplified model is not usable: {_placeless(str(error), folder)}")
    for name, value in want.items():
        if not difference(got[name], value).max_rel <= _TOLERANCE:
            return Simplified(model, f"the simplified model computes another '{name}'")
    grown = _file_bytes(result)
    if grown > size * _GROWTH + _SLACK_BYTES:
        return Simplified(model, f"simplifying grows it from {size} to {grown} bytes")
    return Simplified(result, None)


def _placeless(message: str, folder: Path) -> str:
    """*message* without the name of the working folder, which differs each time and would enter the manifest."""
    return message.replace(f"{folder}{os.sep}", "")


def _file_bytes(model: Model) -> int:
    return sum(path.stat().st_size for path in (model.path, *model.external))


def _check_interface(model: Model, result: Model) -> None:
    if model.inputs() != result.inputs():
        raise ModelError("its inputs changed")
    if model.outputs() != result.outputs():
        raise ModelError("its outputs changed")


def _run_apart(source: Path, target: Path) -> str | None:
    """Run onnxsim in a process; return what went wrong, or None."""
    command = [sys.executable, "-P", str(_PROGRAM), str(source), str(target)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it was stopped by signal {-done.returncode}"
    said = done.stderr.decode(errors="replace").strip().splitlines() or [
        f"it ended with code {done.returncode}"
    ]
    return said[-1][:200]
