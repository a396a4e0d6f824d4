"""The errors that splitc raises on purpose.

SplitcError
├── ModelError      the ONNX file cannot be read, run, sized or cut
│   └── InputsRefused   ONNX Runtime fails on given inputs (in splitc.common.ort)
├── TargetError     a machine or network description is missing or wrong
├── ProfileError    times are missing, malformed, or belong to another model
├── NoFeasibleCut   pins, privacy or budgets leave no cut
├── VerifyError     a head and tail do not compute what the whole model computes
├── BundleError     a bundle or manifest is damaged, incomplete or of another version
├── TestBedError    an emulated link or a slowed process cannot be set up, or has stopped
├── RecordError     a JSON value does not have the required form (in splitc.common.records)
└── RuntimeFailure  a request to a running head and tail failed
    ├── InputError        an input is missing, unknown, or of a wrong type or shape
    ├── TransportError    the server cannot be reached, or the connection broke
    ├── DeadlineExceeded  no result arrived before the deadline
    ├── ProtocolError     a message violates the protocol
    ├── ServerRefused     the server answered with an error
    └── QueueFull         the server has too many requests waiting (in splitc.server.batching)

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


class RuntimeFailure(SplitcError):  # noqa: N818 - not an error of the caller
    """A request to a running head and tail failed."""


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
    """No result arrived before the deadline."""


class ProtocolError(RuntimeFailure):
    """A message violates the protocol.

    Attributes:
        status: the HTTP status to answer the sender with.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ServerRefused(RuntimeFailure):
    """The server answered with an error.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds to wait before the next request, if the server sent this.
        price: the price of one second of server time, in seconds of latency, if the server sent this.
    """

    def __init__(
        self, message: str, *, status: int, retry_after_s: float | None = None, price: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.price = price


class TestBedError(SplitcError):
    """The test bed cannot be set up or has stopped, or its settings are invalid."""

    __test__ = False  # otherwise pytest treats it as a class of tests
