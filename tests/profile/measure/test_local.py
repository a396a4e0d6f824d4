"""Profiling on this machine: a process of its own, whatever becomes of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.common.values import random_feeds
from splitc.model.model import load
from splitc.profile.document import write_profile
from splitc.profile.measure import local
from splitc.profile.measure.job import (
    PROGRAM,
    Finished,
    ProfileJob,
    dims,
    failure,
    files,
    printed_profile,
    run,
    write_feeds,
)
from tests import models, profiles
from tests.running import save_tiny


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def job(tmp_path: Path) -> ProfileJob:
    model = load(save_tiny("dynamic_batch", tmp_path))
    return ProfileJob(model, (random_feeds(model.inputs(), {"batch": 2}, 0),), (1,), runs=2)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, in which nothing may remain."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_every_thread_count_and_sizing(job: ProfileJob, temporary: Path) -> None:
    del temporary
    feeds = tuple(random_feeds(job.model.inputs(), {"batch": size}, 0) for size in (1, 3))
    said: list[str] = []
    profile = local.profile_here(replace(job, feeds=feeds, threads=(1, 2)), said.append)
    assert [(item.threads, item.dims) for item in profile.measurements] == [
        (1, {"batch": 1}),
        (1, {"batch": 3}),
        (2, {"batch": 1}),
        (2, {"batch": 3}),
    ]
    assert profile.model == job.model.sha256
    assert all(len(item.whole_s) == len(item.fixed_s) == 2 and item.nodes for item in profile.measurements)
    assert any("2 threads, batch=3" in line for line in said)


def test_measured_once_then_kept(job: ProfileJob, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first = local.profile_here_once(job, cache, quiet)
    assert local.profile_here_once(job, cache, quiet) == first
    (path,) = (tmp_path / "cache" / "profiles").iterdir()
    path.write_text('{"splitc_profile": 1}', encoding="utf-8")  # damaged: it is measured anew
    assert json.loads(path.read_bytes()) != encode(first)
    again = local.profile_here_once(job, cache, quiet)
    assert json.loads(path.read_bytes()) == encode(again)
    local.profile_here_once(replace(job, runs=3), cache, quiet)
    other = {"x": job.feeds[0]["x"] + 1}
    local.profile_here_once(replace(job, feeds=(other,)), cache, quiet)
    assert len(list((tmp_path / "cache" / "profiles").iterdir())) == 3


def test_a_program_that_fails_is_quoted(job: ProfileJob, temporary: Path) -> None:
    del temporary
    wrong = replace(job, feeds=({"x": np.ones((9, 9), np.float32)},))
    with pytest.raises(
        ProfileError,
        match=r"^profiling dynamic_batch on this machine failed: the model cannot run with these inputs",
    ) as raised:
        local.profile_here(wrong, quiet)
    assert "\n" not in str(raised.value)


def test_a_program_that_takes_too_long(job: ProfileJob, temporary: Path) -> None:
    del temporary
    with pytest.raises(ProfileError, match=r"took longer than 0\.5 s"):
        local.profile_here(replace(job, runs=10_000_000, timeout_s=0.5), quiet)


def test_interrupted(job: ProfileJob, temporary: Path) -> None:
    """Ctrl-C while the program runs ends it, and its files go with ours."""
    seen: list[str] = []

    def say(line: str) -> None:
        seen.append(line)
        if line.startswith("timing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.profile_here(replace(job, runs=10_000_000), say)
    assert seen[-1].startswith("timing")
    assert not list(temporary.iterdir())


# --- what every way shares ---


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_are_passed_on_as_they_come(job: ProfileJob) -> None:
    came: list[tuple[str, float]] = []
    code = "import sys, time\nprint('one  two', file=sys.stderr, flush=True)\nprint('out')\nsys.stderr.write('\\n')"
    code += "\nsys.stderr.flush()\nsys.stdin.read()\nprint('last', file=sys.stderr)\nsys.exit(3)"
    read, write = os.pipe()

    def say(line: str) -> None:
        came.append((line, time.monotonic()))
        if line == "one two":
            os.close(write)  # only now can the program go on

    with os.fdopen(read, "rb") as stdin:
        done = run(python(code), job, say, stdin=stdin)
    assert [line for line, _ in came] == ["one two", "last"]
    assert done == Finished(3, b"out\n", "last")


def test_a_program_that_holds_on_to_stderr_is_not_waited_for(job: ProfileJob) -> None:
    code = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'], stdout=subprocess.DEVNULL)"
    begun = threading.active_count()
    assert run(python(code), job, quiet).code == 0
    assert threading.active_count() <= begun + 1


def test_a_program_that_is_not_there(job: ProfileJob) -> None:
    with pytest.raises(ProfileError, match=r"^no-such-program cannot be started: No such file"):
        run(["no-such-program"], job, quiet)


def test_a_stubborn_program_is_killed(job: ProfileJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitc.profile.measure.job._GRACE_S", 0.1)
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(60)"
    with pytest.raises(ProfileError, match="took longer"):
        run(python(code), job, quiet, timeout_s=1.0)


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (Finished(1, b"", "it is broken"), "failed: it is broken"),
        (Finished(7, b"", ""), "failed: it ended with code 7 and no message"),
        (
            Finished(-signal.SIGKILL, b"", "timing"),
            "failed: it was ended by SIGKILL; it may have run out of memory",
        ),
        (Finished(128 + signal.SIGSEGV, b"", ""), "failed: it was ended by SIGSEGV"),
        (Finished(-99, b"", ""), "failed: it was ended by signal 99"),
    ],
)
def test_failure_is_one_sentence(done: Finished, message: str, job: ProfileJob) -> None:
    assert str(failure(done, job, "on a board")) == f"profiling dynamic_batch on a board {message}"


@pytest.mark.parametrize(
    ("stdout", "message"),
    [
        (b" \n", "profiling dynamic_batch there printed nothing"),
        (b"hello", "output of profiling dynamic_batch there: not a JSON profile"),
        (b'{"splitc_profile": 1}', "there: key 'model' is missing"),
        (b"MODEL", r"a profile of another model \(000000000000\.\.\.\)"),
        (b"COUNT", "2 measurements instead of 1"),
        (
            b"ORDER",
            "a measurement with 1 thread and batch=3 instead of 1 thread and batch=2",
        ),
        (
            b"THREADS",
            "a measurement with 4 threads and no dimensions instead of 1 thread and batch=2",
        ),
    ],
)
def test_what_is_printed_must_be_what_was_asked_for(
    stdout: bytes, message: str, job: ProfileJob, tmp_path: Path
) -> None:
    made: dict[bytes, Any] = {
        b"MODEL": profiles.profile(),
        b"COUNT": replace(profiles.full(), model=job.model.sha256),
        b"ORDER": profiles.profile(profiles.measurement(dims={"batch": 3}), model=job.model.sha256),
        b"THREADS": profiles.profile(profiles.measurement(threads=4), model=job.model.sha256),
    }
    if stdout in made:
        write_profile(made[stdout], tmp_path / "p.json")
        stdout = (tmp_path / "p.json").read_bytes()
    with pytest.raises(ProfileError, match=message):
        printed_profile(stdout, job, "there")


def test_a_dimension_without_a_name_gets_splitcs_own(tmp_path: Path) -> None:
    """ONNX Runtime does not name it, so neither does the program; a build looks for it all the same."""
    built = models.chain()
    for port in (*built.graph.input, *built.graph.output):
        port.type.tensor_type.shape.dim[0].Clear()
    onnx.save(built, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    feeds = random_feeds(model.inputs(), {"x:0": 2}, 0)
    (measurement,) = local.profile_here(ProfileJob(model, (feeds,), (1,), runs=1), quiet).measurements
    assert measurement.dims == {"x:0": 2}


def test_inputs_of_any_name_and_type_survive_the_file(tmp_path: Path) -> None:
    feeds: dict[str, npt.NDArray[Any]] = {
        "file": np.ones(2, np.float32),
        "a/b:0": np.zeros((0, 3), np.int64),
        "words": np.array(["one", "zwölf"], dtype=object),
        "half": np.ones((2, 2), "bfloat16"),
        "scalar": np.array(3),
    }
    write_feeds(feeds, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as read:
        assert set(read) == set(feeds)
        for name in ("file", "a/b:0", "scalar"):
            np.testing.assert_array_equal(read[name], feeds[name])
        assert read["words"].tolist() == ["one", "zwölf"]
        assert read["half"].tolist() == [[0x3F80, 0x3F80], [0x3F80, 0x3F80]]


def test_a_model_with_external_data_is_several_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "m.onnx"
    onnx.save(models.diamond(), path, save_as_external_data=True, location="deep/w.bin", size_threshold=0)
    assert files(load(path)) == {"m.onnx": path, "deep/w.bin": tmp_path / "deep" / "w.bin"}


def test_dims_are_read_off_the_feeds(job: ProfileJob) -> None:
    assert dims(job.model, job.feeds[0]) == {"batch": 2}
    assert dims(job.model, {}) == {}


def test_the_program_needs_no_splitc(tmp_path: Path) -> None:
    code = f"import runpy, sys\nsys.argv = ['x', '--help']\ntry:\n    runpy.run_path({str(shipped('profilers') / PROGRAM)!r}, run_name='__main__')\n"
    code += "except SystemExit:\n    pass\nprint('splitc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
