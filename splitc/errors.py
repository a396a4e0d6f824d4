"""Everything splitc raises on purpose.

SplitcError
├── ModelError      the ONNX file cannot be read, run, sized or cut
├── TargetError     a machine or network description is missing or wrong
├── ProfileError    times are missing, malformed, or belong to another model
├── NoFeasibleCut   pins, privacy or budgets leave no cut
├── VerifyError     a head and tail do not compute what the whole model computes
└── BundleError     a bundle or manifest is damaged, incomplete or of another version

Each message is one sentence: what is wrong, where, and what to do next.
"""


class SplitcError(Exception):
    """Root of all errors that splitc raises on purpose."""


class ModelError(SplitcError):
    """The ONNX file cannot be read, run, sized or cut."""


class TargetError(SplitcError):
    """A machine or network description is missing or wrong."""


class ProfileError(SplitcError):
    """Times are missing, malformed, or belong to another model."""


class NoFeasibleCut(SplitcError):  # noqa: N818 - the name says what happened
    """Pins, privacy or budgets leave no cut."""


class VerifyError(SplitcError):
    """A head and tail do not compute what the whole model computes."""


class BundleError(SplitcError):
    """A bundle or manifest is damaged, incomplete or of another version."""
