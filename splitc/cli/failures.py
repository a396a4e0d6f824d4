"""Report each kind of failure in one sentence on stderr, and return the exit code."""

import errno
import os
import tempfile
import traceback
from contextlib import suppress

from splitc.cli.streams import tell

FAILED, MISUSED = 1, 2
DEBUG = "SPLITC_DEBUG"
"""The environment variable that shows tracebacks."""

_ADVICE = {
    errno.ENOSPC: "free some disk space, or write to another place",
    errno.EDQUOT: "free some disk space, or write to another place",
    errno.EFBIG: "raise the limit on file sizes, or write to another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EROFS: "choose another place",
    errno.ELOOP: "remove the link that leads to itself",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PRINTERS = ("click.", "rich.", "splitc.cli.failures", "splitc.cli.main", "splitc.cli.streams")
_STDOUT = 1


def fail(message: str, advice: str = "", code: int = FAILED) -> int:
    """Print *message* on one line, even if a library wrote it on several."""
    _tell(f"error: {' '.join(message.split())}{advice}")
    return code


def interrupted(code: int) -> int:
    """Say that a signal ended the program."""
    _tell("interrupted")
    return code


def system_failure(error: OSError) -> int:
    """Report what the system refused, and at which place."""
    where = error.filename if isinstance(error.filename, str) else ""
    if not where and _was_printing(error):
        # the interpreter must not flush it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        where = "standard output"
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe
        return FAILED
    if not where and error.errno in _FULL:
        where = f"a file, perhaps a temporary one in {tempfile.gettempdir()}, cannot be written"
    reason = error.strerror or str(error) or type(error).__name__
    advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
    return fail(f"{where}: {reason}" if where else reason, advice)


def out_of_memory(error: MemoryError) -> int:
    """Report that memory does not suffice."""
    reason = f" ({error})" if str(error) else ""
    return fail(f"there is not enough memory{reason}; use smaller inputs, or a machine with more memory")


def fault(error: Exception) -> int:
    """Report an error that nobody foresaw, and keep its details for the report of a bug."""
    details = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG):
        for line in details.splitlines():
            _tell(line)
        kept = "details are above"
    else:
        kept = _keep(details)
    modules = _modules(error)
    module, line_number = next(
        (item for item in reversed(modules) if item[0].startswith("splitc.")), modules[-1]
    )
    what = f"{type(error).__name__} at {module}:{line_number}"
    return fail(f"splitc met a fault of its own: {what}; {kept}; please report it")


def _keep(details: str) -> str:
    try:
        number, path = tempfile.mkstemp(prefix="splitc-fault-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(details)
    except OSError:
        return f"{DEBUG}=1 shows details"
    return f"details are in {path}"


def _was_printing(error: OSError) -> bool:
    modules = _modules(error)
    return bool(modules) and modules[-1][0].startswith(_PRINTERS)


def _modules(error: BaseException) -> list[tuple[str, int]]:
    """The module and line of each call that *error* passed through; the last one raised it."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(str(frame.f_globals.get("__name__", "?")), line) for frame, line in frames]


def _tell(text: str) -> None:
    with suppress(OSError):  # stderr may be full, too; the exit code still tells
        tell(text)
