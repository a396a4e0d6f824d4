"""Every command in README.md works, in the order in which a reader meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What sets up a checkout or an environment cannot run inside one.
EXEMPT = re.compile(r"(git|make|python3? -m venv|pip install|python3? -m pip install|\. |source |cd )")


def commands() -> list[str]:
    """Lines that begin with "$ " in blocks marked ```console; a backslash continues a line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def test_every_command_runs(tmp_path: Path) -> None:
    shell = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell["XDG_CACHE_HOME"] = str(tmp_path / "cache")  # what a reader keeps is for no other test
    for command in commands():
        if EXEMPT.match(command):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env=shell,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"


def test_there_are_commands() -> None:
    assert any(command.startswith("splitc compile ") for command in commands())


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands():
        if command.startswith("make "):
            wanted = [word for word in command.split()[1:] if "=" not in word]
            assert set(wanted) <= set(targets), command
