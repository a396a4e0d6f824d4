"""Models to try splitc on, built here with seeded random weights: nothing to download, nothing to train.

Random weights give a trained model's shapes and times, not its answers.
"""

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from onnx import ModelProto

from splitc.common.errors import ModelError
from splitc.common.files import refuse_special
from splitc.samples.classifiers import REGNET_Y_4GF, REGNET_Y_400MF, regnet_y, tiny_cnn

SAMPLES: dict[str, Callable[[], ModelProto]] = {
    REGNET_Y_400MF.name: lambda: regnet_y(REGNET_Y_400MF),
    REGNET_Y_4GF.name: lambda: regnet_y(REGNET_Y_4GF),
    tiny_cnn.__name__: tiny_cnn,
}
"""The samples that are one model; other modules of this package build the pipelines."""


def write_sample(name: str, path: Path, *, replaces: bool = False) -> None:
    """Build the sample and write it to *path*: the same bytes each time. If *path* is a link, its target is written.

    Args:
        replaces: whether to replace a file with other contents.

    Raises:
        ModelError: there is no such sample, or another file is at *path*.
    """
    if name not in SAMPLES:
        close = get_close_matches(name, SAMPLES, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(SAMPLES)}"
        raise ModelError(f"there is no sample named {name!r}; {advice}")
    refuse_special(path)
    data = SAMPLES[name]().SerializeToString(deterministic=True)
    if os.path.lexists(path) and not replaces and not (path.is_file() and path.read_bytes() == data):
        raise ModelError(f"{path}: exists; choose another name with -o, or replace it with --force")
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
