"""What goes wrong with a test bed."""

from splitc.common.errors import SplitcError


class TestBedError(SplitcError):
    """The test bed cannot be made, or has ended; or what it was told to emulate makes no sense."""

    __test__ = False  # or pytest takes it for tests, where it is imported
