"""Simplify a model with onnxsim (which folds constants), and check the result.

onnxsim runs in a separate process: it is compiled code that may crash on untrusted files, and the
end of the process frees its memory.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import Feeds, difference
from splitc.model.model import Model, save_renamed, simplified
from splitc.model.randomness import random_outputs

# onnxsim holds the model as one protobuf message, whose size is limited to 2 GB.
_MAX_BYTES = 1_500_000_000
# Constant folding may replace a few small nodes by a large constant; a larger growth is not accepted.
_GROWTH = 1.1
_SLACK_BYTES = 1 << 20
_TOLERANCE = 1e-3
_TIMEOUT_S = 900
_MOST_SAID = 200  # characters of a message of onnxsim
# Run by path, so that the process imports no module of this package or of the caller by accident.
_PROGRAM = Path(__file__).with_name("onnxsim_program.py")


@dataclass(frozen=True, slots=True)
class Simplified:
    """The result of `simplify`.

    Attributes:
        model: the simplified model, or the original.
        kept_because: why it is the original, as part of a sentence; None if it is simplified.
    """

    model: Model
    kept_because: str | None


def simplify(model: Model, folder: Path, feeds: Feeds) -> Simplified:
    """Simplify *model* into *folder*; return the original if that fails, changes results or makes it larger.

    Symbolic dimensions stay symbolic.

    Args:
        feeds: values for every input, for which both models must give equal results.

    Raises:
        ModelError: ONNX Runtime cannot load or run the original.
    """
    size = _file_bytes(model)
    if size > _MAX_BYTES or random_outputs(model):
        too_large = f"it is too large to simplify in memory ({size / 1e9:.1f} GB)"
        random = "it has random operators, so its results cannot be compared"
        return Simplified(model, too_large if size > _MAX_BYTES else random)
    opened = ort.session(model.path)
    with ort.blaming_inputs():
        want = ort.run(opened, feeds)
    path = folder / "simplified.onnx"
    source = model.path
    if model.changes.renamed:  # onnxsim takes values in bodies for their namesakes
        source = folder / "renamed.onnx"
        save_renamed(model, source)
    failure = _run_apart(source, path)
    if failure:
        return Simplified(model, f"onnxsim failed: {_placeless(failure, model, folder)[:_MOST_SAID]}")
    try:
        result = simplified(model, path)
        _check_interface(model, result)
        got = ort.run(ort.session(result.path), feeds)
    except ModelError as error:
        return Simplified(
            model, f"the simplified model is not usable: {_placeless(str(error), model, folder)}"
        )
    for name, value in want.items():
        if not difference(got[name], value).max_rel <= _TOLERANCE:
            return Simplified(model, f"the simplified model gives a different result for output '{name}'")
    grown = _file_bytes(result)
    if grown > size * _GROWTH + _SLACK_BYTES:
        return Simplified(model, f"simplified, it would grow from {size} to {grown} bytes")
    return Simplified(result, None)


def _placeless(message: str, model: Model, folder: Path) -> str:
    """Remove folders from *message*: the manifest must not differ from build to build, or from machine to machine."""
    files = (model.path, *model.external, _PROGRAM, Path(onnx.__file__), Path(sys.prefix) / "bin")
    folders = [folder, *(file.parent for file in files), *(file.resolve().parent for file in files)]
    spelled = {str(form) for item in folders for form in (item, item.absolute(), item.resolve())}
    for name in sorted(spelled - {".", "/"}, key=len, reverse=True):
        message = message.replace(f"{name}{os.sep}", "").replace(name, "its folder")
    return message


def _file_bytes(model: Model) -> int:
    return sum(path.stat().st_size for path in (model.path, *model.external))


def _check_interface(model: Model, result: Model) -> None:
    if model.inputs() != result.inputs():
        raise ModelError("its inputs changed")
    if model.outputs() != result.outputs():
        raise ModelError("its outputs changed")


def _run_apart(source: Path, target: Path) -> str | None:
    """Run onnxsim in a separate process; return the reason if it failed, else None."""
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
        return f"it was ended by signal {-done.returncode}"
    said = done.stderr.decode(errors="replace").strip().splitlines() or [
        f"it ended with code {done.returncode}"
    ]
    return said[-1]
