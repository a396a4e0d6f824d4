"""Namespaces of Linux, made without privileges if the kernel allows that to all users."""

import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splitc.common.errors import TestBedError

_NEW_USER = 0x10000000
_NEW_NET = 0x40000000
_PATIENCE_S = 5.0
_TICK_S = 0.005

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, kept alive by an open file of this process.

    Attributes:
        path: the path by which other programs can enter it.
    """

    def __init__(self, path: str = "/proc/self/ns/net") -> None:
        """The network namespace at *path*; by default the one of this process."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"

    def close(self) -> None:
        """Close the file; if nothing else uses the namespace, it is removed with its interfaces."""
        os.close(self._file)

    @property
    def fd(self) -> int:
        """The open file."""
        return self._file

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the namespace during the block; sockets that are opened there stay there."""
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._file, _NEW_NET)
            try:
                yield
            finally:
                _call("setns", before, _NEW_NET)
        finally:
            os.close(before)

    def processes(self) -> list[int]:
        """The processes in it."""
        own = os.fstat(self._file).st_ino
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended, or belongs to somebody else
                if entry.name.isdecimal() and (entry / "ns" / "net").stat().st_ino == own:
                    found.append(int(entry.name))
        return found


def may_make_networks() -> bool:
    """Try to make a network namespace without further privileges; return whether this process is now in one."""
    try:
        new_network().close()
    except TestBedError:
        return False
    return True


def leave_user_namespace() -> None:
    """Move this process to a new user namespace, in which it may make network namespaces; its user stays the same.

    Raises:
        TestBedError: this system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_USER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    except OSError as error:
        raise _refused(error) from error


def new_network() -> Namespace:
    """Move this process to a new network namespace.

    Raises:
        TestBedError: this system does not allow it.
    """
    try:
        _call("unshare", _NEW_NET)
    except OSError as error:
        raise _refused(error) from error
    return Namespace()


def end_processes(namespaces: Collection[Namespace]) -> None:
    """Kill every process in *namespaces*, including those that are started meanwhile."""
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        left = [pid for namespace in namespaces for pid in namespace.processes()]
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_TICK_S)


def _call(function: str, *arguments: int) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _refused(error: OSError) -> TestBedError:
    return TestBedError(
        f"this system does not allow namespaces to this user ({error.strerror}); run as root with CAP_SYS_ADMIN, or "
        "allow unprivileged ones with `sysctl user.max_user_namespaces=1000 "
        "kernel.apparmor_restrict_unprivileged_userns=0`, in a container with `--security-opt seccomp=unconfined`"
    )
