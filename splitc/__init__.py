"""splitc: split ONNX models between a device and the cloud."""

from splitc.bundle import Bundle, read_bundle
from splitc.decision import Conditions, Decision, decide
from splitc.errors import SplitcError

__all__ = ["Bundle", "Conditions", "Decision", "SplitcError", "decide", "read_bundle"]
