"""Programs that do what they are told: a line of JSON on stdin, a line of JSON back.

Each runs on one core or some, and on the side of a test bed that it was started on.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from splitc.common.errors import SplitcError
from splitc.testbed.slow import Slowed

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0
PORT = 8000  # in a namespace, which nothing else is in

_CORES = sorted(os.sched_getaffinity(0))
CLOUD_CORE, DEVICE_CORE = _CORES[0], _CORES[-1]

Commands = Mapping[str, Callable[..., Any]]


class BenchError(SplitcError):
    """A measurement cannot be made."""


class Start(Protocol):
    """Starts a program somewhere: `subprocess.Popen`, or `Bed.start` for one side."""

    def __call__(
        self,
        command: Sequence[str | Path],
        /,
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start *command*."""
        ...


def here(command: Sequence[str | Path], /, **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a program outside any bed."""
    return subprocess.Popen(list(map(str, command)), **streams)


class Program:
    """`python -m benchmarks.running.<name>`, and what it is asked to do."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def ask(self, what: str, **given: object) -> Any:
        """Have it do *what*; return what came of it.

        Raises:
            BenchError: it ended, or takes too long; what it wrote on stderr says why.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([what, given]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError(f"a program of the benchmark has ended before '{what}'") from error
        if not select.select([self.process.stdout], [], [], PATIENCE_S)[0]:
            raise BenchError(f"'{what}' takes longer than {PATIENCE_S:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(f"a program of the benchmark ended during '{what}'")
        return json.loads(line)

    @contextmanager
    def slowed(self, factor: float) -> Iterator[None]:
        """Let it compute so many times as slowly while the block runs."""
        if factor == 1:
            yield
            return
        with Slowed(self.process.pid, factor):
            yield


@contextmanager
def running(name: str, start: Start, *cores: int) -> Iterator[Program]:
    """Run the module *name* of this package on *cores*."""
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", f"benchmarks.running.{name}"]
    process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield Program(process)
    finally:
        end(process)


@contextmanager
def serving(
    bundles: Sequence[Path], folder: Path, start: Start, host: str, *options: str, port: int = PORT
) -> Iterator[str]:
    """Run `splitc serve` with one thread on the cloud's core; yield its URL."""
    command: list[str | Path] = ["taskset", "-c", str(CLOUD_CORE), sys.executable, "-m", "splitc", "serve"]
    command += bundles
    command += ["--host", host, "--port", str(port), "--threads", "1", "--json", *options]
    command += ["--cache-dir", folder / "cache"]
    with (folder / "server.log").open("ab") as log:
        process = start(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield _url(process.stdout, folder / "server.log")
    finally:
        end(process)


def _url(stream: IO[bytes], log: Path) -> str:
    text = b""
    for line in stream:
        text += line
        try:
            url: str = json.loads(text)["url"]
        except ValueError:
            continue
        return url
    last = log.read_text(encoding="utf-8").strip().splitlines()[-3:]
    raise BenchError(f"the server did not start: {' '.join(last)}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """End *process*, politely first."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def obey(commands: Commands) -> None:
    """Be such a program until stdin ends."""
    for line in sys.stdin:
        what, given = json.loads(line)
        print(json.dumps(commands[what](**given)), flush=True)
