"""A device and a cloud on this machine, with an emulated link of chosen rates and delay between them.

    with Bed(LinkSpec(Rate(10e6), Rate(50e6), rtt_s=0.04, queue_bytes=1_000_000)) as bed:
        server = bed.start("cloud", ["splitc", "serve", "bundle", "--host", bed.cloud_address])
        client = bed.start("device", ["splitc", "run", ...], slowdown=4.0)
        bed.black_hole()

Each side is a network namespace from which only the other side can be reached. The process that makes the bed stays
outside. Packets and TCP are real: this kernel's TCP with its slow start, and with the congestion control "cubic" of
phones and most servers, if the kernel has it. Programs, interfaces and namespaces end with the bed, or with the process
that made it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from splitc.common.errors import TestBedError
from splitc.testbed.emulated_link import PacketCounts
from splitc.testbed.forwarder import CLOUD_ADDRESS, DEVICE_ADDRESS
from splitc.testbed.namespaces import Namespace, end_processes
from splitc.testbed.slow import Slowed
from splitc.testbed.spec import LinkSpec, to_json

Place = Literal["device", "cloud"]
_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class LinkCounts:
    """Counts of the packets of both directions since the bed was made."""

    up: PacketCounts
    down: PacketCounts


class Bed:
    """Two namespaces and a link; not safe for several threads.

    Attributes:
        device_address, cloud_address: the IPv4 address of each side.
        congestion_control: TCP's over the link: "cubic", or this kernel's default if it has no cubic.
    """

    device_address = DEVICE_ADDRESS
    cloud_address = CLOUD_ADDRESS

    def __init__(self, spec: LinkSpec) -> None:
        """Make them.

        Raises:
            TestBedError: this machine does not support it, or does not allow it to this user.
        """
        self._programs: list[subprocess.Popen[bytes]] = []
        self._slowed: list[Slowed] = []
        self._namespaces: dict[str, Namespace] = {}
        self._nsenter = _find_nsenter()
        self._talk, far = socket.socketpair()
        self._talk.settimeout(_PATIENCE_S)
        with far:
            # A session of its own: Ctrl-C must not end the program that cleans up.
            self._forwarder = subprocess.Popen(
                [sys.executable, "-m", "splitc.testbed.forwarder", str(os.getpid())],
                stdin=far.fileno(),
                start_new_session=True,
            )
        self._answers = self._talk.makefile("r", encoding="utf-8")
        try:
            facts = self._tell(to_json(spec))
            self._user: str | None = facts["user"]
            self.congestion_control: str = facts["congestion_control"]
            for place in ("device", "cloud"):
                self._namespaces[place] = Namespace(facts[place])
        except BaseException:
            self.close()
            raise

    def start(
        self,
        place: Place,
        command: Sequence[str | Path],
        *,
        slowdown: float = 1.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on one side, with this process's environment and streams unless others are given.

        It is killed when the bed is closed. End it before, if it needs to clean up.

        Args:
            slowdown: the factor by which its computations take longer; its children are not slowed down.

        Raises:
            TestBedError: the slowdown is below 1.
        """
        enter = [self._nsenter, f"--net={self._namespaces[place].path}"]
        if self._user is not None:
            enter += [f"--user={self._user}", "--preserve-credentials"]
        program = subprocess.Popen(
            [*enter, "--", *map(str, command)], env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr
        )
        self._programs.append(program)
        if slowdown != 1:
            self._slowed.append(Slowed(program.pid, slowdown))
        return program

    def change(self, spec: LinkSpec) -> None:
        """Continue with another link; traces start again. A black hole or cut stays."""
        self._tell(f"change {to_json(spec)}")

    def black_hole(self) -> None:
        """From now on no packet arrives, and no program is told."""
        self._tell("black_hole")

    def cut(self) -> None:
        """Take the device's interface down: it has no network, and its programs see that."""
        self._tell("cut")

    def restore(self) -> None:
        """End a black hole or cut."""
        self._tell("restore")

    def counts(self) -> LinkCounts:
        """The counts of packets so far."""
        value = self._tell("counts")
        return LinkCounts(PacketCounts(**value["up"]), PacketCounts(**value["down"]))

    def close(self) -> None:
        """End everything at once; a closed bed may be closed again."""
        for slowed in self._slowed:
            slowed.close()
        with suppress(OSError):
            self._talk.shutdown(socket.SHUT_RDWR)  # a forked process may have a copy
        self._answers.close()
        self._talk.close()
        try:
            self._forwarder.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._forwarder.kill()
            self._forwarder.wait()
        # It has ended all programs, unless it was killed.
        end_processes(self._namespaces.values())
        while self._namespaces:
            self._namespaces.popitem()[1].close()
        for program in self._programs:
            program.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, command: str) -> dict[str, Any]:
        try:
            self._talk.sendall(command.encode() + b"\n")
            answer = self._answers.readline()
        except OSError as error:
            raise TestBedError(f"the test bed does not answer ({error}); make a new one") from error
        if not answer:
            raise TestBedError("the test bed has ended; what it wrote on stderr says why")
        value: dict[str, Any] = json.loads(answer)
        if "error" in value:
            raise TestBedError(value["error"])
        return value


def _find_nsenter() -> str:
    if not sys.platform.startswith("linux"):
        raise TestBedError(
            f"the test bed needs network namespaces, which {sys.platform} does not have; run it on Linux"
        )
    found = shutil.which("nsenter")
    if found is None:
        raise TestBedError("the test bed needs the program nsenter; install the package util-linux")
    return found
