"""What runs on the board, without the way there: it goes when nobody is left to want it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from splitc.profile.measure import ssh_program
from tests.profile.measure.boards import eventually

SLEEPER = b"import sys, time; print('here', file=sys.stderr, flush=True); time.sleep(1000)"


def start(folder: Path, program: bytes, **task: object) -> subprocess.Popen[bytes]:
    """Start it as ssh would, impatient, with one file that it is to run."""
    text = Path(ssh_program.__file__).read_text(encoding="utf-8")
    text = text.replace("SILENCE_S = 60.0", "SILENCE_S = 1.0")
    process = subprocess.Popen(
        [sys.executable, "-c", text, "mark"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    order = {"needs": [], "timeout_s": 60, "arguments": ["run.py"], "files": [["run.py", len(program)]]}
    assert process.stdin is not None
    process.stdin.write(json.dumps(order | task).encode() + b"\n" + program)
    process.stdin.flush()
    return process


def heard(process: subprocess.Popen[bytes]) -> list[tuple[str, object]]:
    assert process.stdout is not None
    with process.stdout as lines:
        return [tuple(json.loads(line.removeprefix(b"mark "))) for line in lines if line.strip()]


def wait_for(process: subprocess.Popen[bytes], kind: str) -> None:
    assert process.stdout is not None
    assert any(f'["{kind}"'.encode() in line for line in process.stdout)


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def test_what_a_program_prints_and_says_comes_back(tmp_path: Path) -> None:
    process = start(tmp_path, "import sys; print('ö', file=sys.stderr); print('out')".encode())
    assert heard(process) == [("begun", None), ("say", "ö"), ("printed", "out\n")]
    close(process)
    assert process.wait() == 0
    assert not list(tmp_path.iterdir())


def test_how_a_program_ended_comes_back(tmp_path: Path) -> None:
    process = start(tmp_path, b"import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert heard(process)[-1] == ("ended", [-signal.SIGSEGV, ""])
    close(process)
    process.wait()


def test_silence_is_taken_for_the_end(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER)
    wait_for(process, "say")
    assert list(tmp_path.iterdir())
    assert process.wait() == 1  # its stdin is open all the time
    assert not list(tmp_path.iterdir())
    heard(process)
    close(process)


def test_half_a_model_is_removed(tmp_path: Path) -> None:
    process = start(tmp_path, b"half", files=[["run.py", 1000]])
    assert eventually(lambda: bool(list(tmp_path.iterdir())))
    close(process)
    assert process.wait() == 1
    assert not list(tmp_path.iterdir())
    heard(process)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_there(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER)
    wait_for(process, "say")
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert not list(tmp_path.iterdir())
    heard(process)
    close(process)


def test_too_long(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER, timeout_s=0.1)
    assert heard(process)[-1] == ("late", None)
    close(process)
    process.wait()
    assert not list(tmp_path.iterdir())
