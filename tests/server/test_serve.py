"""The server as a process: where it listens, how it ends, TLS."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from splitc.common.errors import RuntimeFailure
from splitc.server.app import application
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.serve import Server, serve
from tests.server.serving import LIMIT_S, Answer, ask, infer, make_part, once, ones, read, running, until

ROOT = Path(__file__).parents[2]
FEW = 200  # file descriptors
PROGRAM = Path(__file__).with_name("program.py")


@dataclass(frozen=True)
class Process:
    process: subprocess.Popen[str]
    url: str

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.partition("://")[2].split(":")
        return host, int(port)

    def let_run(self, times: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(times * "\n")
        self.process.stdin.flush()

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ends(self) -> tuple[int, list[dict[str, object]]]:
        """Its exit code, and what it logged."""
        _, err = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, [json.loads(line) for line in err.splitlines()]


@contextlib.contextmanager
def started(drain_s: float = LIMIT_S, *tls: Path) -> Iterator[Process]:
    with started_as(str(PROGRAM), str(drain_s), *map(str, tls)) as process:
        yield process


@contextlib.contextmanager
def started_as(*arguments: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield Process(process, process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_server_that_has_few_file_descriptors() -> None:
    """Its limit is raised, and connections that are too many for it are told so. It lives on."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, {FEW})); "
    program = f"import runpy, sys; sys.argv[1:] = ['5']; runpy.run_path({str(PROGRAM)!r})"
    with started_as("-c", limited + program) as server, contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(FEW + 50):
            sock = stack.enter_context(socket.create_connection(server.address, timeout=LIMIT_S))
            statuses.append(_status(sock))
        assert statuses[0] == b"200"
        kept = statuses.index(b"503")
        assert 20 <= kept < FEW - 64
        assert set(statuses[kept:]) == {b"503"}
        stack.close()
        until(lambda: _new_status(server) == b"200", "there is room again")
        server.process.send_signal(signal.SIGTERM)
        code, lines = server.ends()
    assert code == 0
    assert lines[0] | {"time": ""} == {
        "time": "",
        "level": "warning",
        "event": "descriptors",
        "limit": FEW,
        "connections": kept,
    }


def _new_status(server: Process) -> bytes:
    with socket.create_connection(server.address, timeout=LIMIT_S) as sock:
        return _status(sock)


def _status(sock: socket.socket) -> bytes:
    with contextlib.suppress(OSError):
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        return sock.recv(1 << 16)[9:12]
    return b""


def test_the_end_waits_for_what_was_begun() -> None:
    with started() as server:
        answers: list[Answer] = []

        def client() -> None:
            connection = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
            answers.append(infer(connection, "made.c1", ones()))
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert server.says() == "runs"
        # The other one may be on its way; the third is the one that asks.
        probe = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
        while "splitc_in_flight_requests 3.0" not in ask(probe, "GET", "/metrics").body.decode():
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        while ask(probe, "GET", "/v2/health/ready").status != 503:
            assert server.process.poll() is None
        probe.close()
        server.let_run(2)
        for thread in threads:
            thread.join(LIMIT_S)
        assert [answer.outputs()["y"][0, 0] for answer in answers] == [2, 2]
        code, log = server.ends()
    assert code == 0
    assert [line["event"] for line in log] == ["start", "stop"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_even_with_open_connections(number: signal.Signals) -> None:
    with started() as server:
        connection = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
        assert ask(connection, "GET", "/v2/health/ready").status == 200
        server.process.send_signal(number)
        assert server.ends()[0] == 0
        connection.close()


def test_a_second_signal_ends_it_at_once() -> None:
    with started() as server:
        connection = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
        _begin(connection)
        assert server.says() == "runs"
        server.process.send_signal(signal.SIGTERM)
        other = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
        while ask(other, "GET", "/v2/health/ready").status != 503:
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == -signal.SIGTERM
        connection.close()
        other.close()


def _begin(connection: http.client.HTTPConnection) -> None:
    """Send a request and do not wait for the answer."""
    content = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    connection.request("POST", "/v2/models/made.c1/infer", json.dumps(content))


def test_the_end_waits_for_a_bounded_time() -> None:
    with started(drain_s=0.1) as server:
        connection = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
        _begin(connection)
        assert server.says() == "runs"
        server.process.send_signal(signal.SIGTERM)
        answer = read(connection)
        assert (answer.status, answer.error) == (503, "this server is about to end")
        code, log = server.ends()
        connection.close()
    assert code == 0
    assert [(line["event"], line.get("unanswered")) for line in log[:2]] == [("start", None), ("stop", 1)]


def certificate(folder: Path, *options: str) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate to test with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    request = ["req", "-x509", "-newkey", "rsa:2048", "-days", "2", *(options or ["-nodes"]), *subject]
    subprocess.run(
        [openssl, *request, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=LIMIT_S
    )
    return cert, key


def test_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with started(LIMIT_S, cert, key) as server:
        server.let_run()
        assert server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection(*server.address, timeout=LIMIT_S, context=trusted)
        assert infer(connection, "made.c1", ones(50_000)).outputs()["y"].shape == (50_000, 3)
        with socket.create_connection(server.address, timeout=LIMIT_S) as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in plain.recv(1000)
        connection.close()
        server.process.send_signal(signal.SIGTERM)
        code, log = server.ends()
    assert code == 0
    assert [line["event"] for line in log] == ["start", "stop"]


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    app = application([make_part()], ServerOptions())
    (tmp_path / "bad.pem").write_text("nothing")
    locked = tmp_path / "locked.pem"
    cert, _ = certificate(tmp_path, "-passout", "pass:secret")
    locked.write_bytes(b"".join(path.read_bytes() for path in (cert, tmp_path / "key.pem")))
    for name in ("bad.pem", "absent.pem", "locked.pem"):
        listen = ListenOptions(port=0, tls_cert=tmp_path / name, tls_key=tmp_path / name)
        with pytest.raises(
            RuntimeFailure, match=f"{name} cannot be used .*; give PEM files that belong together"
        ):
            serve(app, listen, print)


def test_an_address_that_cannot_be_used() -> None:
    app = application([make_part()], ServerOptions())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            RuntimeFailure, match=f"cannot listen on port {port} of 127.0.0.1: Address already in use"
        ):
            serve(app, ListenOptions(port=port), print)
    with pytest.raises(RuntimeFailure, match=r"cannot listen on port 0 of not\.a\.host\.invalid"):
        serve(app, ListenOptions(host="not.a.host.invalid", port=0), print)


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    app = application([make_part()], ServerOptions())
    try:
        server = Server(app, ListenOptions(host="::1", port=0), print)
    except RuntimeFailure as error:
        pytest.skip(f"there is no IPv6 loopback here: {error}")
    assert server.url.startswith("http://[::1]:")
    server._socket.close()


def test_two_servers_in_one_process() -> None:
    with running(make_part()) as one, running(make_part("made.c2")) as other:
        assert once(one, "GET", "/v2/models/made.c2").status == 404
        assert once(other, "GET", "/v2/models/made.c2").status == 200
        assert one.value("splitc_requests_total", model="", status="404") == 1
        assert other.value("splitc_requests_total", model="", status="404") == 0


def test_a_server_whose_log_nobody_reads_goes_on() -> None:
    """Its stderr is a pipe that is full."""
    with started() as server:
        assert server.process.stderr is not None
        with Path(f"/proc/{server.process.pid}/fd/2").open("wb", buffering=0) as pipe:
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while pipe.write(bytes(1 << 12)):
                    pass
            with contextlib.suppress(BlockingIOError):
                while pipe.write(b" "):
                    pass
        for number in range(20):
            with socket.create_connection(server.address, timeout=LIMIT_S) as sock:
                sock.sendall(b"GET /v2 HTTP/1.1\r\nBad Header %d: a\r\n\r\n" % number)
                assert sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
            connection = http.client.HTTPConnection(*server.address, timeout=LIMIT_S)
            assert ask(connection, "GET", "/v2/models/none").status == 404
            connection.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 0
