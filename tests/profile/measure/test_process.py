"""Programs that reach other machines are talked with, waited for as long as was said, and ended."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from splitc.profile.measure import process
from tests.profile.measure.boards import eventually

FAR_S = 60.0


def lines(script: str, *sent: bytes, beat: bytes | None = None, wait_s: float = FAR_S) -> list[bytes]:
    with process.talk(["sh", "-c", script]) as program:
        return list(program.lines(sent, until=time.monotonic() + wait_s, beat=beat))


def test_lines_come_back_also_the_last_one_without_an_end() -> None:
    assert lines("echo a; echo; printf 'b\\nc'") == [b"a", b"", b"b", b"c"]


def test_all_is_sent_while_all_is_read() -> None:
    chunk = b"0123456789abcde\n" * 4096
    assert sum(len(line) + 1 for line in lines("cat", *[chunk] * 64)) == 64 * len(chunk)


def test_a_program_that_reads_nothing_still_says_why() -> None:
    with process.talk(["sh", "-c", "exec <&-; echo no >&2; exit 3"]) as program:
        assert list(program.lines([b"x" * (1 << 22)], until=time.monotonic() + FAR_S)) == []
    assert (program.code, program.err) == (3, "no\n")


def test_a_beat_comes_until_the_program_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_S", 0.05)
    assert lines("head -c 5; echo", b"ab", beat=b".") == [b"ab..."]


def test_children_that_hold_the_pipes_open_do_not_hold_us() -> None:
    code, out, _ = process.run(["sh", "-c", "sleep 1000 & echo $!"], until=time.monotonic() + FAR_S)
    try:
        assert code == 0
        assert psutil.pid_exists(int(out))
    finally:
        psutil.Process(int(out)).kill()


@pytest.mark.parametrize("script", ["sleep 1000 & wait", "trap '' TERM; while :; do sleep 1; done"])
def test_too_late_ends_it_and_its_children(script: str, tmp_path: Path) -> None:
    with (
        pytest.raises(TimeoutError),
        process.talk(["sh", "-c", f"cd {tmp_path}; {script}"], linger_s=0.1) as program,
    ):
        list(program.lines(until=time.monotonic() + 0.5))
    assert program.code is not None
    assert eventually(lambda: not [item for item in psutil.process_iter() if _in(item, tmp_path)])


def _in(item: psutil.Process, folder: Path) -> bool:
    try:
        return Path(item.cwd()) == folder
    except (psutil.Error, OSError):
        return False


def test_the_end_of_the_block_closes_stdin_and_waits(tmp_path: Path) -> None:
    with process.talk(["sh", "-c", f"echo go; cat > {tmp_path}/got; echo done > {tmp_path}/end"]) as program:
        assert next(program.lines([b"x"], until=time.monotonic() + FAR_S, beat=b"y")) == b"go"
    assert (tmp_path / "end").exists()
    assert program.code == 0


def test_no_such_program() -> None:
    with pytest.raises(FileNotFoundError):
        process.run(["splitc-no-such-program"], until=time.monotonic())


def test_the_output_of_a_program_that_runs_to_its_end() -> None:
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"]
    assert process.run(command, until=time.monotonic() + FAR_S) == (4, "out", "err\n")
