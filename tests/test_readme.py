"""Every command in README.md works, in the order in which a reader meets it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What sets up a checkout or an environment cannot run inside one.
EXEMPT = re.compile(r"(git|make|python3? -m venv|pip install|python3? -m pip install|\. |source |cd )")


def blocks() -> list[list[str]]:
    """Lines that begin with "$ " in each block marked ```console; a backslash continues a line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        [line.removeprefix("$ ") for line in block.replace("\\\n", "").splitlines() if line.startswith("$ ")]
        for block in found
    ]


def commands() -> list[str]:
    return [command for block in blocks() for command in block]


def files() -> dict[str, str]:
    """What a block marked ```toml holds, if its first line names the file to put it into."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```toml\n# (\S+\.toml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    """Each block is one shell, in which a reader may leave something running for the next lines."""
    shell = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell["XDG_CACHE_HOME"] = str(tmp_path / "cache")  # what a reader keeps is for no other test
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for block in blocks():
        script = "\n".join(command for command in block if not EXEMPT.match(command))
        with (tmp_path / "said").open("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                ["bash", "-euxo", "pipefail", "-c", script],
                cwd=tmp_path,
                env=shell,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=300)
            finally:
                with contextlib.suppress(ProcessLookupError):  # nothing was left running
                    os.killpg(process.pid, signal.SIGKILL)
            said.seek(0)
            assert code == 0, said.read()


def test_there_are_commands() -> None:
    assert any(command.startswith("splitc compile ") for command in commands())


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands():
        if command.startswith("make "):
            wanted = [word for word in command.split()[1:] if "=" not in word]
            assert set(wanted) <= set(targets), command
