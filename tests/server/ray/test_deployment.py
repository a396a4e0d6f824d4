"""The application on Ray Serve, as `splitc serve --ray` starts it: answers, refuses, and ends without a trace."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest

from splitc import Session
from splitc.bundle.pairing import pairing
from splitc.common import ort
from splitc.common.values import Input, concrete_shape, difference, random_feeds
from tests import running
from tests.conftest import Tiny
from tests.server.serving import LIMIT_S, Answer, ask, infer

pytest.importorskip("ray", reason="ray is not installed; pip install 'splitc[serve,ray]'")

TOKEN = "only-for-this-test"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    temporary: Path
    errors: Path
    url: str

    def ask(self, method: str, path: str, body: bytes | None = None, *, token: bool = False) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, method, path, body, AUTHORIZED if token else {})

    def connect(self) -> http.client.HTTPConnection:
        host, port = self.url.removeprefix("http://").split(":")
        return http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)

    def events(self) -> list[dict[str, str]]:
        """What was logged, here and by replicas: Ray puts the name of the process before their lines."""
        lines = re.findall(r"^(?:\S*\(Serve.*?\)\S* )?(\{.*\})$", self.errors.read_text(), re.MULTILINE)
        return [json.loads(line) for line in lines]

    def ends(self, number: signal.Signals) -> int:
        """Send a signal, and see that all ends and nothing is left; returns the exit code."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        assert started
        self.process.send_signal(number)
        code = self.process.wait(LIMIT_S)
        assert psutil.wait_procs(started, LIMIT_S)[1] == []
        assert list(self.temporary.iterdir()) == []
        return code


@contextlib.contextmanager
def started(tiny: Tiny, folder: Path, *options: str) -> Iterator[Served]:
    (folder / "token").write_text(TOKEN)
    words = ["serve", tiny.bundle.folder, "--ray", "--port", "0", "--token-file", folder / "token", "--json"]
    # Not below pytest's folder: names of sockets are short.
    with tempfile.TemporaryDirectory() as temporary, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [*running.LAUNCH, *map(str, words), *options],
            env={**os.environ, "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=running.hear_interrupts,
            start_new_session=True,
        )
        with process:
            try:
                assert process.stdout is not None
                url = announced(process.stdout)
                assert url, (folder / "errors").read_text()
                yield Served(process, Path(temporary), folder / "errors", url)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LIMIT_S)
                process.kill()


def announced(stdout: IO[str]) -> str:
    """The address in the JSON on *stdout*; empty if the process ends before that."""
    text = ""
    for line in stdout:
        text += line
        if line == "}\n":
            break
    return str(json.loads(text)["url"]) if text else ""


@pytest.fixture(scope="module")
def served(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with started(tiny, tmp_path_factory.mktemp("ray"), "--replicas", "1..2", "--threads", "1") as server:
        yield server


def test_every_cut_gives_what_the_whole_model_gives(tiny: Tiny, served: Served) -> None:
    model = tiny.bundle.manifest.model
    whole = ort.session(tiny.model)
    given = [Input(item.name, item.dtype, item.shape) for item in model.inputs]
    for seed, cut in enumerate(tiny.bundle.manifest.cuts):
        if cut.tail is None:
            continue
        feeds = random_feeds(given, model.dims, seed)
        wanted = ort.run(whole, feeds)
        with Session(tiny.bundle.folder, server=served.url, token=TOKEN, cut=cut.id) as session:
            outcome = session.request(feeds)
        assert (outcome.finished, outcome.fallback) == ("cloud", None)
        assert outcome.exchange is not None
        assert outcome.exchange.compute_s is not None  # from a header
        assert all(difference(outcome.outputs[name], wanted[name]).max_rel < 1e-4 for name in wanted)


def test_a_plain_client(tiny: Tiny, served: Served) -> None:
    cut = next(cut for cut in tiny.bundle.manifest.cuts if cut.kind == "all-tail")
    (name,) = (item.name for item in cut.boundary)
    shape = concrete_shape(cut.boundary[0].shape, tiny.bundle.manifest.model.dims)
    feeds = {name: np.random.default_rng(3).standard_normal(shape, np.float32)}
    model = f"{tiny.bundle.manifest.model.name}.{cut.id}"
    with contextlib.closing(served.connect()) as connection:
        answer = infer(connection, model, feeds, headers=AUTHORIZED)
        wanted = ort.run(ort.session(tiny.model), feeds)
        assert all(difference(value, wanted[key]).max_rel < 1e-4 for key, value in answer.outputs().items())
        assert re.fullmatch(
            r"recv;dur=[\d.]+, queue;dur=[\d.]+, compute;dur=[\d.]+", answer.headers["server-timing"]
        )
        assert answer.headers["splitc-pairing"] == pairing(tiny.bundle.manifest, cut)
        other = infer(connection, model, feeds, headers={**AUTHORIZED, "Splitc-Pairing": "0" * 64})
        assert other.status == 412


def test_health_is_open_and_all_else_needs_the_token(served: Served) -> None:
    assert served.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert served.ask("GET", "/v2/health/live").json == {"live": True}
    for path in ("/v2", "/metrics", "/nothing"):
        assert served.ask("GET", path).status == 401
    assert served.ask("GET", "/v2", token=True).json["name"] == "splitc"
    assert served.ask("GET", "/nothing", token=True).status == 404
    assert b"splitc_requests" in served.ask("GET", "/metrics", token=True).body


def test_what_is_wrong_is_refused_as_everywhere(tiny: Tiny, served: Served) -> None:
    path = f"/v2/models/{tiny.bundle.manifest.model.name}.c1/infer"
    assert served.ask("POST", path, b"{", token=True).status == 400
    assert served.ask("POST", path, bytes(64 << 20), token=True).status == 413
    assert len(served.ask("POST", "/splitc/probe?bytes=1000", b"x" * 1000, token=True).body) == 1000


def test_replicas_log_as_the_server_does(served: Served) -> None:
    assert served.ask("GET", "/v2").status == 401
    end_s = time.monotonic() + LIMIT_S
    while not any(event["event"] == "refused" and event["reason"] == "token" for event in served.events()):
        assert time.monotonic() < end_s
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_at_the_end(number: signal.Signals, tiny: Tiny, tmp_path: Path) -> None:
    with started(tiny, tmp_path) as server:
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.ends(number) == 0
        assert [event["event"] for event in server.events()] == ["start", "stop"]
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/v2/health/ready")


def test_a_second_signal_does_not_wait(tiny: Tiny, tmp_path: Path) -> None:
    with started(tiny, tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + LIMIT_S
        while server.events()[-1]["event"] != "stop":
            assert time.monotonic() < end_s
            time.sleep(0.01)
        # It may have been done already, on a machine that is busy.
        assert server.ends(signal.SIGTERM) in (128 + signal.SIGTERM, 0)


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (["--host", "192.0.2.1"], {}, "listen at 192.0.2.1 alone; give --host 127.0.0.1 or 0.0.0.0"),
        ([], {"RAY_ADDRESS": "127.0.0.1:1"}, "do not reach each other at 127.0.0.1; give --host 0.0.0.0"),
        (["--host", "0.0.0.0"], {"RAY_ADDRESS": "127.0.0.1:1"}, "127.0.0.1:1 cannot be reached"),
        ([], {"TMPDIR": "long"}, "set TMPDIR to a shorter path, such as /tmp"),
    ],
    ids=["one address", "a cluster at loopback", "no cluster", "a long path"],
)
def test_what_ray_cannot_do_is_told_at_once(
    options: list[str], environment: dict[str, str], words: str, tiny: Tiny, tmp_path: Path
) -> None:
    env = {name: str(tmp_path) if name == "TMPDIR" else value for name, value in environment.items()}
    done = running.splitc(
        "serve", tiny.bundle.folder, "--ray", "--port", "0", *options, cwd=tmp_path, env=env
    )
    assert (done.code, done.out) == (1, "")
    assert words in done.sentence


def test_a_port_that_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = running.splitc("serve", tiny.bundle.folder, "--ray", "--port", port, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert f"cannot listen on port {port} of 127.0.0.1: Address already in use" in done.sentence
