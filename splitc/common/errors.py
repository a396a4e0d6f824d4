"""Everything splitc raises on purpose.

SplitcError
├── ModelError      the ONNX file cannot be read, run, sized or cut
├── TargetError     a machine or network description is missing or wrong
├── ProfileError    times are missing, malformed, or belong to another model
├── NoFeasibleCut   pins, privacy or budgets leave no cut
├── VerifyError     a head and tail do not compute what the whole model computes
├── BundleError     a bundle or manifest is damaged, incomplete or of another version
├── TestBedError    an emulated link or a slowed process cannot be had
└── RuntimeFailure  what may go wrong while a pair runs
    ├── InputError        an input is missing, unknown, or of a wrong type or shape
    ├── TransportError    the server cannot be reached, or the connection broke
    ├── DeadlineExceeded  there is no result in time
    ├── ProtocolError     a message is not what the protocol allows
    └── ServerRefused     the server answered with an error

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


class RuntimeFailure(SplitcError):  # noqa: N818 - not an error of the one who calls
    """Something went wrong while a pair ran."""


class InputError(RuntimeFailure):
    """An input is missing, unknown, or of a wrong type or shape."""


class TransportError(RuntimeFailure):
    """The server cannot be reached, or the connection broke.

    Attributes:
        sent: whether the server may have seen the whole request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class DeadlineExceeded(RuntimeFailure):
    """There is no result in time."""


class ProtocolError(RuntimeFailure):
    """A message is not what the protocol allows.

    Attributes:
        status: the HTTP status that tells its sender.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ServerRefused(RuntimeFailure):
    """The server answered with an error.

    Attributes:
        status: the HTTP status.
        retry_after_s: when it wants to be asked again, if it said so.
        price: what a second of it costs, in seconds of latency, if it said so.
    """

    def __init__(
        self, message: str, *, status: int, retry_after_s: float | None = None, price: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.price = price


class TestBedError(SplitcError):
    """The test bed cannot be made, or has ended; or what it was told to emulate makes no sense."""

    __test__ = False  # or pytest takes it for tests, where it is imported
