"""The server behind the page: who knows the address gets the named files, and may send one result."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitc.common.errors import ProfileError
from splitc.common.records import encode
from splitc.profile.document import MachineFacts, Measurement, Profile, parse_profile
from splitc.profile.measure.browser_server import Beat, PageFailed, Result, ServedFile, Site, serving

HERE = "127.0.0.1"
PROFILE = Profile(
    1,
    "0" * 64,
    "measured",
    "onnxruntime-web",
    "1.30.0",
    "wasm",
    MachineFacts(None, None, "a phone", 8, None),
    (Measurement(1, {}, 3, (0.1,), (0.1,), (), ()),),
)
BODY = json.dumps(encode(PROFILE))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "secret").write_bytes(b"secret")
    files = {"": ServedFile(b"<p>page", "text/html"), "model.onnx": ServedFile(tmp_path / "model.onnx")}
    with serving(files, lambda body: parse_profile(body, "what the page sent"), HERE, 0) as started:
        yield started


def ask(
    site: Site, method: str, path: str, body: str | None = None
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(HERE, site.port, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode() if body else None)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_files_under_the_address(site: Site) -> None:
    status, headers, text = ask(site, "GET", site.path)
    assert (status, text, headers["Content-Type"]) == (200, "<p>page", "text/html")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cache-Control"] == "no-store"
    assert ask(site, "GET", f"{site.path}model.onnx")[2] == "model"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/model.onnx",
        "/abcdefghjkmnpqrs/model.onnx",
        "{}secret",
        "{}../secret",
        "{}%2e%2e/secret",
        "{}./model.onnx",
        "{}/etc/passwd",
        "{}model.onnx/",
        "{}\xe9",
    ],
)
def test_nothing_else_is_there(site: Site, path: str) -> None:
    raw = f"GET {path.format(site.path)} HTTP/1.0\r\n\r\n".encode("latin-1")
    with socket.create_connection((HERE, site.port), timeout=20) as connection:
        connection.sendall(raw)
        assert connection.makefile("rb").readline().split()[1] == b"404"


@pytest.mark.parametrize("name", ["progress", "failure", "result"])
def test_who_does_not_know_the_address_cannot_say_anything(site: Site, name: str) -> None:
    assert ask(site, "POST", f"/{'a' * 16}/{name}", BODY)[0] == 404
    assert ask(site, "POST", f"/{name}", BODY)[0] == 404
    assert site.said.empty()


def test_each_server_has_an_address_of_its_own(site: Site) -> None:
    with serving({}, lambda body: parse_profile(body, "it"), HERE, 0) as other:
        assert other.path != site.path


def test_one_result_and_no_other(site: Site) -> None:
    assert ask(site, "POST", f"{site.path}result", BODY)[0] == 204
    assert site.said.get(timeout=20) == Result(PROFILE)
    status, _, text = ask(site, "POST", f"{site.path}result", BODY)
    assert (status, text) == (409, "a result was already received")
    assert site.said.empty()


@pytest.mark.parametrize(
    "body", ["", "garbage", "[]", "{}", BODY.replace('"measured"', '"guessed"'), "[" * 100_000], ids=range(6)
)
def test_garbage_is_no_result_and_spoils_nothing(site: Site, body: str) -> None:
    status, _, text = ask(site, "POST", f"{site.path}result", body)
    assert status == 400
    assert text.startswith("what the page sent: ")
    assert ask(site, "POST", f"{site.path}result", BODY)[0] == 204


def test_what_has_no_length_or_too_much_is_refused(site: Site) -> None:
    assert ask(site, "POST", f"{site.path}result")[0] == 411
    for length, status in (("1" * 5000, 413), (str(65 << 20), 413), ("-1", 411), ("+1", 411), ("²", 411)):
        raw = f"POST {site.path}result HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
        with socket.create_connection((HERE, site.port), timeout=20) as connection:
            connection.sendall(raw)
            assert int(connection.makefile("rb").readline().split()[1]) == status, length
    assert ask(site, "POST", f"{site.path}progress", "x" * 20_000)[0] == 413
    assert site.said.empty()


def test_half_a_result_is_none(site: Site) -> None:
    with socket.create_connection((HERE, site.port), timeout=20) as connection:
        connection.sendall(f"POST {site.path}result HTTP/1.0\r\nContent-Length: 10\r\n\r\n[".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == b""
    assert site.said.empty()


def test_the_page_says_what_it_does(site: Site) -> None:
    hostile = "warming\n up\x1b[2J " + "x" * 5000
    assert ask(site, "POST", f"{site.path}progress", json.dumps({"text": hostile, "done": 0.5}))[0] == 204
    said = site.said.get(timeout=20)
    assert isinstance(said, Beat)
    assert said.text.startswith("warming up[2J xxx")
    assert said.text.isprintable()
    assert len(said.text) <= 4000
    assert ask(site, "POST", f"{site.path}failure", '{"sentence": "no luck"}')[0] == 204
    assert site.said.get(timeout=20) == PageFailed("no luck")


@pytest.mark.parametrize("body", ["", "nonsense", "[]", '{"text": 1}', '{"sentence": "x"}'])
def test_a_beat_that_is_none(site: Site, body: str) -> None:
    assert ask(site, "POST", f"{site.path}progress", body)[0] == 400
    assert site.said.empty()


def test_a_port_that_is_taken(site: Site) -> None:
    with (
        pytest.raises(ProfileError, match=f"cannot serve a page at port {site.port} of {HERE}: "),
        serving({}, lambda body: parse_profile(body, "it"), HERE, site.port),
    ):
        pass


def test_the_port_is_free_afterwards() -> None:
    with serving({}, lambda body: parse_profile(body, "it"), HERE, 0) as first:
        pass
    with serving({}, lambda body: parse_profile(body, "it"), HERE, first.port) as second:
        assert second.port == first.port
