"""Simplify one ONNX file: `python onnxsim_program.py SOURCE TARGET`. Started by `simplify.py`.

Weights are written to a file beside TARGET, so that they need not be loaded with the model.
"""

import sys
from pathlib import Path

import onnx
import onnxsim

# Smaller tensors stay in the model: shape inference needs small constants and does not read external data.
_INLINE_BYTES = 1024


def main(source: str, target: str) -> None:
    """Write the simplified model; an exception ends the process, and its text goes to stderr."""
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
