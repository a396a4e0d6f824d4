"""A board that SSH reaches: an SSH server on loopback with its own keys, and a temporary folder of its own."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Board:
    """`alias` reaches it through an `ssh` on `path`, which reads our configuration and not the user's.

    Attributes:
        tmp: where programs over there put their temporary files.
        config: of the client, to which a test may add.
    """

    folder: Path
    port: int
    server: psutil.Process
    alias: str = "board"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def python(self) -> str:
        """Named in full: a login shell may find another one first."""
        return str(self.folder / "there" / "python3")

    @property
    def path(self) -> str:
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def processes(self) -> list[psutil.Process]:
        """The server's part of each connection, and what runs for it."""
        return self.server.children(recursive=True)

    def programs(self) -> list[psutil.Process]:
        """The profilers that run there, also those that nobody is connected to any more."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.tmp):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def untouched(self) -> bool:
        """Whether nothing is left of a profile; the other side may need a moment to notice that it is alone."""
        return eventually(lambda: not list(self.tmp.iterdir()) and not self.programs())


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether *condition* comes to hold."""
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@contextmanager
def board(folder: Path, *, force: str | None = None) -> Iterator[Board]:
    """Start the server; it runs *force*, if given, instead of the command that it is asked for."""
    if SSHD is None:
        pytest.skip("there is no sshd: install openssh-server")
    for name in ("host", "key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    (folder / "tmp").mkdir()
    script(folder / "there" / "python3", f'exec "{sys.executable}" "$@"')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    _write_server_config(folder, port, force)
    _write_client_config(folder, port)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(
            exist_ok=True
        )  # Debian's sshd wants it as root; its service makes it elsewhere
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        here = Board(folder, port, psutil.Process(process.pid))
        try:
            assert eventually(lambda: _listens(port) or process.poll() is not None)
            if process.poll() is not None:
                pytest.skip(f"sshd does not start here: {(folder / 'log').read_text().strip()}")
            yield here
        finally:
            for child in here.processes():
                child.kill()
            process.kill()
            process.wait()


def _write_server_config(folder: Path, port: int, force: str | None) -> None:
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'key.pub'}",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin yes",
        f"PidFile {folder / 'pid'}",
        f"SetEnv TMPDIR={folder / 'tmp'}",
    ]
    if force is not None:
        lines.append(f"ForceCommand {force}")
    (folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_client_config(folder: Path, port: int) -> None:
    kind, key = (folder / "host.pub").read_text(encoding="utf-8").split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n", encoding="utf-8")
    lines = [
        "Host board",
        "HostName 127.0.0.1",
        f"Port {port}",
        "Host *",
        f"IdentityFile {folder / 'key'}",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"UserKnownHostsFile {folder / 'known_hosts'}",
        "GlobalKnownHostsFile none",
        "RemoteCommand uptime",  # a user's configuration may say this; it must not stop us
    ]
    (folder / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # ssh finds the user's configuration without looking at HOME.
    script(folder / "bin" / "ssh", f'exec "{shutil.which("ssh")}" -F "{folder / "config"}" "$@"')


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
