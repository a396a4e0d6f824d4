"""Standard streams that nothing can break: closed ones go nowhere, and letters that they lack are replaced."""

import codecs
import os
import sys
from typing import TextIO

from splitc.common.formatting import escape_controls

_ERRORS = "splitc-replace"
_PLAIN = {0xB5: "u", 0xD7: "x", 0x2013: "-", 0x2022: "*", 0x2026: "...", 0x2713: "*"}


def say(text: str) -> None:
    """Print the line *text* on stdout; control characters become escapes."""
    write_line(sys.stdout, escape_controls(text))


def tell(text: str) -> None:
    """Print the line *text* on stderr: progress, a warning or an error; control characters become escapes."""
    write_line(sys.stderr, escape_controls(text))


def write_line(stream: TextIO | None, text: str) -> None:
    """Write *text* and a line break, if there is a stream; a program without a terminal has none."""
    if stream is not None:
        stream.write(f"{text}\n")
        stream.flush()


def show_cursor() -> None:
    """Show the cursor again, which a progress display hides, if stderr is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")


def steady_streams() -> None:
    """Prepare the standard streams of this process, before a file is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except (
            OSError
        ):  # it was closed by the caller: else the next file to be opened would become this stream
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_ERRORS, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by letters that look alike, or else by escapes."""
    assert isinstance(error, UnicodeEncodeError), "only output is replaced"
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
