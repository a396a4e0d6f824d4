"""Exchange data with a program that connects to another machine (ssh, adb), always with a time limit."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

BEAT_S = 5.0
LINGER_S = 5.0
_TICK_S = 0.1
_GRACE_S = 1.0
_CHUNK_BYTES = 1 << 16
_KEPT_BYTES = 1 << 16  # of stderr: its end says why
_LINE_BYTES = 1 << 28  # longer than any profile


class Talk:
    """A running program.

    Attributes:
        linger_s: how long it may take to end by itself after its stdin is closed.
    """

    def __init__(self, process: subprocess.Popen[bytes], linger_s: float) -> None:
        self.process = process
        self.linger_s = linger_s
        self._err = b""

    @property
    def err(self) -> str:
        """The end of its output on stderr."""
        return self._err.decode(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit status, or if negative, the number of the signal that ended it; None while it runs."""
        return self.process.returncode

    def lines(
        self, outgoing: Iterable[bytes] = (), *, until: float, beat: bytes | None = None
    ) -> Iterator[bytes]:
        """Send *outgoing* and yield the lines of stdout as they arrive, until the program has ended.

        Args:
            until: the time limit, on the clock of `time.monotonic`.
            beat: sent every few seconds after *outgoing*, to show the other side that this process is alive;
                if None, stdin is closed after *outgoing*.

        Raises:
            TimeoutError: the program still runs at *until*.
        """
        stdin, stdout, stderr = _pipes(self.process)
        with selectors.DefaultSelector() as selector:
            for pipe in (stdout, stderr):
                selector.register(pipe, selectors.EVENT_READ)
            sender = _Sender(selector, stdin, iter(outgoing), beat)
            line = b""
            ended_s: float | None = None
            # Its children may keep its pipes open forever.
            while ended_s is None or (
                _open(selector, (stdout, stderr)) and time.monotonic() < ended_s + _GRACE_S
            ):
                if time.monotonic() > until:
                    raise TimeoutError
                if ended_s is None and self.process.poll() is not None:
                    ended_s = time.monotonic()
                tick_s = _TICK_S if _open(selector, (stdout, stderr)) else _TICK_S / 20  # it is about to end
                ready = [key.fileobj for key, _ in selector.select(tick_s)]
                if stdin in ready:
                    sender.send()
                if stderr in ready:
                    self._err = (self._err + _read(selector, stderr))[-_KEPT_BYTES:]
                if stdout in ready:
                    *whole, line = (line + _read(selector, stdout)).split(b"\n")
                    yield from whole
                    line = line if len(line) < _LINE_BYTES else b""
                sender.beat()
            if line:
                yield line


def _read(selector: selectors.BaseSelector, pipe: IO[bytes]) -> bytes:
    data = os.read(pipe.fileno(), _CHUNK_BYTES)
    if not data:
        selector.unregister(pipe)
    return data


def _open(selector: selectors.BaseSelector, pipes: Iterable[IO[bytes]]) -> bool:
    watched = selector.get_map()
    return any(pipe in watched for pipe in pipes)


class _Sender:
    """Writes to a pipe whenever the pipe accepts data."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        stdin: IO[bytes],
        outgoing: Iterator[bytes],
        beat: bytes | None,
    ) -> None:
        self._selector, self._stdin, self._outgoing, self._beat = selector, stdin, outgoing, beat
        self._left = memoryview(b"")
        self._next_s = 0.0
        self._waits = False
        if not stdin.closed:
            os.set_blocking(stdin.fileno(), False)
            self._wait()

    def _wait(self) -> None:
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        self._waits = True

    def send(self) -> None:
        """Write as much as the pipe accepts; call when the pipe is ready."""
        if not self._left:
            self._left = memoryview(next(self._outgoing, b""))
        try:
            if self._left:
                self._left = self._left[os.write(self._stdin.fileno(), self._left[:_CHUNK_BYTES]) :]
                return
        except BlockingIOError:
            return
        except OSError:  # the program has closed its stdin; its output tells why
            self._beat = None
        self._selector.unregister(self._stdin)
        self._waits = False
        self._next_s = time.monotonic() + BEAT_S
        if self._beat is None:
            with suppress(OSError):
                self._stdin.close()

    def beat(self) -> None:
        """Schedule a beat if one is due; call often."""
        if self._beat is not None and not self._waits and time.monotonic() > self._next_s:
            self._left = memoryview(self._beat)
            self._wait()


@contextmanager
def talk(
    command: Sequence[str],
    *,
    apart: bool = True,
    linger_s: float = LINGER_S,
    env: Mapping[str, str] | None = None,
) -> Iterator[Talk]:
    """Start *command*; when the block ends, in any way, end it and its children.

    Its stdin is closed first, which tells the other machine to clean up; it then has *linger_s* to end by itself.

    Args:
        apart: run it in a new session without a terminal, so that it cannot ask for a password.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=apart,
        env=env,
    )
    program = Talk(process, linger_s)
    try:
        yield program
    finally:
        _end(process, apart, program.linger_s)


def run(command: Sequence[str], *, until: float) -> tuple[int, str, str]:
    """Run *command* to its end; return its exit status, stdout and stderr.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it was still running at *until* and was ended.
    """
    with talk(command, linger_s=0) as program:
        out = b"\n".join(program.lines(until=until))
    return program.code or 0, out.decode(errors="replace"), program.err


def _end(process: subprocess.Popen[bytes], apart: bool, linger_s: float) -> None:
    stdin, *others = _pipes(process)
    try:
        with suppress(OSError):
            stdin.close()
        for patience_s, number in ((linger_s, signal.SIGTERM), (_GRACE_S, signal.SIGKILL)):
            if _waited(process, patience_s):
                return
            _signal(process, number, apart)
    except BaseException:
        # For example a second Ctrl-C: do not wait any longer.
        _signal(process, signal.SIGKILL, apart)
        raise
    finally:
        process.wait()
        for pipe in others:
            pipe.close()


def _waited(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: int, apart: bool) -> None:
    if process.poll() is not None:
        return  # its process id may already belong to another process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number) if apart else process.send_signal(number)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr
