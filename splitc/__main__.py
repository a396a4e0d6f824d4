"""`splitc`, also as `python -m splitc`."""

import os
import signal
import sys
from types import FrameType
from typing import Never


def main() -> None:
    """Start the command line; if a library is missing, say what to install."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)  # while libraries are imported, there is nothing to clean up
    from splitc.cli.streams import steady_streams  # noqa: PLC0415 - after the signal

    steady_streams()
    try:
        from splitc.cli.main import main as start  # noqa: PLC0415 - so that its absence can be explained
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "splitc":
            raise
        sys.exit(
            f"error: the command line needs {error.name}; install it with `pip install 'splitc[compile]'`"
        )
    try:
        start()
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, _frame: FrameType | None) -> Never:
    """End at once."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
