"""Namespaces of Linux, made without privileges where the kernel lets everybody make them."""

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
        path: what other programs may enter it by.
    """

    def __init__(self, path: str = "/proc/self/ns/net") -> None:
        """The network namespace at *path*: the one that this process is in now, unless told otherwise."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"

    def close(self) -> None:
        """Close the file; if nothing else keeps the namespace, it is gone, with the interfaces in it."""
        os.close(self._file)

    @property
    def fd(self) -> int:
        """The open file."""
        return self._file

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it while the block runs: what is opened there, stays there."""
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
        """Those that are in it."""
        own = os.fstat(self._file).st_ino
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended, or belongs to somebody else
                if entry.name.isdecimal() and (entry / "ns" / "net").stat().st_ino == own:
                    found.append(int(entry.name))
        return found


def may_make_networks() -> bool:
    """Whether this process may make network namespaces as it is; if so, it is now in one."""
    try:
        new_network().close()
    except TestBedError:
        return False
    return True


def leave_user_namespace() -> None:
    """Move this process to a new user namespace, where it may make network namespaces; its user stays the same.

    Raises:
        TestBedError: this system does not let it.
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
        TestBedError: this system does not let it.
    """
    try:
        _call("unshare", _NEW_NET)
    except OSError as error:
        raise _refused(error) from error
    return Namespace()


def end_processes(namespaces: Collection[Namespace]) -> None:
    """Kill every process in *namespaces*, also those that it starts meanwhile."""
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
