"""Profile on this machine, in a separate process, whose threads and crashes do not affect the compiler."""

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.ort import RUNTIME_VERSION
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.profile.document import Profile, decode_profile
from splitc.profile.measure.job import (
    PROGRAM,
    ProfileJob,
    Say,
    dims,
    failure,
    printed_profile,
    program_options,
    run,
    write_feeds,
)

_WHERE = "on this machine"


def profile_here(job: ProfileJob, say: Say) -> Profile:
    """Profile *job* on this machine.

    Raises:
        ProfileError: the program failed; the message contains its output.
    """
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        inputs = [str(Path(folder) / f"inputs{number}.npz") for number in range(len(job.feeds))]
        for path, feeds in zip(inputs, job.feeds, strict=True):
            write_feeds(feeds, Path(path))
        program = shipped("profilers") / PROGRAM
        command = [sys.executable, "-P", str(program), str(job.model.path), *program_options(job, inputs)]
        # With TMPDIR, temporary files of the program are removed with the folder even if it is killed.
        done = run(command, job, say, env={**os.environ, "TMPDIR": folder})
    if done.code:
        raise failure(done, job, _WHERE)
    return printed_profile(done.stdout, job, _WHERE)


def profile_here_once(job: ProfileJob, cache: Cache, say: Say) -> Profile:
    """Return the cached profile of *job*, or profile it on this machine and cache the result.

    Raises:
        ProfileError: see `profile_here`.
    """
    key = _key(job)
    with suppress(ProfileError):  # missing or damaged: measure again
        return decode_profile(cache.get("profiles", key), "cache")
    profile = profile_here(job, say)
    cache.put("profiles", key, encode(profile))
    return profile


def _key(job: ProfileJob) -> tuple[object, ...]:
    """Return everything that a profile of *job* made on this machine depends on."""
    program = hashlib.sha256((shipped("profilers") / PROGRAM).read_bytes()).hexdigest()
    feeds = hashlib.sha256()
    for values in job.feeds:
        for name in sorted(values):
            array = values[name]
            feeds.update(f"{name} {array.dtype} {array.shape} ".encode())
            feeds.update(array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode())
    sizes = [dims(job.model, values) for values in job.feeds]
    return (
        *(job.model.sha256, "local", RUNTIME_VERSION, list(job.threads), sizes),
        *(feeds.hexdigest(), job.runs, program),
    )
