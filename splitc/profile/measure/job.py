"""The model and settings of a profiling job, and functions that all ways of profiling share."""

import signal
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from splitc.common.errors import ProfileError
from splitc.common.formatting import plural
from splitc.common.values import Feeds
from splitc.model.model import Model
from splitc.profile.document import Measurement, Profile, parse_profile

Say = Callable[[str], None]
"""Called with one short line of progress at a time."""

PROGRAM = "onnxruntime_cpu.py"
_GRACE_S = 5.0
_SAID_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class ProfileJob:
    """A model to profile, with inputs and settings.

    Attributes:
        feeds: inputs, one set for each sizing.
        threads: thread counts to profile with.
        runs: timed runs for each thread count and sizing; None for as many as a stable median needs.
        timeout_s: limit for the whole job, from the first connection to the clean-up.
        custom_ops: libraries of custom operators, as the target finds them.
    """

    model: Model
    feeds: tuple[Feeds, ...]
    threads: tuple[int, ...]
    runs: int | None = None
    timeout_s: float = 1800.0
    custom_ops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended.

    Attributes:
        code: its exit status; if negative, the number of the signal that ended it.
        said: its last non-empty line on stderr, or "".
    """

    code: int
    stdout: bytes
    said: str


def files(model: Model) -> dict[str, Path]:
    """Return the files of *model* by their paths relative to the folder of the .onnx file, which comes first."""
    folder = model.path.absolute().parent
    found = (model.path, *model.external)
    return {path.absolute().relative_to(folder).as_posix(): path for path in found}


def dims(model: Model, feeds: Feeds) -> dict[str, int]:
    """Return the sizes of the model's symbolic dimensions in *feeds*."""
    return {
        dim: size
        for item in model.inputs()
        if item.name in feeds
        for dim, size in zip(item.shape, feeds[item.name].shape, strict=False)
        if isinstance(dim, str)
    }


def write_feeds(feeds: Feeds, path: Path) -> None:
    """Write *feeds* as an .npz file; input names may contain any characters.

    Types that numpy lacks (bfloat16) are written as unsigned integers of equal size, strings as numpy strings.
    """
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, array in feeds.items():
            if array.dtype.kind == "O":
                plain = array.astype(str)
            elif array.dtype.kind == "V":  # what ml_dtypes adds to numpy
                plain = array.view(f"u{array.dtype.itemsize}")
            else:
                plain = array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(plain), allow_pickle=False)


def program_options(job: ProfileJob, inputs: Sequence[str]) -> list[str]:
    """Return the options of `onnxruntime_cpu.py` for *job*; *inputs* are paths of .npz files for the program."""
    options = ["--threads", ",".join(map(str, job.threads)), "--model-id", job.model.sha256]
    for path in inputs:
        options += ["--inputs", path]
    for library in job.custom_ops:
        options += ["--custom-ops", library]
    return options if job.runs is None else [*options, "--runs", str(job.runs)]


def printed_profile(stdout: bytes, job: ProfileJob, where: str) -> Profile:
    """Return the profile of *job* that a program printed.

    Args:
        where: where it ran, such as "on this machine", for messages.

    Raises:
        ProfileError: it is not a profile, or not of this job.
    """
    subject = f"output of profiling {job.model.name} {where}"
    if not stdout.strip():
        raise ProfileError(
            f"profiling {job.model.name} {where} printed nothing; run the profiler there by hand"
        )
    profile = parse_profile(stdout, subject)
    if profile.model != job.model.sha256:
        raise ProfileError(f"{subject}: a profile of another model ({profile.model[:12]}...)")
    wanted = [(threads, dims(job.model, feeds)) for threads in job.threads for feeds in job.feeds]
    if len(wanted) != len(profile.measurements):
        raise ProfileError(f"{subject}: {len(profile.measurements)} measurements instead of {len(wanted)}")
    pairs = zip(profile.measurements, wanted, strict=True)
    measurements = tuple(_named(item, threads, sizes, subject) for item, (threads, sizes) in pairs)
    return replace(profile, measurements=measurements)


def _named(found: Measurement, threads: int, sizes: dict[str, int], subject: str) -> Measurement:
    """Return *found* with splitc's names of unnamed dimensions, which the program does not know."""
    if found.threads != threads or any(sizes.get(name, size) != size for name, size in found.dims.items()):
        raise ProfileError(
            f"{subject}: a measurement with {_sizes(found.threads, found.dims)} instead of {_sizes(threads, sizes)}"
        )
    return replace(found, dims=sizes)


def _sizes(threads: int, sizes: Mapping[str, int]) -> str:
    named = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "no dimensions"
    return f"{plural(threads, 'thread')} and {named}"


def failure(done: Finished, job: ProfileJob, where: str) -> ProfileError:
    """Return the error about a program that failed *where*."""
    start = f"profiling {job.model.name} {where} failed"
    if done.code < 0 or done.code > 128:  # noqa: PLR2004 - a shell adds 128 to the number of a signal
        number = -done.code if done.code < 0 else done.code - 128
        names = {item.value: item.name for item in signal.Signals}
        name = names.get(number, f"signal {number}")
        hint = "; it may have run out of memory" if name == "SIGKILL" else ""
        return ProfileError(f"{start}: it was ended by {name}{hint}")
    return ProfileError(f"{start}: {done.said or f'it ended with code {done.code} and no message'}")


def run(
    command: Sequence[str],
    job: ProfileJob,
    say: Say,
    *,
    timeout_s: float | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
) -> Finished:
    """Run *command* to its end; each line on its stderr is passed to *say* as it arrives.

    If the wait is interrupted (by a timeout, Ctrl-C or a signal), the process is ended first.

    Args:
        timeout_s: by default, that of *job*.

    Raises:
        ProfileError: it took longer than *timeout_s*, or cannot be started.
    """
    limit_s = job.timeout_s if timeout_s is None else timeout_s
    deadline = time.monotonic() + limit_s
    with tempfile.TemporaryFile() as out:
        try:
            process = subprocess.Popen(
                command, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=env
            )
        except OSError as error:
            raise ProfileError(f"{command[0]} cannot be started: {error.strerror}") from error
        lines: list[str] = []
        assert process.stderr is not None, "a pipe was requested"
        listener = threading.Thread(target=_listen, args=(process.stderr, lines), daemon=True)
        listener.start()
        try:
            _wait(process, lines, say, deadline)
        except subprocess.TimeoutExpired as error:
            raise ProfileError(
                f"profiling {job.model.name} took longer than {limit_s:g} s; try fewer runs or a smaller model"
            ) from error
        finally:
            end(process)
            # Children of the process may keep its stderr open; their output is ignored.
            listener.join(timeout=1.0)
        out.seek(0)
        said = lines[-1][:_SAID_CHARACTERS] if lines else ""
        return Finished(process.returncode, out.read(), said)


def end(process: subprocess.Popen[bytes]) -> None:
    """End *process* if it still runs: with SIGTERM, so that it can clean up, then with SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _listen(stream: IO[bytes], lines: list[str]) -> None:
    with stream:
        words = (line.decode(errors="replace").split() for line in stream)
        lines.extend(" ".join(line) for line in words if line)


def _wait(process: subprocess.Popen[bytes], lines: list[str], say: Say, deadline: float) -> None:
    """Wait for the end of *process*; *say* is called from this thread, because it may write to a terminal."""
    shown = 0
    while True:
        try:
            process.wait(max(0.0, min(0.1, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise
        while shown < len(lines):
            say(lines[shown])
            shown += 1
        if process.returncode is not None:
            return
