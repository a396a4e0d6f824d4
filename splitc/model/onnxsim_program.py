"""Simplify one ONNX file: `python onnxsim_program.py SOURCE TARGET`. Started by `simplify.py`.

Weights go into a file beside TARGET, so that loading the result leaves them on disk.
"""

import sys
from pathlib import Path

import onnx
import onnxsim

# Shape inference reads small constants, and does not look into external data.
_INLINE_BYTES = 1024


def main(source: str, target: str) -> None:
    """Write the simplified model; any exception ends the process with its text on stderr."""
    proto, _ = onnxsim.simplify(onnx.load_model(source))
    onnx.save_model(
        proto,
        target,
        save_as_external_data=True,
        location=Path(target).name + ".data",
        size_threshold=_INLINE_BYTES,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
