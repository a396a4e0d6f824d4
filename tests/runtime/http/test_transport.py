"""Exchanges end by their deadline with an answer or one error, whatever the server does."""

import _thread
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from splitc.common.errors import DeadlineExceeded, ProtocolError, RuntimeFailure, TransportError
from splitc.runtime.http.connection import Buffer
from splitc.runtime.http.transport import HttpTransport, Reply
from tests.naming import label
from tests.runtime import servers
from tests.runtime.servers import endless

SOON_S = 0.3
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(
    transport: HttpTransport, body: Sequence[Buffer] = (b"payload",), *, within_s: float = servers.LONGEST_S
) -> Reply:
    return transport.exchange(
        "POST", "/there", {"X-Kind": "test"}, body, deadline_s=time.monotonic() + within_s
    )


def failure(
    behave: servers.Behaviour, body: Sequence[Buffer] = (b"payload",), **limits: Any
) -> RuntimeFailure:
    """What an exchange with such a server raises; it must end long before the test's limit."""
    began = time.monotonic()
    with servers.serve(behave) as server:
        transport = HttpTransport(server.url, max_reply_bytes=100_000)
        with pytest.raises(RuntimeFailure) as raised:
            post(transport, body, **limits)
        transport.close()
    assert time.monotonic() - began < servers.LONGEST_S
    assert "\n" not in str(raised.value)
    return raised.value


def test_sends_head_and_pieces_and_returns_the_answer() -> None:
    timing = {"Server-Timing": "recv;dur=1"}
    with servers.serve(servers.answering(servers.reply(201, b"made", timing))) as server:
        transport = HttpTransport(server.url + "/base/", token="secret")
        got = post(transport, [b'{"a":1}', memoryview(bytearray(b"1234")), b"", bytes(200_000)])
        transport.close()
    assert (got.status, bytes(got.body)) == (201, b"made")
    assert got.headers["server-timing"] == "recv;dur=1"
    assert got.wait_s > 0
    assert got.download_s >= 0
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/base/there")
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-kind"] == "test"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.body == b'{"a":1}1234' + bytes(200_000)


def test_a_connection_is_kept_and_used_again() -> None:
    with servers.serve(servers.echoing) as server:
        transport = HttpTransport(server.url)
        for number in range(20):
            assert bytes(post(transport, [b"%d" % number]).body) == b"%d" % number
        transport.close()
    assert server.connections == 1


def test_a_body_in_chunks_or_until_the_end_is_read() -> None:
    chunked = CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
    unsized = b"HTTP/1.1 200 OK\r\n\r\nabcde"
    for answer in (chunked, unsized):
        with servers.serve(servers.closing_after(answer)) as server:
            transport = HttpTransport(server.url)
            assert bytes(post(transport).body) == b"abcde"
            transport.close()


def test_a_connection_that_the_server_closed_is_replaced() -> None:
    with servers.serve(servers.closing_after(servers.reply(200, b"fine"))) as server:
        transport = HttpTransport(server.url)
        for _ in range(3):
            assert bytes(post(transport).body) == b"fine"
        transport.close()
    assert server.connections == 3


def test_a_kept_connection_that_breaks_before_an_answer_is_tried_once_more() -> None:
    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        servers.receive(connection, server)
        connection.sendall(servers.reply(200, b"first"))
        servers.receive(connection, server)  # and then closes without an answer

    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        assert bytes(post(transport).body) == b"first"
        assert bytes(post(transport).body) == b"first"
        transport.close()
    assert len(server.requests) == 3
    assert server.connections == 2


def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        servers.receive(connection, server)

    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        with pytest.raises(TransportError) as raised:
            post(transport)
        transport.close()
    assert raised.value.sent
    assert server.connections == 1


def test_bytes_after_an_answer_are_not_taken_for_the_next_one() -> None:
    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        servers.receive(connection, server)
        connection.sendall(servers.reply(200, b"right") + servers.reply(200, b"smuggled"))
        servers.black_hole(connection, server)

    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        for _ in range(3):
            assert bytes(post(transport).body) == b"right"
        transport.close()
    assert server.connections == 3


def test_an_answer_before_the_end_of_the_request_is_heard() -> None:
    """A server may refuse and close without reading what is large."""

    def behave(connection: socket.socket, _: servers.Loopback) -> None:
        connection.recv(1000)
        connection.sendall(servers.reply(503, b"busy"))
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        servers.reset(connection)

    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        answers = []
        with suppress(TransportError):  # its last words may be lost with the reset
            answers.append(post(transport, [bytes(50_000_000)]).status)
        transport.close()
    assert answers in ([503], [])


def test_redirects_are_not_followed() -> None:
    away = servers.reply(302, headers={"Location": "http://127.0.0.1:1/"})
    with servers.serve(servers.answering(away)) as server:
        transport = HttpTransport(server.url)
        assert post(transport).status == 302
        transport.close()


@pytest.mark.parametrize(
    ("behave", "kind", "sent"),
    [
        (servers.resetting_download, TransportError, True),
        (servers.closing_after(b""), TransportError, True),
        (servers.closing_after(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"), TransportError, True),
        (servers.closing_after(CHUNKED + b"9\r\nx"), TransportError, True),
        (servers.closing_after(CHUNKED + b"-9\r\nx"), ProtocolError, None),
        (endless(CHUNKED + b"-1\r\n"), ProtocolError, None),
        (servers.answering(b"\x00\xff garbage \x1b[31m\r\n" * 9), ProtocolError, None),
        (servers.answering(b"HTTP/1.1 20x OK\r\n\r\n"), ProtocolError, None),
        (servers.answering(b"HTTP/9.9 200 OK\r\n\r\n"), ProtocolError, None),
        (servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), ProtocolError, None),
        (servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), ProtocolError, None),
        (servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"), ProtocolError, None),
        (servers.answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000), ProtocolError, None),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 100), ProtocolError, None),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n"), ProtocolError, None),
        (endless(CHUNKED, b"10000\r\n" + bytes(1 << 16) + b"\r\n"), ProtocolError, None),
    ],
    ids=label,
)
def test_a_server_that_breaks_the_protocol(
    behave: servers.Behaviour, kind: type[RuntimeFailure] | None, sent: bool | None
) -> None:
    raised = failure(behave)
    assert isinstance(raised, kind or RuntimeFailure)
    assert str(raised).startswith("127.0.0.1:")
    assert str(raised).isprintable()
    if sent is not None:
        assert isinstance(raised, TransportError)
        assert raised.sent is sent


def test_a_connection_that_breaks_while_sending_was_not_sent() -> None:
    raised = failure(servers.resetting_upload, [bytes(50_000_000)])
    assert isinstance(raised, TransportError)
    assert not raised.sent


@pytest.mark.parametrize(
    ("behave", "size"),
    [
        (servers.black_hole, 10),
        (servers.trickling, 10),
        (servers.endless_continues, 10),
        (servers.stuck, 50_000_000),
    ],
    ids=label,
)
def test_the_deadline_is_for_the_whole_exchange(behave: servers.Behaviour, size: int) -> None:
    raised = failure(behave, [bytes(size)], within_s=SOON_S)
    assert isinstance(raised, DeadlineExceeded)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = HttpTransport(f"http://127.0.0.1:{port}")
    with pytest.raises(TransportError) as raised:
        post(transport)
    transport.close()
    assert not raised.value.sent
    assert str(port) in str(raised.value)


def test_a_host_that_does_not_exist() -> None:
    for host in ("nowhere.invalid", "a" * 70 + ".invalid"):
        transport = HttpTransport(f"http://{host}")
        with pytest.raises(TransportError):
            post(transport)
        transport.close()


def test_connecting_ends_by_the_deadline() -> None:
    """A listener whose queue is full drops what comes, as a black-holed network does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(listener.getsockname())
        transport = HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(DeadlineExceeded):
            post(transport, within_s=SOON_S)
        transport.close()
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://host", "http://", "http://user:word@host", "http://host:x", "http://a b"]
)
def test_refuses_what_is_no_address(url: str) -> None:
    with pytest.raises(TransportError, match="not the address"):
        HttpTransport(url)


@pytest.mark.parametrize("token", ["", "two words", "line\r\nbreak", "schlüssel"])
def test_refuses_a_token_that_no_header_can_hold(token: str) -> None:
    with pytest.raises(TransportError, match="token"):
        HttpTransport("http://host", token=token)


def test_threads_share_a_transport() -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(20):
            text = b"%d of %d" % (turn, number)
            if bytes(post(transport, [text, bytes(5000)]).body[: len(text)]) != text:
                wrong.append(text)

    with servers.serve(servers.echoing) as server:
        transport = HttpTransport(server.url)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(servers.LONGEST_S)
        transport.close()
    assert not wrong
    assert len(server.requests) == 120


def test_closing_ends_what_waits_and_refuses_what_comes() -> None:
    raised: list[RuntimeFailure] = []

    def wait() -> None:
        try:
            post(transport)
        except RuntimeFailure as error:
            raised.append(error)

    with servers.serve(servers.black_hole) as server:
        transport = HttpTransport(server.url)
        thread = threading.Thread(target=wait)
        thread.start()
        until = time.monotonic() + servers.LONGEST_S
        while not server.connections and time.monotonic() < until:
            time.sleep(0.01)
        while thread.is_alive() and time.monotonic() < until:  # it may not have sent anything yet
            transport.close()
            thread.join(0.05)
        assert isinstance(raised[0], TransportError)
        with pytest.raises(TransportError, match="closed"):
            post(transport)


def test_connections_through_a_network_that_is_gone_are_all_dropped() -> None:
    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        is_old = server.connections <= 2
        while True:
            body = servers.receive(connection, server).body
            if is_old:
                together.wait(servers.LONGEST_S)
            connection.sendall(servers.reply(200, body))
            if is_old:
                servers.black_hole(connection, server)

    together = threading.Barrier(2)  # so that there are two connections
    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        threads = [threading.Thread(target=post, args=(transport,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(servers.LONGEST_S)
        with pytest.raises(DeadlineExceeded):
            post(transport, within_s=SOON_S)
        assert bytes(post(transport, [b"again"]).body) == b"again"
        transport.close()
    assert server.connections == 3


def test_ctrl_c_leaves_no_half_used_connection() -> None:
    def behave(connection: socket.socket, server: servers.Loopback) -> None:
        while True:
            body = servers.receive(connection, server).body
            server.ended.wait(0.3 if body == b"slow" else 0.0)
            connection.sendall(servers.reply(200, body))

    with servers.serve(behave) as server:
        transport = HttpTransport(server.url)
        post(transport, [b"warm"])
        timer = threading.Timer(0.05, _thread.interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - whichever turn it comes in
            while True:
                post(transport, [b"slow"])
        timer.join()
        assert bytes(post(transport, [b"next"]).body) == b"next"
        transport.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # since Python 3.12, where there are threads
def test_a_fork_has_connections_of_its_own() -> None:
    with servers.serve(servers.echoing) as server:
        transport = HttpTransport(server.url)
        post(transport, [b"parent"])
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                got = bytes(post(transport, [b"child"], within_s=5).body)
                transport.close()
                status = 0 if got == b"child" else 2
            os._exit(status)
        assert servers.exit_status(child) == 0
        assert bytes(post(transport, [b"again"]).body) == b"again"
        transport.close()
    assert server.connections == 2


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signed itself, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem "
            "-out cert.pem -days 2 -subj /CN=splitc -addext subjectAltName=IP:127.0.0.1".split(),
            cwd=folder,
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path = folder / "both.pem"
    path.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return path


def over_tls(certificate: Path, behave: servers.Behaviour) -> servers.Behaviour:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def wrapped(connection: socket.socket, server: servers.Loopback) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            behave(secure, server)

    return wrapped


def test_tls_with_an_authority_of_our_own(certificate: Path) -> None:
    with servers.serve(over_tls(certificate, servers.echoing)) as server:
        transport = HttpTransport(f"https://127.0.0.1:{server.port}", ca_file=certificate)
        for size in (10, 3_000_000, 0, 7):
            assert bytes(post(transport, [b"json", bytes(size)]).body) == b"json" + bytes(size)
        transport.close()
    assert server.connections == 1


def test_tls_refuses_a_server_that_nobody_vouches_for(certificate: Path) -> None:
    with servers.serve(over_tls(certificate, servers.echoing)) as server:
        transport = HttpTransport(f"https://127.0.0.1:{server.port}")
        with pytest.raises(TransportError, match="certificate") as raised:
            post(transport)
        transport.close()
    assert not raised.value.sent
    assert not server.requests


@pytest.mark.parametrize(("behave", "size"), [(servers.stuck, 50_000_000), (servers.trickling, 1)], ids=label)
def test_tls_ends_by_the_deadline(certificate: Path, behave: servers.Behaviour, size: int) -> None:
    with servers.serve(over_tls(certificate, behave)) as server:
        transport = HttpTransport(f"https://127.0.0.1:{server.port}", ca_file=certificate)
        with pytest.raises(DeadlineExceeded):
            post(transport, [bytes(size)], within_s=SOON_S)
        transport.close()


def test_a_server_that_never_shakes_hands(certificate: Path) -> None:
    with servers.serve(servers.black_hole) as server:
        transport = HttpTransport(f"https://127.0.0.1:{server.port}", ca_file=certificate)
        with pytest.raises(DeadlineExceeded):
            post(transport, within_s=SOON_S)
        transport.close()


def test_a_file_that_holds_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_text("no certificate")
    for name in ("wrong.pem", "absent.pem"):
        with pytest.raises(TransportError, match=name):
            HttpTransport("https://host", ca_file=tmp_path / name)
