"""The real server as a real process, and a compiled model of which every result is checked against the whole."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import onnx

from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle, read_bundle, write_manifest
from splitc.bundle.manifest import CutEntry
from splitc.common import ort
from splitc.common.values import Feeds, difference
from tests import models, running

# The same tests with many more requests, for an hour when nobody waits.
SOAK = os.environ.get("SPLITC_SOAK") == "1"
LIMIT_S = 600.0 if SOAK else 60.0  # nothing takes that long, unless something hangs
# What a test allows where a user would want milliseconds: the machine may be busy.
BUSY_S = 5.0
# A link on which the cloud is the better choice, even when a busy machine makes it look slow.
FAST = Conditions(1e9, 1e9, rtt_s=1e-3, device_slowdown=0.01)
_TOLERANCE = 1e-4
_INPUTS = 7
_DEVICE_S = 30.0


def times(normal: int, soak: int) -> int:
    return soak if SOAK else normal


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition*, as long as something that works may take."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, f"never came to pass: {what}"
        time.sleep(0.005)


# --- what is served ---


@dataclass(frozen=True)
class App:
    """A bundle, unlike inputs, and what the whole model makes of each: an answer to another request is seen."""

    model: Path
    bundle: Bundle
    feeds: tuple[Feeds, ...]
    wanted: tuple[Mapping[str, Any], ...]

    def input(self, number: int) -> Feeds:
        return self.feeds[number % len(self.feeds)]

    def is_right(self, number: int, outputs: Mapping[str, Any]) -> bool:
        """Whether *outputs* are what the whole model makes of the input of that number."""
        want = self.wanted[number % len(self.wanted)]
        return outputs.keys() == want.keys() and all(
            difference(outputs[name], want[name]).max_rel < _TOLERANCE for name in want
        )

    def cut(self, kind: str) -> CutEntry:
        return next(cut for cut in self.bundle.manifest.cuts if cut.kind == kind)

    def tail(self, kind: str) -> str:
        """The name under which the tail of that cut is served."""
        return f"{self.bundle.manifest.model.name}.{self.cut(kind).id}"

    def save_samples(self, path: Path) -> Path:
        """Write inputs and wanted outputs where `device.py` finds them."""
        arrays: dict[str, Any] = {
            f"{number}.{side}.{name}": array
            for number in range(len(self.feeds))
            for side, values in (("in", self.feeds[number]), ("out", self.wanted[number]))
            for name, array in values.items()
        }
        np.savez(path, **arrays)
        return path


def pictures(*, convolutions: int = 3, width: int = 8, name: str = "a") -> onnx.ModelProto:
    """From a picture of 196 KB to one of 131 KB; all weights are those of *name*."""
    layers = [f"{name}{number}" for number in range(convolutions - 1)]
    nodes = models.conv("x", f"{name}in", strides=[2, 2])
    for source, target in zip([f"{name}in", *layers], [*layers, "y"], strict=True):
        nodes += models.conv(source, target)
    weights = [models.weight(f"{name}in_w", width, 3, 3, 3)]
    weights += [models.weight(f"{target}_w", width, width, 3, 3) for target in layers]
    last = models.random_values(f"{name}y_w", (8, width, 3, 3))  # differs by name, as all others
    weights.append(models.value("y_w", last))
    return models.model(
        nodes, [models.floats("x", 1, 3, 128, 128)], [models.floats("y", 1, 8, 64, 64)], weights
    )


def make_app(folder: Path, proto: onnx.ModelProto, **options: Any) -> App:
    """Compile *proto* for a device that is far too slow, so that the scheduler wants the cloud.

    The device is this machine, in truth. What is learned of its speed is limited to a hundredth of the times in
    the manifest, so these are made long after the cuts were chosen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pictures.onnx"
    onnx.save_model(proto, path)
    bundle = read_bundle(running.compile_here(path, folder / "bundle", **options).folder)
    longest_s = max(cut.head.latency_s for cut in bundle.manifest.cuts if cut.head is not None)
    cuts = tuple(_slower(cut, _DEVICE_S / longest_s) for cut in bundle.manifest.cuts)
    write_manifest(bundle.folder, replace(bundle.manifest, cuts=cuts))
    whole = ort.session(path, threads=1)
    random = np.random.default_rng(1)
    feeds = tuple({"x": random.standard_normal((1, 3, 128, 128), np.float32)} for _ in range(_INPUTS))
    return App(path, read_bundle(bundle.folder), feeds, tuple(ort.run(whole, feed) for feed in feeds))


def _slower(cut: CutEntry, factor: float) -> CutEntry:
    head = cut.head
    return cut if head is None else replace(cut, head=replace(head, latency_s=factor * head.latency_s))


# --- who serves it ---


@dataclass
class Server:
    """`splitc serve` as a process."""

    process: subprocess.Popen[str]
    url: str
    stderr: IO[str]
    token: str | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def get(self, path: str) -> tuple[int, bytes]:
        return ask(self.address, "GET", path, {"Authorization": f"Bearer {self.token}"} if self.token else {})

    def value(self, name: str, **labels: str) -> float:
        """A sum of values in its metrics."""
        return metric(self.get("/metrics")[1].decode(), name, labels)

    def is_well(self) -> bool:
        return self.process.poll() is None and self.get("/v2/health/ready")[0] == 200

    def wait_for_runs(self, count: int = 10) -> None:
        """Wait until it has computed so many times more, whether or not the device was faster."""
        before = self._runs()
        until(lambda: self._runs() >= before + count, f"the server computes {count} times more")

    def _runs(self) -> float:
        return self.value("splitc_compute_seconds_count")

    def log(self) -> list[dict[str, Any]]:
        """Its events so far; what it said before it listened is progress, for a person."""
        self.stderr.seek(0)
        lines = self.stderr.read().splitlines()
        return [json.loads(line) for line in lines if not line.startswith("Preparing ")]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


@contextmanager
def serving(
    folder: Path,
    *options: str | Path,
    port: int = 0,
    token: str | None = None,
    launch: Sequence[str] = running.LAUNCH,
) -> Iterator[Server]:
    """Serve the bundle in *folder* until the block ends, then kill what is left."""
    command = [*launch, "serve", folder, "--port", port, "--json", "--threads", 1, *options]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,  # with a terminal, SIGHUP would end it
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=running.hear_interrupts,
        )
        with process:
            try:
                yield Server(process, _listens(process, stderr), stderr, token)
            finally:
                process.kill()


def _listens(process: subprocess.Popen[str], stderr: IO[str]) -> str:
    """Its URL, from the JSON document that it prints."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        if not line:
            stderr.seek(0)
            raise AssertionError(f"the server did not start: {stderr.read()}")
        text += line
    url = json.loads(text)["url"]
    assert isinstance(url, str)
    return url


def metric(text: str, name: str, labels: Mapping[str, str]) -> float:
    """The sum of all values of *name* in *text* that have these labels."""
    found = 0.0
    for line in text.splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found


def ask(
    address: tuple[str, int],
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=LIMIT_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# --- what a process holds ---


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    memory_bytes: int
    files: int
    threads: int

    @classmethod
    def by(cls, pid: int) -> "Held":
        folder = Path(f"/proc/{pid}")
        match = re.search(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())
        assert match is not None
        files, threads = (len(list((folder / name).iterdir())) for name in ("fd", "task"))
        return cls(1024 * int(match[1]), files, threads)


# --- an app in a process of its own ---

_DEVICE = Path(__file__).with_name("device.py")


@dataclass
class Device:
    """`device.py` as a process; at the end of a block its pipes are closed."""

    process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def request(self, count: int = 1) -> dict[str, Any]:
        """Have it make requests; what came of them."""
        self.tell(count)
        return self.hear()

    def tell(self, count: int) -> None:
        """Have it make requests, and go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n".encode())
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """What came of the requests."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the device ended"
        result: dict[str, Any] = json.loads(line)
        return result

    def end(self) -> int:
        """Have it end in good order; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LIMIT_S)


def device_command(
    bundle: Path, samples: Path, *, launch: Sequence[str] = (sys.executable, "-I"), **options: Any
) -> list[str]:
    """What to start; *options* as `device.py` describes them."""
    facts = {"bundle": str(bundle), "samples": str(samples), **options}
    return [*launch, str(_DEVICE), json.dumps(facts)]


@contextmanager
def device(bundle: Path, samples: Path, **options: Any) -> Iterator[Device]:
    process = subprocess.Popen(
        device_command(bundle, samples, **options), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            yield Device(process)
        finally:
            process.kill()


class Crowd:
    """Threads that work until they are told to stop; what one raises is raised at the end."""

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(work, number)) for number in range(count)]

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            while not self._stop.is_set():
                work(number)
        except BaseException as error:  # noqa: BLE001 - raised by the one who waits
            self._failures.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_S)
        assert not any(thread.is_alive() for thread in self._threads)
        if self._failures:
            raise self._failures[0]
