"""Profiling over SSH, against a real server on loopback."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.model.analysis import AnalysisOptions, analyse
from splitc.model.model import load
from splitc.profile.attribution import measured_times
from splitc.profile.measure.job import ProfileJob
from splitc.profile.measure.ssh import profile_over_ssh
from tests import models
from tests.profile.measure.boards import Board, board, eventually, script
from tests.running import save_tiny

PROGRAM = """
import sys
from pathlib import Path
from tests.profile.measure.test_ssh import make_job
from splitc.profile.measure.ssh import profile_over_ssh
job = make_job(Path(sys.argv[1]), runs=1_000_000)
profile_over_ssh(job, "board", lambda line: print(line, flush=True), python=sys.argv[2])
"""


def make_job(
    model: Path, *, runs: int = 5, threads: tuple[int, ...] = (1,), timeout_s: float = 120.0
) -> ProfileJob:
    loaded = load(model)
    shapes = {item.name: [size for size in item.shape if isinstance(size, int)] for item in loaded.inputs()}
    feeds = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return ProfileJob(loaded, (feeds,), threads, runs, timeout_s)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with board(tmp_path_factory.mktemp("board")) as started:
        yield started


@pytest.fixture(autouse=True)
def client(here: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", here.path)


@pytest.fixture
def job(tmp_path: Path) -> ProfileJob:
    return make_job(save_tiny("tiny_cnn", tmp_path))


def refusal(job: ProfileJob, host: str, python: str = "python3") -> str:
    with pytest.raises(ProfileError) as raised:
        profile_over_ssh(job, host, lambda _: None, python=python)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- it works ---


def test_a_profile_comes_back_and_nothing_stays(here: Board, tmp_path: Path) -> None:
    found = analyse(
        save_tiny("tiny_cnn", tmp_path),
        AnalysisOptions({}, (), simplify=False),
        tmp_path,
        Cache(None),
        lambda _: None,
    )
    said: list[str] = []
    profile = profile_over_ssh(
        ProfileJob(found.model, found.feeds[:1], (1, 2), 5), "board", said.append, python=here.python
    )
    assert [item.threads for item in profile.measurements] == [1, 2]
    assert profile.model == found.model.sha256
    for measurement in profile.measurements:
        assert len(measurement.whole_s) == 5
        times = measured_times(profile, measurement, "board", found.sources, found.partition)
        assert max(times.seconds) > 0
        assert sum(times.seconds) + (times.fixed_s or 0.0) == pytest.approx(median(measurement.whole_s))
    assert said[0] == "connecting to board"
    assert any("2 threads" in line for line in said)
    assert here.untouched()


def test_external_data_in_a_folder_travels_too(here: Board, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    (tmp_path / "poids é").mkdir()
    onnx.save_model(
        models.diamond(),
        path,
        save_as_external_data=True,
        location="poids é/w 1.bin",
        size_threshold=0,
    )
    job = make_job(path)
    profile = profile_over_ssh(job, f"127.0.0.1:{here.port}", lambda _: None, python=here.python)
    assert profile.model == job.model.sha256
    assert here.untouched()


def test_greetings_of_the_login_shell_are_passed_over(job: ProfileJob, tmp_path: Path) -> None:
    greeting = 'printf Welcome; eval "$SSH_ORIGINAL_COMMAND"; echo "[bye]"'
    with board(tmp_path, force=greeting) as other, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", other.path)
        profile_over_ssh(job, "board", lambda _: None, python=other.python)
        assert other.untouched()


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh"])
def test_any_login_shell_starts_it(shell: str, here: Board, job: ProfileJob, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell}")
    run = script(
        tmp_path / "bin" / "ssh", f'for last; do :; done; TMPDIR="{here.tmp}" exec {found} -c "$last"'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(run.parent), prepend=os.pathsep)
        profile_over_ssh(job, "board", lambda _: None, python=here.python)
    assert here.untouched()


# --- hosts ---


@pytest.mark.parametrize(
    "host",
    [
        *("", "-oProxyCommand=true", "-oProxyCommand=true@host", "me@-host", "@host", "me@you@host", "a b"),
        *("host:0", "host:65536", "host:", "[::1", "host/path", "host;true", "$(true)", "`true`@host"),
        *("host\n", "ho\x00st"),
    ],
)
def test_not_a_host(host: str, job: ProfileJob) -> None:
    assert re.search(r"invalid host .*; give \[user@\]host", refusal(job, host))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("board", ["--", "board"]),
        ("pi@board.local", ["--", "pi@board.local"]),
        ("pi@board:2222", ["-p", "2222", "--", "pi@board"]),
        ("[::1]:22", ["-p", "22", "--", "::1"]),
        ("fe80::1%eth0", ["--", "fe80::1%eth0"]),
    ],
)
def test_how_ssh_is_called(host: str, words: list[str], job: ProfileJob, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "ssh", f'printf "%s\\n" "$@" > "{tmp_path}/words"; exit 255')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        refusal(job, host)
    called = (tmp_path / "words").read_text(encoding="utf-8").splitlines()
    assert "BatchMode=yes" in called  # there is no terminal: it must not wait for a password
    del called[called.index("-o") : len(called) - called[::-1].index("-o") + 1]
    assert called[:-1] == words


def test_no_ssh(job: ProfileJob, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert refusal(job, "board") == "'ssh' is not on PATH; install an OpenSSH client"


# --- no connection ---


def test_no_such_host(job: ProfileJob) -> None:
    assert refusal(job, "nowhere.invalid").startswith("host nowhere.invalid was not found; check its name")


def test_nobody_listens(job: ProfileJob) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    said = refusal(job, f"127.0.0.1:{port}")
    assert (
        said
        == f"127.0.0.1:{port} refused the connection; check the port, and that an SSH server is running there"
    )


def test_something_listens_and_says_nothing(job: ProfileJob, here: Board, configured: Path) -> None:
    with configured.open("a", encoding="utf-8") as file:
        file.write("ServerAliveInterval 1\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = refusal(replace(job, timeout_s=2.0), f"127.0.0.1:{port}")
    assert said.startswith(f"profiling tiny_cnn on 127.0.0.1:{port} took longer than 2 s")
    assert here.untouched()


def test_the_banner_never_comes(job: ProfileJob, tmp_path: Path) -> None:
    said = fake_ssh(job, tmp_path, "Connection timed out during banner exchange", 255)
    assert said.startswith("board does not answer; check that it is switched on")


@pytest.fixture
def configured(here: Board) -> Iterator[Path]:
    """The client's configuration, put back in order afterwards."""
    before = here.config.read_bytes()
    yield here.config
    here.config.write_bytes(before)


def test_a_host_that_is_not_known(job: ProfileJob, here: Board, configured: Path, tmp_path: Path) -> None:
    text = configured.read_text(encoding="utf-8").replace(str(here.known_hosts), str(tmp_path / "none"))
    configured.write_text(text, encoding="utf-8")
    said = refusal(job, f"127.0.0.1:{here.port}")
    by_hand = f"`ssh -p {here.port} 127.0.0.1`"
    assert said == (
        f"the host key of 127.0.0.1:{here.port} is not known; connect once by hand with {by_hand} and check the key"
    )
    assert not (tmp_path / "none").exists()  # nobody checked it, so it is not remembered


def test_a_host_with_another_key_than_before(
    job: ProfileJob, here: Board, configured: Path, tmp_path: Path
) -> None:
    kind, key = (here.folder / "key.pub").read_text(encoding="utf-8").split()[:2]
    (tmp_path / "other").write_text(f"[127.0.0.1]:{here.port} {kind} {key}\n", encoding="utf-8")
    text = configured.read_text(encoding="utf-8").replace(str(here.known_hosts), str(tmp_path / "other"))
    configured.write_text(text, encoding="utf-8")
    said = refusal(job, f"127.0.0.1:{here.port}")
    assert said.startswith(f"the host key of 127.0.0.1:{here.port} has changed; if the host was reinstalled")
    assert f"`ssh-keygen -R [127.0.0.1]:{here.port}`" in said


def test_a_key_that_is_not_let_in(job: ProfileJob, here: Board, configured: Path) -> None:
    text = configured.read_text(encoding="utf-8")
    configured.write_text(text.replace(str(here.folder / "key"), str(here.folder / "host")), encoding="utf-8")
    assert refusal(job, "board").startswith("board denied access; check the user name, and install your key")


def fake_ssh(job: ProfileJob, folder: Path, said: str, code: int) -> str:
    """What becomes of an ssh that fails with these words."""
    script(folder / "bin" / "ssh", f"cat > /dev/null & echo '{said}' >&2; exit {code}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
        return refusal(job, "board")


@pytest.mark.parametrize(
    ("said", "code", "sentence"),
    [
        ("Received disconnect: Too many authentication failures", 255, "too many keys; select the right one"),
        (
            "ssh: connect to host board port 22: No route to host",
            255,
            "check that it is switched on and connected to this",
        ),
        (
            "ssh: connect to host board port 22: Network is unreachable",
            255,
            "this machine is connected to its network",
        ),
        ("~/.ssh/config: line 3: Bad configuration option: x", 255, "failed: ~/.ssh/config: line 3: Bad"),
        (
            "This account is currently not available.",
            1,
            "failed: This account is currently not available.; try",
        ),
        ("fish: Unknown command: python3", 127, "board has no python3; install Python 3.9 or newer"),
        ("python3: Command not found.", 1, "board has no python3; install"),
        ("", 3, "it ended with code 3 and no message; try `ssh board python3 --version` by hand"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_ssh_says(said: str, code: int, sentence: str, job: ProfileJob, tmp_path: Path) -> None:
    assert sentence in fake_ssh(job, tmp_path, said, code)


# --- what is missing there ---


def test_no_python_there(job: ProfileJob) -> None:
    assert refusal(job, "board", "/nowhere/bin/python3") == (
        "board has no /nowhere/bin/python3; install Python 3.9 or newer there, or give its path with --python"
    )


@pytest.mark.parametrize("python", ["", "  ", "python3\n", "a\x00b"])
def test_no_name_of_a_python(python: str, job: ProfileJob) -> None:
    assert "; give for example ~/venv/bin/python" in refusal(job, "board", python)


def test_the_name_of_a_python_is_no_command(job: ProfileJob, here: Board, tmp_path: Path) -> None:
    assert "has no python3; touch" in refusal(job, "board", f"python3; touch {tmp_path}/made")
    assert "has no $(touch" in refusal(job, "board", f"$(touch {tmp_path}/made)")
    assert "has no ~/no'where/python" in refusal(job, "board", "~/no'where/python")
    assert not (tmp_path / "made").exists()
    assert here.untouched()


def test_no_numpy_there(job: ProfileJob, here: Board, tmp_path: Path) -> None:
    bare = script(tmp_path / "bare" / "python3", f'exec "{sys.executable}" -S "$@"')
    assert refusal(job, "board", str(bare)) == (
        f"{bare} on board has no numpy; run `{bare} -m pip install numpy onnxruntime` there, "
        "or give another Python with --python"
    )
    assert here.untouched()


def test_python_there_is_too_old(job: ProfileJob, tmp_path: Path) -> None:
    pretend = "import sys; sys.version_info = (3, 8, 1); sys.version = '3.8.1 (old)'; exec(sys.argv.pop(1))"
    old = script(tmp_path / "old" / "python3", f'shift; exec "{sys.executable}" -c "{pretend}" "$@"')
    assert refusal(job, "board", str(old)) == (
        f"{old} on board is version 3.8.1, but 3.9 or newer is needed; give another with --python"
    )


def test_no_room_there(job: ProfileJob, here: Board, tmp_path: Path) -> None:
    sparse = tmp_path / "weights.bin"
    with sparse.open("wb") as file:
        file.truncate(1 << 42)
    huge = replace(job, model=replace(job.model, external=(sparse,)))
    assert re.fullmatch(
        r"tiny_cnn needs 4\.4 TB on board, which has .*B free; free more space there",
        refusal(huge, "board", here.python),
    )
    assert here.untouched()


def test_a_disk_that_refuses(job: ProfileJob, here: Board, tmp_path: Path) -> None:
    small = script(tmp_path / "small" / "python3", f'ulimit -f 8; exec "{sys.executable}" "$@"')
    said = refusal(job, "board", str(small))
    assert said.startswith("board cannot store tiny_cnn: ")
    assert "File too large" in said
    assert here.untouched()


def test_a_model_that_does_not_run_there(job: ProfileJob, here: Board) -> None:
    wrong = replace(job, feeds=({"image": np.ones((9, 9), np.float32)},))
    said = refusal(wrong, "board", here.python)
    assert said.startswith("profiling tiny_cnn on board failed: ")
    assert "cannot run with these inputs" in said
    assert here.untouched()


# --- it ends early ---


def busy(job: ProfileJob) -> ProfileJob:
    return replace(job, runs=1_000_000)


def interrupted(job: ProfileJob, here: Board, act: Callable[[], None]) -> str:
    """Profile without end, *act* when the program runs over there; return the refusal."""

    def say(line: str) -> None:
        if "timing" in line:
            act()

    with pytest.raises(ProfileError) as raised:
        profile_over_ssh(busy(job), "board", say, python=here.python)
    return str(raised.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_signal_here_ends_both_sides(error: type[BaseException], job: ProfileJob, here: Board) -> None:
    def say(line: str) -> None:
        if "timing" in line:
            assert here.programs()
            raise error

    with pytest.raises(error):
        profile_over_ssh(busy(job), "board", say, python=here.python)
    assert here.untouched()
    assert eventually(lambda: not here.processes())


def test_the_connection_is_cut_half_way(job: ProfileJob, here: Board) -> None:
    def cut() -> None:
        for process in here.processes():
            if process.name().startswith("sshd"):
                process.kill()

    assert interrupted(job, here, cut) == (
        "the connection to board was lost while tiny_cnn was being profiled there; check the network and try again"
    )
    assert here.untouched()


def test_memory_runs_out_there(job: ProfileJob, here: Board) -> None:
    def kill() -> None:
        for process in here.programs():
            process.kill()

    assert interrupted(job, here, kill) == (
        "profiling tiny_cnn on board failed: it was ended by SIGKILL; it may have run out of memory"
    )
    assert here.untouched()


def test_it_takes_too_long(job: ProfileJob, here: Board) -> None:
    said = refusal(replace(busy(job), timeout_s=3.0), "board", here.python)
    assert said.startswith("profiling tiny_cnn on board took longer than 3 s; try fewer runs")
    assert here.untouched()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_there_when_we_are_killed(number: signal.Signals, here: Board, tmp_path: Path) -> None:
    model = save_tiny("tiny_cnn", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model), here.python], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert any("timing" in line for line in lines)
        assert here.programs()
        process.send_signal(number)
        process.wait()
    assert here.untouched()
    assert eventually(lambda: not here.processes())
