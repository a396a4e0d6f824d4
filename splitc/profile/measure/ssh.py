"""Profile a model on a board over one SSH connection; nothing is installed or left on the board."""

import contextlib
import json
import re
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitc.common.errors import ProfileError
from splitc.common.formatting import format_bytes
from splitc.common.resources import shipped
from splitc.profile.document import Profile
from splitc.profile.measure import job as jobs
from splitc.profile.measure.job import PROGRAM, Finished, ProfileJob, Say
from splitc.profile.measure.process import LINGER_S, Talk, talk

# Sent as text: the board has no splitc.
_PROGRAM = Path(__file__).with_name("ssh_program.py")
_NEEDS = ("numpy", "onnxruntime")
_CHUNK_BYTES = 1 << 18
_CONNECT_S = 15
_NOT_FOUND = (126, 127)  # exit codes of shells: the program does not exist or cannot be executed
# ssh and its configuration may pass names to a shell, so characters with a meaning in shells are not allowed.
_NAME = r"(?!-)[^\x00-\x20\x7f'\"`$\\/;&<>|(){}\[\]@:*?!#]+"
_HOST = re.compile(
    rf"(?:(?P<user>{_NAME})@)?(?:\[(?P<address>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>{_NAME}))(?::(?P<port>\d{{1,5}}))?"
)
_OPTIONS = {
    "ConnectTimeout": str(_CONNECT_S),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "ClearAllForwardings": "yes",
    "ControlMaster": "no",  # a master process started here would keep running and keep our pipes open
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "INFO",  # its messages are parsed here, so the user's setting does not apply
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
# One line, without single quotes and exclamation marks, because the login shell may be dash, fish or tcsh. It reads
# the program from stdin up to a zero byte, byte by byte, so that the data after it stays in the pipe.
_BOOT = (
    "import os,sys;"
    'sys.version_info<(3,9) and (sys.stdout.write(sys.argv[1]+" "+sys.version.split()[0]),sys.exit(1));'
    "sys.path=[p for p in sys.path if p];"
    r'exec(b"".join(iter(lambda:os.read(0,1) or sys.exit(1),b"\0")))'
)
# Messages of ssh, and ours for the user; the first match counts.
_SSH = {
    "Could not resolve hostname": "host {where} was not found; check its name, or add it to ~/.ssh/config",
    "IDENTIFICATION HAS CHANGED": (
        "the host key of {where} has changed; if the host was reinstalled, run `ssh-keygen -R {known}` and connect once "
        "by hand with `{by_hand}`, and if not, another machine may be answering in its place"
    ),
    "Host key verification failed": (
        "the host key of {where} is not known; connect once by hand with `{by_hand}` and check the key"
    ),
    "Permission denied (": (
        "{where} denied access; check the user name, and install your key there with `ssh-copy-id`"
    ),
    "Too many authentication failures": (
        "{where} denied access after too many keys; select the right one in ~/.ssh/config"
    ),
    "Connection refused": "{where} refused the connection; check the port, and that an SSH server is running there",
    "timed out": "{where} does not answer; check that it is switched on and connected to this network",
    "No route to host": "{where} cannot be reached; check that it is switched on and connected to this network",
    "is unreachable": "{where} cannot be reached; check that this machine is connected to its network",
}


@dataclass(frozen=True, slots=True)
class _Host:
    """A host: `name` in the form for ssh, `shown` as the user wrote it."""

    shown: str
    name: str
    port: int | None

    def ssh(self) -> list[str]:
        """Return the beginning of an ssh command for this port."""
        return ["ssh"] if self.port is None else ["ssh", "-p", str(self.port)]

    def known(self) -> str:
        """Return the name for `ssh-keygen -R`."""
        bare = self.name.rpartition("@")[2]
        return bare if self.port in (None, 22) else f"[{bare}]:{self.port}"


@dataclass(slots=True)
class _Heard:
    """What the program on the board has sent: the kind and content of its result, and whether it has begun."""

    kind: str | None = None
    content: Any = None
    begun: bool = False


def profile_over_ssh(job: ProfileJob, host: str, say: Say, *, python: str = "python3") -> Profile:
    """Profile *job* on *host*, `[user@]host[:port]` or an alias of ~/.ssh/config.

    Args:
        python: the Python interpreter there, with numpy and onnxruntime. It may begin with `~/`.

    Raises:
        ProfileError: the host cannot be used, or the program failed or took too long.
    """
    place = _parse(host)
    mark = f"splitc-{secrets.token_hex(8)}"
    command = _command(place, python, mark)
    until = time.monotonic() + job.timeout_s
    heard = _Heard()
    say(f"connecting to {place.shown}")
    try:
        # If this process has a terminal, ssh may ask for a password there.
        with _stream(job) as outgoing, talk(command, apart=not _at_terminal(), linger_s=0) as program:
            for line in program.lines(outgoing, until=until, beat=b"."):
                _hear(line, mark.encode(), heard, say)
                program.linger_s = LINGER_S if heard.begun else 0
    except FileNotFoundError as error:
        if error.filename != "ssh":
            raise
        raise ProfileError("'ssh' is not on PATH; install an OpenSSH client") from error
    except TimeoutError as error:
        raise _late(job, place) from error
    if heard.kind == "printed":
        return jobs.printed_profile(str(heard.content).encode(), job, f"on {place.shown}")
    raise _error(job, place, python, heard, program)


def _parse(host: str) -> _Host:
    # An IPv6 address without brackets contains colons, so it cannot have a port.
    match = _HOST.fullmatch(f"[{host}]" if host.count(":") > 1 and "[" not in host else host)
    if match is None or not 0 < int(match["port"] or 22) < 1 << 16:
        raise ProfileError(f"invalid host {host!r}; give [user@]host[:port] or a name from ~/.ssh/config")
    bare = match["address"] or match["name"]
    name = f"{match['user']}@{bare}" if match["user"] else bare
    return _Host(host, name, int(match["port"]) if match["port"] else None)


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _command(place: _Host, python: str, mark: str) -> list[str]:
    if not python.strip() or any(not character.isprintable() for character in python):
        raise ProfileError(f"invalid path of Python {python!r}; give for example ~/venv/bin/python")
    home, _, rest = python.partition("/") if python.startswith("~") else ("", "", python)
    word = f"{home}/{shlex.quote(rest)}" if re.fullmatch(r"~\w*", home) else shlex.quote(python)
    options = {**_OPTIONS, "BatchMode": "no" if _at_terminal() else "yes"}
    return [
        *place.ssh(),
        *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
        "--",
        place.name,
        f"exec {word} -Bc '{_BOOT}' {mark}",
    ]


# --- data that is sent ---


@contextlib.contextmanager
def _stream(job: ProfileJob) -> Iterator[Iterator[bytes]]:
    """Yield the data for the board: the program that receives the rest, the task, and the files."""
    with tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        files = {f"program/{PROGRAM}": shipped("profilers") / PROGRAM}
        files |= {f"model/{name}": path for name, path in jobs.files(job.model).items()}
        inputs = [f"inputs{number}.npz" for number in range(len(job.feeds))]
        for name, feeds in zip(inputs, job.feeds, strict=True):
            files[name] = Path(folder) / name
            jobs.write_feeds(feeds, files[name])
        model = f"model/{next(iter(jobs.files(job.model)))}"
        task = {
            "needs": _NEEDS,
            "timeout_s": job.timeout_s,
            "arguments": [f"program/{PROGRAM}", model, *jobs.program_options(job, inputs)],
            "files": [[name, path.stat().st_size] for name, path in files.items()],
        }
        yield _chunks(task, list(files.values()))


def _chunks(task: dict[str, Any], paths: Sequence[Path]) -> Iterator[bytes]:
    yield _PROGRAM.read_bytes() + b"\0" + json.dumps(task).encode() + b"\n"
    for path, (_, size) in zip(paths, task["files"], strict=True):
        left = size
        with path.open("rb") as file:
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                yield chunk
                left -= len(chunk)
        if left:
            raise ProfileError(f"{path}: the file became shorter while it was sent; try again")


# --- data that is received ---


def _hear(line: bytes, mark: bytes, heard: _Heard, say: Say) -> None:
    _, found, text = line.partition(mark + b" ")
    if not found:
        return  # output of the login shell
    heard.begun = True
    try:
        kind, content = json.loads(text)
    except (ValueError, TypeError):  # a Python that is too old prints only its version
        kind, content = "old", text.decode(errors="replace").strip()
    if kind == "say":
        say(str(content))
    elif kind != "begun":
        heard.kind, heard.content = kind, content


def _late(job: ProfileJob, place: _Host) -> ProfileError:
    return ProfileError(
        f"profiling {job.model.name} on {place.shown} took longer than {job.timeout_s:g} s; "
        "try fewer runs or a smaller model"
    )


def _error(job: ProfileJob, place: _Host, python: str, heard: _Heard, program: Talk) -> ProfileError:
    """Return the error that the board reported, else the one that ssh reported."""
    if heard.kind == "ended":
        code, err = heard.content
        return jobs.failure(Finished(code, b"", _last_line(err)), job, f"on {place.shown}")
    if heard.kind == "late":
        return _late(job, place)
    if heard.kind is not None:
        return ProfileError(_BOARD[heard.kind](place.shown, python, job.model.name, heard.content))
    if heard.begun:
        return ProfileError(
            f"the connection to {place.shown} was lost while {job.model.name} was being profiled there; "
            "check the network and try again"
        )
    return _ssh_error(place, python, program)


def _missing(where: str, python: str, _model: str, module: str) -> str:
    return (
        f"{python} on {where} has no {module}; run `{python} -m pip install {' '.join(_NEEDS)}` there, "
        "or give another Python with --python"
    )


def _old(where: str, python: str, _model: str, version: str) -> str:
    return f"{python} on {where} is version {version}, but 3.9 or newer is needed; give another with --python"


def _full(where: str, _python: str, model: str, sizes: tuple[int, int]) -> str:
    size, free = map(format_bytes, sizes)
    return f"{model} needs {size} on {where}, which has {free} free; free more space there"


def _refused(where: str, _python: str, model: str, reason: str) -> str:
    return f"{where} cannot store {model}: {reason}"


_BOARD: dict[str, Callable[[str, str, str, Any], str]] = {
    "missing": _missing,
    "old": _old,
    "full": _full,
    "refused": _refused,
}


def _ssh_error(place: _Host, python: str, program: Talk) -> ProfileError:
    """Return the error for a message of ssh or the login shell."""
    by_hand = " ".join((*place.ssh(), place.name))
    for words, sentence in _SSH.items():
        if words in program.err:
            return ProfileError(sentence.format(where=place.shown, by_hand=by_hand, known=place.known()))
    last = _last_line(program.err)
    if program.code in _NOT_FOUND or re.search(r"not found|[Uu]nknown command|No such file", last):
        return ProfileError(
            f"{place.shown} has no {python}; install Python 3.9 or newer there, or give its path with --python"
        )
    reason = last or f"it ended with code {program.code} and no message"
    return ProfileError(f"ssh to {place.shown} failed: {reason}; try `{by_hand} {python} --version` by hand")


def _last_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
