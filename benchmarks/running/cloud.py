"""What the machine of the server does without a server: run tails, and count bytes that come over the link."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.running.programs import obey
from splitc.bundle.folder import read_bundle
from splitc.bundle.manifest import part_files
from splitc.bundle.stacking import made_up
from splitc.common import ort
from splitc.server.tails.open import open_parts
from splitc.server.tails.part import File

HEADER = struct.Struct("!QQ")
LEAST_RUNS = 3
_PIECE_BYTES = 1 << 18

_runs: dict[str, dict[str, Callable[[], object]]] = {}


def listen(host: str) -> int:
    """Answer as many bytes as asked for; return the port."""
    listener = socket.create_server((host, 0))
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := connection.recv(HEADER.size, socket.MSG_WAITALL):
            uplink_bytes, downlink_bytes = HEADER.unpack(header)
            receive(connection, uplink_bytes)
            connection.sendall(bytes(downlink_bytes))


def receive(connection: socket.socket, size_bytes: int) -> None:
    """Receive so much, into memory that is used again."""
    piece = memoryview(bytearray(min(size_bytes, _PIECE_BYTES) or 1))
    while size_bytes:
        count = connection.recv_into(piece, min(size_bytes, len(piece)))
        if not count:
            raise ConnectionResetError
        size_bytes -= count


def open_tail(bundle: str, cut: str, cache: str) -> None:
    """Open a tail as the server has it ("served") and as it lies in the bundle ("shipped")."""
    found = read_bundle(Path(bundle))
    entry = next(item for item in found.manifest.cuts if item.id == cut)
    assert entry.tail is not None, "all-head has no tail"
    parts = open_parts(
        [Path(bundle)],
        threads=1,
        max_batch=8,
        memory_limit_bytes=None,
        cache_folder=Path(cache),
        say=lambda _: None,
    )
    served = next(part.runs for part in parts if part.cut.id == cut)
    assert isinstance(served, File), "a part of several files is not measured here"
    shipped = ort.session(found.path(part_files(entry.tail)[0]), threads=1)
    feeds = made_up(entry, found.manifest.model.dims)
    names = [output.name for output in shipped.get_outputs()]
    _runs[cut] = {
        "served": lambda: served.run(feeds, names),
        "shipped": lambda: shipped.run(names, dict(feeds)),
    }


def run_tail(cut: str, form: str, seconds: float, pause_s: float = 0.0) -> dict[str, float]:
    """Run it over and over; return the median, and how many runs a second there were."""
    taken_s = timed_runs(_runs[cut][form], seconds, pause_s)
    return {"median_s": median(taken_s), "per_s": len(taken_s) / (sum(taken_s) + pause_s * len(taken_s))}


def timed_runs(action: Callable[[], object], seconds: float, pause_s: float) -> list[float]:
    """Run *action* for so many *seconds*, with a pause before each: what others left in the caches decides then."""
    taken_s: list[float] = []
    began_s = time.perf_counter()
    while len(taken_s) < LEAST_RUNS or time.perf_counter() - began_s < seconds:
        if pause_s:
            time.sleep(pause_s)
        before_s = time.perf_counter()
        action()
        taken_s.append(time.perf_counter() - before_s)
    return taken_s


if __name__ == "__main__":
    obey({"listen": listen, "open": open_tail, "run": run_tail})
